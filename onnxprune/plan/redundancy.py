"""Where to prune by redundancy. Law: every step is taken from the layer that is then the most redundant.

A step takes a few channels of one group, those that a criterion ranks lowest; the group's graph is built again without
them, and the next step goes to the group whose graph is now the most redundant (`importance.redundancy`). What goes of
a group first is fixed by its ranking, so each group's scores are found once, and the steps merged.

Where the filters that go are the ones unlike all others, the rest only gets more redundant, and the next step would be
from the same group until nothing is left of it. So a group that is down to as many filters as it had different ones (by
the same weighted number) waits until all groups are; from then on, those that are least below it go first.
"""

from __future__ import annotations

import heapq
from dataclasses import replace

import numpy as np

from onnxprune.importance import Scores, score
from onnxprune.importance.redundancy import distances_of, gamma, score_of
from onnxprune.plan.allocation import Allocation, Floats, uniform
from onnxprune.trace import Dependencies

STEPS = 32  # of a group, at most


def redundancy(dependencies: Dependencies, scores: Scores | None = None) -> Allocation:
    """The most redundant group loses a step of channels, again and again, until none has more than one.

    With `l1` inside the groups this is the paper's method (SRR-GR); with `random`, its random pruning in the most
    redundant layer.

    Wang, Li and Wang 2021, CVPR, arXiv 2104.03438, algorithm 1.

    Args:
        dependencies: A traced model.
        scores: What ranks inside a group; by default `l1`.

    Raises:
        ModelError: A weight holds NaN or infinity.
    """
    if not dependencies.groups:
        return replace(uniform(dependencies), name="redundancy")
    ranks = scores or score(dependencies, "l1")
    apart = [distances_of(dependencies, group) for group in dependencies.groups]
    near = gamma(apart)
    curves = []
    for group, distances in zip(dependencies.groups, apart, strict=True):
        order = np.argsort(ranks.values[group.units], kind="stable")
        curves.append(curve(distances[np.ix_(order, order)], near))
    return Allocation("redundancy", *merged([g.units.size for g in dependencies.groups], curves))


def curve(distances: Floats, near: float) -> list[tuple[int, float]]:
    """What a group has lost, and when its next step is due: the lower, the sooner.

    Up to 1 that is the score of its graph; above 1, the group is below the number of its different filters.

    Args:
        distances: Between the group's units, what goes first in front. Shape (units, units).
        near: At what distance they are joined.
    """
    size = len(distances)
    step = max(1, -(-size // STEPS))
    joined = distances <= near
    different = score_of(joined) * size
    found = []
    for gone in range(0, max(1, size - 1), step):
        left = size - gone
        enough = left > different + 1e-9  # rounding of the product
        found.append((gone, score_of(joined[gone:, gone:]) if enough else 2 - left / different))
    return found


def merged(sizes: list[int], curves: list[list[tuple[int, float]]]) -> tuple[Floats, Floats]:
    """Levels and ratios of an allocation: the steps of all groups in the order in which they are taken.

    A level is the share of all channels that is gone; at level 1 that is all of them, and the planner keeps the last.
    """
    gone, rows = np.zeros(len(sizes)), [np.zeros(len(sizes))]
    waiting = [(steps[0][1], g, 0) for g, steps in enumerate(curves)]
    heapq.heapify(waiting)
    while waiting:
        _, g, at = heapq.heappop(waiting)
        if at + 1 < len(curves[g]):
            gone[g] = curves[g][at + 1][0]
            rows.append(gone.copy())
            heapq.heappush(waiting, (curves[g][at + 1][1], g, at + 1))
    table = np.stack([*rows, np.asarray(sizes, dtype=np.float64)])
    return table.sum(axis=1) / sum(sizes), (table / np.asarray(sizes)).T
