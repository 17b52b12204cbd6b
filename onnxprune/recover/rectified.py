"""Fit to what an activation lets through. Law: what is lost behind it counts, and only where samples held out agree.

Behind a ReLU it does not matter how far below 0 a value is. So where the dense value is cut off, the pruned one has
only to be cut off, too (the nonlinear reconstruction of Zhang et al. 2015, arXiv 1505.06798, section 3.2, solved by
majorisation: a least-squares fit to targets that move with what is predicted never raises the error behind the ReLU, as
the squared distance to the nearest value that is cut off is at least that error).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.calibrate.moments import Floats, Moments
from onnxprune.model import Model
from onnxprune.recover.ridge import Update, penalised
from onnxprune.shapes import attribute

ROUNDS = 4  # the error falls fastest in the first


@dataclass(frozen=True, eq=False)
class Rows:
    """Sites of a layer, kept.

    Attributes:
        inputs: Shape (groups, sites, K).
        found: The anchor in the pruned network. Shape (sites, channels).
        wanted: In the dense one. Shape (sites, channels).
    """

    inputs: NDArray[np.float32]
    found: Floats
    wanted: Floats

    @staticmethod
    def joined(parts: Sequence[Rows]) -> Rows:
        """All of them."""
        return Rows(
            np.concatenate([p.inputs for p in parts], axis=1),
            np.concatenate([p.found for p in parts]),
            np.concatenate([p.wanted for p in parts]),
        )

    def predicted(self, matrix: Floats, slope: Floats) -> Floats:
        """The anchor with changed weights. Shape (sites, channels)."""
        moved = self.inputs @ matrix[:, :-1].astype(np.float32) + matrix[:, -1:].astype(np.float32)
        return np.asarray(self.found + moved.transpose(1, 0, 2).reshape(self.found.shape) * slope)

    def cross(self, missing: Floats) -> Floats:
        """Inputs x what is missing in the layer's own scale. Shape (groups, K + 1, M)."""
        groups, sites, _ = self.inputs.shape
        r = missing.astype(np.float32).reshape(sites, groups, -1).transpose(1, 0, 2)
        return np.concatenate([self.inputs.transpose(0, 2, 1) @ r, r.sum(axis=1, keepdims=True)], 1).astype(np.float64)


@dataclass(frozen=True)
class Window:
    """The values that an activation lets through; others become the nearer end."""

    low: float
    high: float

    def error(self, found: Floats, wanted: Floats, weight: Floats) -> float:
        """Squared error behind the activation, `weight` for each channel."""
        lost = np.clip(found, self.low, self.high) - np.clip(wanted, self.low, self.high)
        return float((np.square(lost) * weight).sum())

    def target(self, found: Floats, wanted: Floats) -> Floats:
        """The nearest values that come to the same behind the activation."""
        below = np.where(wanted <= self.low, np.minimum(found, self.low), wanted)
        return np.where(wanted >= self.high, np.maximum(found, self.high), below)


def window_of(tensor: str, model: Model, readers: Mapping[str, Sequence[onnx.NodeProto | None]]) -> Window | None:
    """What all readers of a tensor let through; None where they are no ReLU or Clip, or differ."""
    found = {bounds(node, model) if node is not None else None for node in readers.get(tensor, ())}
    only = found.pop() if len(found) == 1 else None
    return None if only is None else Window(*only)


def bounds(node: onnx.NodeProto, model: Model) -> tuple[float, float] | None:
    """The ends of what a node lets through."""
    if node.op_type == "Relu":
        return 0.0, np.inf
    if node.op_type != "Clip":
        return None
    ends = []
    for i, (name, default) in enumerate((("min", -np.inf), ("max", np.inf)), start=1):
        given = node.input[i] if len(node.input) > i else ""
        value = model.known(given) if given else attribute(node, name, default)
        if value is None or np.size(value) != 1:
            return None
        ends.append(float(np.asarray(value).ravel()[0]))
    return ends[0], ends[1]


def rectified(
    update: Update,
    moments: tuple[Moments, Moments],
    rows: tuple[Rows, Rows],
    window: Window,
    slope: Floats,
    *,
    intercept: bool = True,
) -> Update | None:
    """The better of an update and one that is fitted to what the activation lets through; None where neither helps.

    Args:
        update: The least-squares update and its penalty.
        moments: Of the sites to fit to and of those to judge by.
        rows: The same sites.
        window: What is let through.
        slope: What the layer's channels are multiplied by before it; 0 where one carries nothing.
        intercept: Whether the layer can be shifted.
    """
    fit, held = rows
    back = np.divide(1.0, slope, out=np.zeros_like(slope), where=slope != 0)
    weight = (slope != 0).astype(np.float64)
    part = iterated([fit], moments[0], update, window, slope, back, intercept=intercept)
    errors = [
        window.error(held.found, held.wanted, weight),
        window.error(held.predicted(update.part, slope), held.wanted, weight),
        window.error(held.predicted(part, slope), held.wanted, weight),
    ]
    best = int(np.argmin([e if np.isfinite(e) else np.inf for e in errors]))
    if best == 0:
        return None
    chosen = replace(update, before=errors[0], after=errors[best])
    if best == 1:
        harmless = window.error(held.predicted(update.matrix, slope), held.wanted, weight) <= errors[best]
        return chosen if harmless else replace(chosen, matrix=update.part)
    whole = iterated([fit, held], moments[0] + moments[1], update, window, slope, back, intercept=intercept)
    harmless = window.error(held.predicted(whole, slope), held.wanted, weight) <= errors[best]
    return replace(chosen, matrix=whole if harmless else part)


def iterated(
    rows: Sequence[Rows],
    moments: Moments,
    update: Update,
    window: Window,
    slope: Floats,
    back: Floats,
    *,
    intercept: bool,
) -> Floats:
    """Fit, move the targets, and fit again. Shape (groups, K + 1, M)."""
    size = moments.gram.shape[1] - (0 if intercept else 1)
    inverse = np.linalg.inv(penalised(moments, update.ridge)[:, :size, :size])
    matrix = update.matrix if len(rows) > 1 else update.part
    for _ in range(ROUNDS):
        cross = np.zeros_like(moments.cross)
        for part in rows:
            target = window.target(part.predicted(matrix, slope), part.wanted)
            cross += part.cross((target - part.found) * back)
        matrix = np.zeros_like(matrix)
        matrix[:, :size] = inverse @ cross[:, :size]
    return matrix
