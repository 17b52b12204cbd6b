"""What is measured already. Law: a point is measured once for a model, its data and what chose the channels.

Points are written as they come, so that an interrupted analysis goes on where it was; losing the file loses only time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.cache import recall, remember
from onnxprune.model import Array, Model
from onnxprune.plan import fingerprint
from onnxprune.sensitivity.curves import Point


@dataclass
class Record:
    """A file of points.

    Attributes:
        path: Where it lies; None keeps nothing.
        identity: All that the points depend on.
        dense: What is known of the dense model.
        points: Group -> ratio as text -> the point.
    """

    path: Path | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)
    dense: dict[str, Any] = field(default_factory=dict)
    points: dict[str, dict[str, Any]] = field(default_factory=dict)

    @staticmethod
    def opened(path: Path | None, identity: Mapping[str, Any], *, fresh: bool = False) -> Record:
        """What a file holds, unless that is of something else, damaged, or not wanted."""
        held = None if fresh else recall(path)
        if held is None or held.get("key") != dict(identity):
            return Record(path, identity)
        return Record(path, identity, dict(held.get("dense", {})), dict(held.get("points", {})))

    def get(self, group: str, ratio: float) -> Point | None:
        """A point, if it is known."""
        held = self.points.get(group, {}).get(f"{ratio:.6g}")
        try:
            return Point.parse(held) if held else None
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    def put(self, group: str, point: Point) -> None:
        """Keep a point."""
        self.points.setdefault(group, {})[f"{point.ratio:.6g}"] = point.to_dict()
        self.write()

    def write(self) -> None:
        """Write the file."""
        remember(self.path, self.identity, {"dense": self.dense, "points": self.points})


def content(model: Model) -> str:
    """A hash of a model, its weights included."""
    return fingerprint(model) + digest(model.weights[name] for name in sorted(model.weights))


def digest(arrays: Iterable[Array]) -> str:
    """A hash of arrays."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(repr((array.shape, str(array.dtype))).encode())
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.hexdigest()
