"""How far outputs are from the dense ones. Law: equal outputs diverge by 0, and what is not a number by infinity.

The mean over rows of KL(dense || pruned), in nats, where an output is a table of scores (two axes, more than one
column): rows that are not negative and sum to one are probabilities, others logits, of which the softmax is taken. The
relative error ||p - d|| / ||d|| for any other floats; the share of unequal elements for integers and booleans.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onnxprune.model import Array, is_float

Floats = NDArray[np.float64]
Kind = Literal["kl of logits", "kl of probabilities", "relative l2", "share unequal"]

SUM = 1e-2  # how near to one rows of probabilities sum: float16 keeps three digits of each of them
LEAST = 1e-38  # a probability below that is 0 in float32; KL stays finite


def kind_of(batches: Iterable[Array]) -> Kind:
    """What an output of the dense model is, from its values in all batches."""
    tables = probabilities = True
    for array in batches:
        if not is_float(array):
            return "share unequal"
        tables = tables and array.ndim == 2 and array.shape[1] > 1
        probabilities = tables and probabilities and bool((array >= 0).all() and near_one(array))
    if not tables:
        return "relative l2"
    return "kl of probabilities" if probabilities else "kl of logits"


def near_one(table: Array) -> bool:
    """Whether every row sums to one."""
    return bool((np.abs(table.astype(np.float64).sum(axis=1) - 1) <= SUM).all())


def log_probabilities(table: Floats, kind: Kind) -> Floats:
    """Logarithms of each row's probabilities. Shape (rows, columns)."""
    if kind == "kl of probabilities":
        held = np.maximum(table, LEAST)
        return np.asarray(np.log(held / held.sum(axis=1, keepdims=True)))
    shifted = table - table.max(axis=1, keepdims=True)
    return np.asarray(np.maximum(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), math.log(LEAST)))


@dataclass
class Sums:
    """Of one output, what its divergence is made of.

    Attributes:
        kind: What it is.
        total: Sum of the divergence of rows, of squared errors, or of unequal elements.
        scale: Rows, sum of squares of the dense output, or elements.
    """

    kind: Kind
    total: float = 0.0
    scale: float = 0.0

    def add(self, dense: Array, pruned: Array) -> None:
        """Count one batch; places at which the dense model itself is not finite say nothing."""
        if dense.shape != pruned.shape:
            self.total = math.inf
        elif self.kind == "share unequal":
            self.total, self.scale = self.total + float((dense != pruned).sum()), self.scale + dense.size
        else:
            self.add_floats(np.asarray(dense, np.float64), np.asarray(pruned, np.float64))

    def add_floats(self, dense: Floats, pruned: Floats) -> None:
        """Count one batch of floats."""
        usable = np.isfinite(dense)
        if not np.isfinite(pruned[usable]).all():
            self.total = math.inf
        elif self.kind == "relative l2":
            self.total += float(np.square(pruned[usable] - dense[usable]).sum())
            self.scale += float(np.square(dense[usable]).sum())
        else:
            whole = usable.all(axis=1)
            p, q = (log_probabilities(table[whole], self.kind) for table in (dense, pruned))
            self.total += float((np.exp(p) * (p - q)).sum())
            self.scale += int(whole.sum())

    @property
    def value(self) -> float:
        """The divergence; infinite where the outputs are no numbers, or differ where there is no scale."""
        if not math.isfinite(self.total) or (self.total > 0 and not self.scale):
            return math.inf
        share = max(self.total, 0.0) / self.scale if self.scale else 0.0
        return math.sqrt(share) if self.kind == "relative l2" else share


def losses(kinds: Mapping[str, Any], values: Mapping[str, float]) -> float:
    """The divergence of all outputs as one number that is of second order in a change of the weights.

    KL is, and the square of a relative error; such numbers add up over outputs, and nearly so over groups.
    """
    return sum(v * v if kinds[name] == "relative l2" else v for name, v in values.items())
