"""How groups share a cut. Law: the further a search goes, the more every group loses, and never less than before.

A search over how much to remove goes from level 0, nothing, to level 1, all that may go. Uniformly, a group's ratio is
the level. An allocation gives each group its own curve: flat where the group is sensitive or holds nothing redundant.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.trace import Dependencies

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Allocation:
    """A curve for each group; between levels it is a straight line.

    Attributes:
        name: How it was found, as `--allocate` names it.
        levels: Rising from 0 to 1. Shape (levels,).
        ratios: Share of the channels of each group that goes; rows never fall. Shape (groups, levels).
    """

    name: str
    levels: Floats
    ratios: Floats

    def __post_init__(self) -> None:
        falls = (np.diff(self.ratios, axis=1) < 0).any() or (np.diff(self.levels) <= 0).any()
        if falls or self.levels[0] != 0 or self.levels[-1] != 1 or ((self.ratios < 0) | (self.ratios > 1)).any():
            raise ValueError("an allocation's levels rise from 0 to 1, and its ratios lie there and never fall")

    def ratio(self, group: int, level: float) -> float:
        """What group number `group` loses at a level."""
        return float(np.interp(level, self.levels, self.ratios[group]))


def uniform(dependencies: Dependencies) -> Allocation:
    """Every group loses the same share (Li et al. 2017, section 3.2: one ratio for layers of one stage)."""
    return Allocation("uniform", np.array([0.0, 1.0]), np.tile([0.0, 1.0], (len(dependencies.groups), 1)))
