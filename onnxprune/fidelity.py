"""Pruned against dense outputs, without labels. Law: an output equal to the dense one scores 1, and no NaN is hidden.

The figures of an output are over all its elements in all batches: the relative error ||p - d|| / ||d||, the cosine
p.d / (||p|| ||d||), and, where it is a table of scores (two axes, more than one column), the share of rows whose
largest entry is the same. Integers and booleans have only the share of equal elements. An output whose shape differs,
or that is not finite where the dense one is, has no figures but a note. Of a list or a map all tensors count together;
text is compared like integers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxprune import runtime
from onnxprune.data import Feeds
from onnxprune.model import Array, is_float
from onnxprune.runtime import Source


@dataclass
class Sums:
    """Of one output, what the figures are made of.

    Attributes:
        error: Sum of (p - d)^2.
        dense: Sum of d^2.
        pruned: Sum of p^2.
        product: Sum of p d.
        same: Rows with the same largest entry.
        rows: Rows compared that way.
        equal: Elements that are no floats and are equal: integers, text, the keys of maps.
        elements: Elements compared that way.
        floats: Whether there were any floats.
        note: Why there are no figures.
    """

    error: float = 0.0
    dense: float = 0.0
    pruned: float = 0.0
    product: float = 0.0
    same: int = 0
    rows: int = 0
    equal: int = 0
    elements: int = 0
    floats: bool = False
    note: str = ""

    def add_value(self, dense: Any, pruned: Any) -> None:
        """Count one batch of an output of any type."""
        sides = [list(runtime.leaves(value)) for value in (dense, pruned)]
        if len(sides[0]) != len(sides[1]):
            self.note = f"{len(sides[1])} tensors where the dense model has {len(sides[0])}"
            return
        for x, y in zip(*sides, strict=True):
            self.add(x, y)

    def add(self, dense: Array, pruned: Array) -> None:
        """Count one batch."""
        if dense.shape != pruned.shape:
            self.note = f"shape {list(pruned.shape)} where the dense model has {list(dense.shape)}"
        elif not is_float(dense):
            self.elements += dense.size
            self.equal += int(np.sum(dense == pruned))
        else:
            self.floats = True
            self.add_floats(np.asarray(dense, np.float64), np.asarray(pruned, np.float64))

    def add_floats(self, dense: Array, pruned: Array) -> None:
        """Count floats; where the dense model itself is not finite there is nothing to compare with."""
        usable = np.isfinite(dense)
        if not np.isfinite(pruned[usable]).all():
            self.note = "not finite where the dense model is"
            return
        if dense.ndim == 2 and dense.shape[1] > 1:
            self.same += int((dense.argmax(axis=1) == pruned.argmax(axis=1)).sum())
            self.rows += dense.shape[0]
        d, p = dense[usable], pruned[usable]
        self.error += float(((p - d) ** 2).sum())
        self.dense += float(d @ d)
        self.pruned += float(p @ p)
        self.product += float(p @ d)

    def figures(self) -> dict[str, Any]:
        """The figures, as JSON."""
        if self.floats and self.equal < self.elements:
            self.note = "keys that the dense model's map has not"
        if self.note:
            return {"relative_l2": None, "cosine": None, "agreement": None, "note": self.note}
        if not self.floats:
            equal = self.equal / self.elements if self.elements else None
            return {"relative_l2": None, "cosine": None, "agreement": equal, "note": ""}
        agreement = self.same / self.rows if self.rows else None
        if self.error == 0:
            return {"relative_l2": 0.0, "cosine": 1.0, "agreement": agreement, "note": ""}
        norms = math.sqrt(self.dense) * math.sqrt(self.pruned)
        return {
            "relative_l2": math.sqrt(self.error / self.dense) if self.dense else None,  # no scale to measure it by
            "cosine": self.product / norms if norms else 0.0,
            "agreement": agreement,
            "note": "",
        }


def fidelity(dense: Source, pruned: Source, batches: Iterable[Feeds], *, threads: int = 1) -> dict[str, Any]:
    """How near a pruned model's outputs are to the dense model's.

    Args:
        dense: The dense model.
        pruned: The pruned one, with the same inputs and outputs.
        batches: What to run both on.
        threads: Threads inside one operator.

    Returns:
        JSON: the worst output's `relative_l2`, `cosine` and `agreement` (None where no output has one), the number of
        `batches`, and all `outputs` by name.
    """
    sessions = [runtime.session(model, threads=threads) for model in (dense, pruned)]
    sums: dict[str, Sums] = {}
    count = 0
    for feeds in batches:
        before, after = (runtime.run(opened, feeds) for opened in sessions)
        count += 1
        for name, value in before.items():
            sums.setdefault(name, Sums()).add_value(value, after[name])
    return {"batches": count, **summary({name: s.figures() for name, s in sums.items()})}


def summary(outputs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of the worst output in each respect; one without figures makes the model's unknown."""
    unknown = any(figures["note"] for figures in outputs.values())

    def worst(key: str, choose: Any) -> float | None:
        known = [figures[key] for figures in outputs.values() if figures[key] is not None]
        return None if unknown or not known else float(choose(known))

    return {
        "relative_l2": worst("relative_l2", max),
        "cosine": worst("cosine", min),
        "agreement": worst("agreement", min),
        "outputs": dict(outputs),
    }
