"""How long to measure, and how often. Law: every number that decides when a measurement may stop stands here.

`FULL` is the protocol for figures that are published; `QUICK` finds out within seconds, in the caller's own process.
"""

from __future__ import annotations

from dataclasses import dataclass

SLOW_WARM_RUNS = 3  # enough for a model so slow that the rule would take minutes


@dataclass(frozen=True)
class Protocol:
    """The numbers of a measurement.

    Attributes:
        processes: Fresh processes, each with sessions of its own; 0 measures in the caller's process.
        warm_runs: Each model runs at least this often before anything is recorded,
        warm_s: and at least this long, s.
        sample_s: A sample averages as many runs as make the fastest model last this long, s.
        min_rounds: Rounds of one sample of each model, in one process, at least,
        max_rounds: and at most.
        budget_s: Rounds go on for this long, s.
        slow_rounds: A slow model stops after so many rounds
        slow_factor: once it has used so many budgets; and its warm-up after so many times `warm_s`.
        loads: Session creations to time, in a process of each model's own, whose peak memory is read as well; with 0,
            or in the caller's process, neither is measured.
    """

    processes: int
    warm_runs: int
    warm_s: float
    sample_s: float
    min_rounds: int
    max_rounds: int
    budget_s: float
    slow_rounds: int = 10
    slow_factor: float = 8.0
    loads: int = 0


FULL = Protocol(5, warm_runs=20, warm_s=1.0, sample_s=0.020, min_rounds=40, max_rounds=400, budget_s=4.0, loads=5)
QUICK = Protocol(0, warm_runs=5, warm_s=0.3, sample_s=0.010, min_rounds=30, max_rounds=400, budget_s=4.0)
