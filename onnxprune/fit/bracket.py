"""Where to aim when what is planned is not what is measured. Law: the aim stays between one too fast and one too slow.

A plan made for a time takes another when it is run. With a table that no longer changes, the time that is planned for
decides the time that is measured, so the aim is the root of a function that falls, up to noise: the aim moves by the
share that was missed until there is one miss on either side, then false position closes in between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

CLOSED = 0.003  # relative width at which no other plan is to be expected inside
INSIDE = 0.2  # share of the bracket that a step keeps away from its ends: times rise in steps, not in straight lines


@dataclass(frozen=True)
class End:
    """One aim and what came of it; both logarithms, so that ratios are differences.

    Attributes:
        aim: Share of the time asked for that was planned with.
        excess: The measured speedup over the one asked for: above 0, it was faster.
    """

    aim: float
    excess: float


@dataclass(frozen=True)
class Bracket:
    """The aims known so far.

    Attributes:
        fast: The largest whose plan was too fast.
        slow: The smallest whose plan was too slow.
    """

    fast: End | None = None
    slow: End | None = None

    @property
    def closed(self) -> bool:
        """Whether nothing is left between the two."""
        return self.fast is not None and self.slow is not None and self.slow.aim - self.fast.aim < CLOSED

    @property
    def aim(self) -> float:
        """The share of the time asked for to plan with next."""
        if self.fast is None or self.slow is None:
            end = self.fast or self.slow
            return 1.0 if end is None else math.exp(end.aim + end.excess)
        share = self.fast.excess / (self.fast.excess - self.slow.excess)
        share = min(max(share, INSIDE), 1 - INSIDE)
        return math.exp(self.fast.aim + share * (self.slow.aim - self.fast.aim))

    def narrowed(self, aim: float, excess: float) -> Bracket:
        """The bracket after one more measurement.

        Args:
            aim: Share of the time asked for that was planned with.
            excess: Measured speedup over the one asked for, less 1.
        """
        end = End(math.log(aim), math.log1p(excess))
        return Bracket(end, self.slow) if excess > 0 else Bracket(self.fast, end)
