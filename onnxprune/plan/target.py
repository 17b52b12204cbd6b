"""What a plan should reach, and what it may touch. Law: contradictions and impossible values are refused at once."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from onnxprune.errors import PlanError


@dataclass(frozen=True)
class Target:
    """What to reach; one of these. Without any, only `Limits.layer_ratios` prune.

    Attributes:
        ratio: Share of channels to remove, in (0, 1).
        macs: Share of multiply-accumulates to keep, in (0, 1).
        params: Share of parameters to keep, in (0, 1).
        speedup: Time of the dense model over that of the pruned one, above 1; met by `onnxprune.fit`.
        latency_ms: Milliseconds of one inference of the pruned model; met by `onnxprune.fit`.
        threshold: Units go whose filters score less than this share of their layer's highest score, in (0, 1); with the
            the allocation 'global', of the model's highest.
    """

    ratio: float | None = None
    macs: float | None = None
    params: float | None = None
    speedup: float | None = None
    latency_ms: float | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        given = {k: v for k, v in asdict(self).items() if v is not None}
        options = [f"--{name.replace('_', '-')}" for name in given]
        if len(given) > 1:
            raise PlanError(f"{' and '.join(options)} contradict each other", remedy="give one target")
        for name, value in given.items():
            if name in ("ratio", "macs", "params", "threshold") and not 0 < value < 1:
                raise PlanError(
                    f"--{name} {value} is outside (0, 1)",
                    remedy=f"e.g. --{name} {0.01 if name == 'threshold' else 0.5}",
                )
        if self.speedup is not None and not 1 < self.speedup < math.inf:
            raise PlanError(f"--speedup {self.speedup} is not above 1", remedy="e.g. --speedup 2")
        if self.latency_ms is not None and not 0 < self.latency_ms < math.inf:
            raise PlanError(f"--latency-ms {self.latency_ms} is not a time", remedy="e.g. --latency-ms 5")

    @property
    def timed(self) -> bool:
        """Whether it is a time, which only measuring can meet."""
        return self.speedup is not None or self.latency_ms is not None


@dataclass(frozen=True)
class Limits:
    """What the plan may touch.

    Attributes:
        align: Kept widths are multiples of this.
        max_ratio: Largest share of any group that may go, in (0, 1]; None: what the allocation says, which
            is all but one channel (global: 0.9).
        skip: Globs over tensor and node names, or sources (`tensor:axis`); layers with a match stay whole.
        layer_ratios: (glob, ratio): layers with a match lose this share, whatever the target. Later ones win.
        rows: What goes of convolution groups and attention heads: 'equal' numbers from every one, 'whole' ones, or
            'auto': equal numbers, but whole convolution groups where widths are aligned, and whole ones where equal
            numbers cannot come near the target.
        finer: Whether layers of few steps may stop at parts of one, where a budget of errors says what that is worth.
    """

    align: int = 1
    max_ratio: float | None = None
    skip: tuple[str, ...] = ()
    layer_ratios: tuple[tuple[str, float], ...] = ()
    rows: str = "auto"
    finer: bool = False

    def __post_init__(self) -> None:
        if self.rows not in ("auto", "equal", "whole"):
            raise PlanError(f"unknown choice of rows '{self.rows}'", remedy="use 'auto', 'equal' or 'whole'")
        if self.align < 1:
            raise PlanError(f"--align {self.align} is not a positive number", remedy="e.g. --align 8, or auto")
        if self.max_ratio is not None and not 0 < self.max_ratio <= 1:
            raise PlanError(f"--max-ratio {self.max_ratio} is outside (0, 1]", remedy="e.g. --max-ratio 0.7")
        for glob, ratio in self.layer_ratios:
            if not 0 <= ratio < 1:
                raise PlanError(f"--layer-ratio {glob}={ratio} is outside [0, 1)", remedy=f"e.g. {glob}=0.3")
