"""Raw times. Law: whatever happens to the machine during a round happens to every model alike.

- warm-up by rule: each model runs a number of times and a length of time before anything is recorded;
- rounds: each takes one sample of every model, in a freshly shuffled (seeded) order. A sample is the mean of `inner`
  runs, as many as make the fastest last `Protocol.sample_s`;
- a slow model stops early, see `Protocol`.
"""

from __future__ import annotations

import gc
import math
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from onnxprune.bench.protocol import QUICK, SLOW_WARM_RUNS, Protocol

Clock = Callable[[], float]
Run = Callable[[], object]


@dataclass(frozen=True)
class Samples:
    """Raw times of one process.

    Attributes:
        times: Runner's name -> milliseconds per inference, one per round; entry i of each belongs to round i.
        inner: Inferences averaged in one sample.
        singles: Runner's name -> milliseconds of every single inference; empty where they were not kept.
    """

    times: Mapping[str, tuple[float, ...]]
    inner: int
    singles: Mapping[str, Sequence[float]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def rounds(self) -> int:
        """Number of rounds."""
        return len(next(iter(self.times.values())))


def measure(
    runners: Mapping[str, Run],
    *,
    protocol: Protocol = QUICK,
    seed: int = 0,
    budget_s: float | None = None,
    progress: Callable[[float], None] | None = None,
    clock: Clock = time.perf_counter,
) -> Samples:
    """Warm up, then sample every runner once a round in shuffled order; the module's docstring has the rules.

    Args:
        runners: Name -> one inference.
        protocol: How long and how often.
        seed: Of the order.
        budget_s: Seconds to spend on rounds, in place of the protocol's.
        progress: Called with the share done, 0 to 1, between rounds.
        clock: Seconds; replaced in tests.
    """
    protocol = protocol if budget_s is None else replace(protocol, budget_s=budget_s)
    rng, names = np.random.default_rng(seed), list(runners)
    times: dict[str, list[float]] = {name: [] for name in names}
    singles = {name: array("f") for name in names}
    with steady():
        fastest = min(warm_up(run, protocol, clock) for run in runners.values())
        inner = max(1, math.ceil(protocol.sample_s / max(fastest, 1e-7)))
        start = clock()
        while (share := done(len(times[names[0]]), clock() - start, protocol)) < 1:
            if progress:
                progress(share)
            for index in rng.permutation(len(names)):
                ticks = np.asarray(sample(runners[names[index]], inner, clock)) * 1e3
                times[names[index]].append(float(ticks[-1] - ticks[0]) / inner)
                singles[names[index]].extend(np.diff(ticks))
    if progress:
        progress(1.0)
    return Samples({name: tuple(values) for name, values in times.items()}, inner, singles)


def done(rounds: int, elapsed_s: float, protocol: Protocol) -> float:
    """Share of the measurement that is done: 1 once there are enough rounds and the budget is spent."""
    budget = protocol.budget_s
    slow = rounds >= protocol.slow_rounds and elapsed_s >= protocol.slow_factor * budget > 0
    if rounds >= protocol.max_rounds or slow:
        return 1.0
    return min(rounds / protocol.min_rounds, elapsed_s / budget if budget > 0 else 1.0, 1.0)


def warm_up(run: Run, protocol: Protocol, clock: Clock) -> float:
    """Run until the protocol's number of runs and seconds have both passed; the fastest run's seconds."""
    start, runs, fastest = clock(), 0, math.inf
    while runs < protocol.warm_runs or clock() - start < protocol.warm_s:
        if runs >= SLOW_WARM_RUNS and clock() - start >= protocol.slow_factor * protocol.warm_s:
            break
        first, last = sample(run, 1, clock)
        fastest = min(fastest, last - first)
        runs += 1
    return fastest


def sample(run: Run, inner: int, clock: Clock) -> list[float]:
    """The clock before and after each of `inner` consecutive runs, s; reading it costs 50 ns, far below any run."""
    ticks = [clock()]
    for _ in range(inner):
        run()
        ticks.append(clock())
    return ticks


@contextmanager
def steady() -> Iterator[None]:
    """Keep Python's garbage collector out of the timed code."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
