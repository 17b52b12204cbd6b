"""Plans by threshold. Law: what goes lies below it, and all of that goes as far as rows and aligned widths allow.

A model that was trained to sparsity (group lasso, Wen et al. 2016, arXiv 1608.03665; scales with a penalty; masks) has
filters near zero beside filters that are not. What is near zero is relative: in front of a BatchNormalization, or
between ReLUs, a layer's weights may have any scale. So the threshold is a share of the highest score of the layer. A
unit of several coupled layers goes if it lies below in every one of them: all of its filters must be near zero.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onnxprune.labels import Ids
from onnxprune.plan.allocation import GLOBAL
from onnxprune.plan.choose import Chooser, Floats, Option
from onnxprune.plan.ranking import Ranking
from onnxprune.plan.rows import mean_of_bundles

LEVEL = 0.5  # between the level at which what lies below goes, and that at which the rest would
HIGH = 1e9  # the score of a unit that stays: no bundle with one of them comes below a threshold


class Below(Chooser):
    """A chooser that never takes more than what lies below its level."""

    def kept(self, g: int) -> NDArray[np.bool_]:
        """The units of group `g` that stay for certain: a row goes only if all of it lies below. Shape (units,)."""
        above = (self.sharing.share(g, LEVEL) == 0) & np.isnan(self.forced[g])
        held: NDArray[np.bool_] = super().kept(g) | above
        return held

    def wanted(self, g: int, option: Option, share: Floats) -> tuple[Floats, Ids]:
        """Bundles of each class that group `g` should keep; it must keep as many."""
        below = np.append(mean_of_bundles(option.way, share) > 1 - 1e-9, False)[option.way.bundle]
        share = np.where(below | ~np.isnan(self.forced[g]), share, 0.0)  # a bundle goes only if all of it lies below
        wanted, least = super().wanted(g, option, share)
        return wanted, np.maximum(least, np.ceil(wanted - 1e-9).astype(np.int64))


def below(chooser: Chooser, threshold: float) -> list[tuple[Ids, str]]:
    """What every group loses, with a note where that is not all of what lies below the threshold."""
    values = relative(chooser)
    marked = replace(chooser.scores, values=np.where(values < threshold, values, HIGH), comparable=True)
    order = Ranking([np.where(values[g.units] < threshold, 0.0, 1.0) for g in chooser.groups], ceiling=1.0)
    found = Below(chooser.dependencies, marked, chooser.limits, order).removal(LEVEL)
    return [
        (positions, "; ".join(filter(None, [note, missed(values[group.units] < threshold, positions)])))
        for group, (positions, note) in zip(chooser.groups, found, strict=True)
    ]


def missed(low: NDArray[np.bool_], removed: Ids) -> str:
    """How many units of a group lie below the threshold and cannot go all the same; nothing if all can."""
    left = int(low.sum()) - int(low[removed].sum())
    return f"{left} of the {int(low.sum())} channels below the threshold stay" if left else ""


def relative(chooser: Chooser) -> Floats:
    """Scores over the highest of the layer, of several layers the largest; globally, over the highest of the model.

    Shape (units,); in [0, 1].
    """
    dependencies, scores = chooser.dependencies, chooser.scores
    found = np.zeros(dependencies.unit_count)
    if chooser.sharing.name == GLOBAL:
        highest = max(float(norm.max()) for norm in chooser.norm)
        for group, norm in zip(chooser.groups, chooser.norm, strict=True):
            found[group.units] = norm / highest if highest > 0 else 0.0
        return found
    for group in chooser.groups:
        own = scores.values[group.units]
        parts = [(group.units, own)] if not scores.filters else []
        parts += [(dependencies.unit[s.ids].ravel(), scores.filters[s]) for s in group.sources if s in scores.filters]
        for units, values in parts:
            share = values / values.max() if values.max() > 0 else np.zeros_like(values)
            mine = (units >= 0) & (units < found.size)
            np.maximum.at(found, units[mine], share[mine])
    return found
