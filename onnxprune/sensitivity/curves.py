"""What an analysis found. Law: a file read back holds what was written, and says which model it is of."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from onnxprune.errors import DataError
from onnxprune.model import write_atomic
from onnxprune.plan import fingerprint
from onnxprune.sensitivity.divergence import losses
from onnxprune.trace import Dependencies

SCHEMA = "onnxprune/sensitivity/1"


@dataclass(frozen=True)
class Point:
    """One group cut alone.

    Attributes:
        ratio: The share of its channels that was to go.
        removed: How many went; rows may ask for another number.
        saved: Share of the whole model's multiply-accumulates that this saves.
        outputs: Output -> its divergence (`sensitivity.divergence`); infinite where it is no number any more.
        accuracy: Top-1, where labels were given.
        metric: What the user's script gives, larger is better.
    """

    ratio: float
    removed: int
    saved: float
    outputs: Mapping[str, float]
    accuracy: float | None = None
    metric: float | None = None

    @property
    def divergence(self) -> float:
        """Of the output that diverges most."""
        return max(self.outputs.values(), default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types: no number for infinity."""
        outputs = {name: value if math.isfinite(value) else None for name, value in self.outputs.items()}
        return asdict(self) | {"outputs": outputs}

    @staticmethod
    def parse(raw: Mapping[str, Any]) -> Point:
        """From JSON."""
        outputs = {str(k): math.inf if v is None else float(v) for k, v in raw["outputs"].items()}
        fields = float(raw["ratio"]), int(raw["removed"]), float(raw["saved"]), outputs
        return Point(*fields, raw.get("accuracy"), raw.get("metric"))


@dataclass(frozen=True)
class Curve:
    """What one group costs.

    Attributes:
        name: The group's.
        sources: As `tensor:axis`.
        channels: Its units.
        points: By rising ratio.
        recommended: Share that it loses when the whole model is cut by sensitivity to a given target, if one was given.
    """

    name: str
    sources: tuple[str, ...]
    channels: int
    points: tuple[Point, ...]
    recommended: float | None = None

    @property
    def damage(self) -> float:
        """Mean of 1 - exp(-divergence) over the grid: what groups are sorted by. In [0, 1].

        Outputs that have nothing in common any more count once, however large the number is.
        """
        return sum(-math.expm1(-p.divergence) for p in self.points) / max(1, len(self.points))


@dataclass(frozen=True)
class Curves:
    """An analysis.

    Attributes:
        model: The file.
        fingerprint: Of the graph.
        criterion: What chose the channels of a group.
        samples: Samples the outputs were compared on.
        kinds: Output -> how its divergence is measured.
        groups: All groups, in the order of the model.
        accuracy: Of the dense model, where labels were given.
        metric: Of the dense model, where a script was given.
        macs: Share of the multiply-accumulates that the recommended ratios keep.
    """

    model: str
    fingerprint: str
    criterion: str
    samples: int
    kinds: Mapping[str, str]
    groups: tuple[Curve, ...]
    accuracy: float | None = None
    metric: float | None = None
    macs: float | None = None
    settings: Mapping[str, object] = field(default_factory=dict)

    @property
    def ratios(self) -> tuple[float, ...]:
        """The grid."""
        return tuple(sorted({p.ratio for g in self.groups for p in g.points}))

    @property
    def ranked(self) -> list[Curve]:
        """The groups, the most sensitive first."""
        return sorted(self.groups, key=lambda g: -g.damage)

    def loss(self, point: Point) -> float:
        """All outputs' divergence as one number that nearly adds up over groups."""
        return losses(self.kinds, point.outputs)

    def recommending(self, ratios: Sequence[float], macs: float) -> Curves:
        """With a ratio for each group, which together keep a share `macs` of the work."""
        groups = (replace(g, recommended=float(r)) for g, r in zip(self.groups, ratios, strict=True))
        return replace(self, groups=tuple(groups), macs=macs)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        groups = [asdict(g) | {"points": [p.to_dict() for p in g.points]} for g in self.groups]
        return {"schema": SCHEMA, **{k: v for k, v in vars(self).items() if k != "groups"}, "groups": groups}

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_atomic(path, json.dumps(self.to_dict(), indent=1) + "\n")


def parse(raw: Mapping[str, Any]) -> Curves:
    """From JSON.

    Raises:
        KeyError, TypeError, ValueError: It does not have the form of an analysis.
    """
    if not isinstance(raw, dict) or raw["schema"] != SCHEMA:
        raise ValueError(f"schema is not {SCHEMA}")
    groups = tuple(
        Curve(
            str(g["name"]),
            tuple(map(str, g["sources"])),
            int(g["channels"]),
            tuple(Point.parse(p) for p in g["points"]),
            g.get("recommended"),
        )
        for g in raw["groups"]
    )
    head = str(raw["model"]), str(raw["fingerprint"]), str(raw["criterion"]), int(raw["samples"]), dict(raw["kinds"])
    return Curves(*head, groups, raw["accuracy"], raw["metric"], raw["macs"], dict(raw["settings"]))


def read(path: Path, dependencies: Dependencies) -> Curves:
    """The curves in a file, for a model.

    Raises:
        DataError: It cannot be read, or is of another model.
    """
    remedy = "write it with 'onnxprune sensitivity IN.onnx --data X.npz -o S.json'"
    try:
        found = parse(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot be read ({reason})", where=str(path), remedy=remedy) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"is no sensitivity analysis ({error})", where=str(path), remedy=remedy) from error
    names = [group.name for group in dependencies.groups]
    if found.fingerprint != fingerprint(dependencies.model) or [g.name for g in found.groups] != names:
        raise DataError("is an analysis of another model", where=str(path), remedy=remedy)
    return found
