"""How groups share a cut. Law: the further a search goes, the more every group loses, and never less than before.

A search over how much to remove goes from level 0, nothing, to level 1, all that may go. Uniformly, a group's ratio is
the level. An allocation gives each group its own curve: flat where the group is sensitive or holds nothing redundant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onnxprune.trace import Dependencies

Floats = NDArray[np.float64]
UNIFORM, GLOBAL = "uniform", "global"  # the names that a threshold has a meaning for


class Sharing(Protocol):
    """How a cut is shared: what every unit of a group loses at a level."""

    @property
    def name(self) -> str:
        """How it was found, as `--allocate` names it."""

    @property
    def ceiling(self) -> float:
        """The largest share of a group that goes, unless `Limits.max_ratio` says another."""

    def share(self, group: int, level: float) -> Floats:
        """How much of each unit of group number `group` goes at a level: for all units one share, or 0 or 1 of each."""


@dataclass(frozen=True, eq=False)
class Allocation:
    """A curve for each group; between levels it is a straight line.

    Attributes:
        name: How it was found, as `--allocate` names it.
        levels: Rising from 0 to 1. Shape (levels,).
        ratios: Share of the channels of each group that goes; rows never fall. Shape (groups, levels).
        ceiling: The largest share of a group that goes, unless `Limits.max_ratio` says another.
    """

    name: str
    levels: Floats
    ratios: Floats
    ceiling: float = 1.0

    def __post_init__(self) -> None:
        falls = (np.diff(self.ratios, axis=1) < 0).any() or (np.diff(self.levels) <= 0).any()
        if falls or self.levels[0] != 0 or self.levels[-1] != 1 or ((self.ratios < 0) | (self.ratios > 1)).any():
            raise ValueError("an allocation's levels rise from 0 to 1, and its ratios lie there and never fall")

    def ratio(self, group: int, level: float) -> float:
        """What group number `group` loses at a level."""
        return float(np.interp(level, self.levels, self.ratios[group]))

    def share(self, group: int, level: float) -> Floats:
        """The same, for any unit. Shape ()."""
        return np.asarray(self.ratio(group, level))

    def beyond(self, lost: Floats) -> Allocation:
        """What is left to do along the curves when shares of the groups, (groups,), are gone: the ratios of the rest.

        At every level a group then has lost in all what it would have lost at once.
        """
        bends = [np.interp(at, row, self.levels) for at, row in zip(lost, self.ratios, strict=True)]
        levels = np.unique([*self.levels, *bends])
        whole = np.stack([np.interp(levels, self.levels, row) for row in self.ratios])
        gone = np.asarray(lost)[:, None]
        ratios = np.clip((whole - gone) / np.where(gone < 1, 1 - gone, 1.0), 0.0, 1.0)
        return Allocation(self.name, levels, np.maximum.accumulate(ratios, axis=1), self.ceiling)


def uniform(dependencies: Dependencies) -> Allocation:
    """Every group loses the same share (Li et al. 2017, section 3.2: one ratio for layers of one stage)."""
    return Allocation(UNIFORM, np.array([0.0, 1.0]), np.tile([0.0, 1.0], (len(dependencies.groups), 1)))
