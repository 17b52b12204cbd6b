"""From curves to a way to share a cut. Law: what saves most work for what it costs goes first.

Cut alone, a group trades divergence for multiply-accumulates. If the divergences of groups added up, the best way to
save a given number of them would have every group lose up to where a multiply-accumulate costs the same (equal slopes:
the Lagrange condition). So along each curve's lower convex hull, the stretches of all groups are put in the order of
their slopes, and the level of a search says how many of them are done. Beyond the grid nothing was measured: the last
stretch takes all groups to the end alike, save those whose outputs are no numbers there.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from onnxprune.plan import Allocation
from onnxprune.sensitivity.curves import Curve, Curves

Floats = NDArray[np.float64]
NAME = "sensitivity"


def by_sensitivity(curves: Curves) -> Allocation:
    """The allocation of curves; rows are in the order of the model's groups."""
    hulls = [hull(*corners(curves, group)) for group in curves.groups]
    stretches = sorted(
        (cost, g, ratio) for g, (ratios, costs) in enumerate(hulls) for ratio, cost in zip(ratios, costs, strict=True)
    )
    ratios = np.zeros((len(hulls), len(stretches) + 2))
    for at, (_, g, ratio) in enumerate(stretches):
        ratios[g, at + 1 :] = ratio
    ratios[:, -1] = [1.0 if whole(group) else row for group, row in zip(curves.groups, ratios[:, -2], strict=True)]
    return Allocation(NAME, np.linspace(0.0, 1.0, ratios.shape[1]), ratios)


def whole(curve: Curve) -> bool:
    """Whether all of a curve is made of numbers."""
    return all(math.isfinite(point.divergence) for point in curve.points)


def corners(curves: Curves, group: Curve) -> tuple[Floats, Floats, Floats]:
    """The share of channels, work saved and loss at the points of a curve up to where it is no number, from 0 on."""
    ends = [n for n, point in enumerate(group.points) if not math.isfinite(point.divergence)]
    found = group.points[: ends[0]] if ends else group.points
    share = np.array([0.0, *(p.removed / group.channels for p in found)])
    saved = np.array([0.0, *(p.saved for p in found)])
    loss = np.array([0.0, *(curves.loss(p) for p in found)])
    return share, np.maximum.accumulate(saved), np.maximum.accumulate(loss)


def hull(share: Floats, saved: Floats, loss: Floats) -> tuple[list[float], list[float]]:
    """The lower convex hull of loss over saved work: the share at the end of each stretch, and its slope, rising.

    A group that saves no multiply-accumulates (a table that is only looked up in) has one stretch, which goes last.
    """
    ratios: list[float] = []
    slopes: list[float] = []
    at = 0
    while at < len(share) - 1:
        rest = np.arange(at + 1, len(share))
        rise, run = loss[rest] - loss[at], saved[rest] - saved[at]
        slope = np.divide(rise, run, out=np.full(rest.size, np.inf), where=run > 0)
        best = int(rest[np.flatnonzero(slope == slope.min())[-1]])
        ratios.append(float(share[best]))
        slopes.append(float(slope.min()))
        at = best
    return list(np.maximum.accumulate(ratios)) if ratios else [], slopes
