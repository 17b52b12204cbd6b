"""Let all units of a model compete. Law: the next unit to go is the one that scores least, whatever its group.

Scores of different groups compare when divided by their group's mean, or as they are where a criterion says so
(`Scores.comparable`) or they are errors (`Scores.additive`): a threshold over all of them, as in network slimming (Liu
et al. 2017, arXiv 1708.06519, section 3). The level of a search is the share of all units that is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.importance import Scores
from onnxprune.plan.allocation import GLOBAL
from onnxprune.plan.rows import equal, mean_of_bundles, tabulate
from onnxprune.trace import Dependencies

Floats = NDArray[np.float64]
CEILING = 0.9  # a layer that loses to all others keeps this little: one that is gone stops the network


@dataclass(frozen=True, eq=False)
class Ranking:
    """The order in which units go.

    Attributes:
        before: Per group and unit, the share of all units that goes before it; 1 where it stays. Shapes (units,).
        name: As `--allocate` has it.
        ceiling: The largest share of a group that goes, unless `Limits.max_ratio` says another.
    """

    before: Sequence[Floats]
    name: str = GLOBAL
    ceiling: float = CEILING

    def share(self, group: int, level: float) -> Floats:
        """1 for every unit of a group that is gone at a level, 0 for the others. Shape (units,)."""
        return (self.before[group] < level).astype(np.float64)


def across(dependencies: Dependencies, scores: Scores) -> Ranking:
    """All units of a model in one order; units that go together count as their mean, equals go group by group alike."""
    if not dependencies.groups:
        return Ranking([])
    ways = [equal(table) for table in tabulate(dependencies, dependencies.groups)]
    own = [comparable(scores, scores.values[g.units]) for g in dependencies.groups]
    means = [mean_of_bundles(way, values) for way, values in zip(ways, own, strict=True)]
    places = [np.argsort(np.argsort(m, kind="stable")) / max(1, m.size) for m in means]
    sizes = [np.bincount(way.bundle[way.bundle >= 0], minlength=way.count) for way in ways]
    order = np.lexsort((np.concatenate(places), np.concatenate(means)))
    size = np.concatenate(sizes)[order]
    total = sum(group.units.size for group in dependencies.groups)
    before = np.empty(size.size)
    before[order] = (np.cumsum(size) - size) / max(1, total)
    parts = np.split(before, np.cumsum([way.count for way in ways])[:-1])
    return Ranking([np.append(part, 1.0)[way.bundle] for part, way in zip(parts, ways, strict=True)])


def comparable(scores: Scores, values: Floats) -> Floats:
    """Scores of one group so that they compare with others."""
    return values if scores.comparable or scores.additive else normalised(values)


def normalised(values: Floats) -> Floats:
    """Scores over their mean, so that groups compare; all ones when every score is zero."""
    mean = values.mean() if values.size else 0.0
    return np.asarray(values / mean if mean > 0 else np.ones_like(values))
