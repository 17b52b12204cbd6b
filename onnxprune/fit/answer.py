"""What a fit found. Law: everything that was measured on the way is told."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from onnxprune.bench import Comparison
from onnxprune.plan import Plan

NEAR = 0.03  # a speedup within this share of what was asked is what was asked


@dataclass(frozen=True)
class Trial:
    """One measurement of a plan.

    Attributes:
        plan: Number of the plan; one that comes near enough is measured twice.
        predicted: Speedup that the table expected.
        speedup: Speedup that was measured.
        ci95: Its interval.
        kept: Geometric mean over all layers of the share of importance that stays.
    """

    plan: int
    predicted: float
    speedup: float
    ci95: tuple[float, float]
    kept: float


@dataclass(frozen=True, eq=False)
class Fitted:
    """The answer of a fit.

    Attributes:
        plan: What to remove.
        wanted: The speedup that was asked for; for a time, what it comes to on the dense model's time.
        comparison: The measurement of the plan.
        reached: Whether it is at least as fast as asked, within `NEAR`.
        trials: All measurements, in order.
        least: Whether every plan that was taken for the fastest there is was measured, and was too slow.
    """

    plan: Plan
    wanted: float
    comparison: Comparison
    reached: bool
    trials: tuple[Trial, ...]
    least: bool = False

    @property
    def plans(self) -> int:
        """How many plans were measured."""
        return len({trial.plan for trial in self.trials})

    def to_dict(self) -> dict[str, Any]:
        """How the target was met, as JSON types."""
        trials = [asdict(t) for t in self.trials]
        return {"wanted": self.wanted, "reached": self.reached, "out_of_reach": self.least, "trials": trials}
