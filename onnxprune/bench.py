"""Dense against pruned, timed side by side. Law: a speedup is claimed only where identical models show no such gap.

Measuring and comparing are apart: `measure` only collects raw times, `compare` is a pure function of them. The rules:
- three runners: the dense model, the same dense model in a second session (the A/A control), the pruned model; with
  the same explicit number of threads, thread spinning off;
- warm-up by rule: each runs at least 5 times and at least 0.3 s before anything is recorded;
- rounds: each round takes one sample of every runner, in a freshly shuffled (seeded) order, so that drift of the clock
  or of the machine's load hits all alike. One sample is the mean of `inner` runs, as many as make the fastest last
  10 ms. At least 30 rounds, and for as long as the time budget; a slow model stops after 10 rounds once it has used
  8 budgets;
- statistics on ratios paired within a round: their median, and a bootstrap 95% interval of that median.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune import runtime
from onnxprune.errors import DataError
from onnxprune.runtime import Feeds, Session, Source

Floats = NDArray[np.float64]
Interval = tuple[float, float]

WARM_RUNS, WARM_S = 5, 0.3
SAMPLE_S = 0.010
MIN_ROUNDS, MAX_ROUNDS = 30, 400
SLOW_ROUNDS, SLOW_BUDGETS = 10, 8
RESAMPLES = 10_000
MARGIN = 0.01  # a median within 1% of 1 is no difference, whatever its interval


@dataclass(frozen=True)
class Samples:
    """Raw times.

    Attributes:
        times: Runner's name -> milliseconds per inference, one per round; entry i of each belongs to round i.
        inner: Inferences averaged in one sample.
    """

    times: Mapping[str, tuple[float, ...]]
    inner: int

    @property
    def rounds(self) -> int:
        """Number of rounds."""
        return len(next(iter(self.times.values())))


@dataclass(frozen=True)
class Comparison:
    """How much faster `after` is than `before`.

    Attributes:
        before_ms: Median time of one inference of the dense model, ms.
        after_ms: Median time of the pruned model, ms.
        before_p90_ms: 90th percentile of the dense model, ms.
        after_p90_ms: 90th percentile of the pruned model, ms.
        speedup: Median of before / after over the rounds; above 1 is faster.
        ci95: Bootstrap 95% interval of `speedup`.
        control: The same ratio of the dense model to itself in a second session; 1 on a quiet machine.
        control_ci95: Its interval.
        provider: Execution provider.
        threads: Threads inside one operator.
        batch: Size of the first axis of the first input.
        rounds: Number of paired samples.
        inner: Inferences averaged in one sample.
        environment: Software and processor, see `runtime.environment`.
        samples: Raw times, ms per inference: runner's name -> one per round.
    """

    before_ms: float
    after_ms: float
    before_p90_ms: float
    after_p90_ms: float
    speedup: float
    ci95: Interval
    control: float
    control_ci95: Interval
    provider: str
    threads: int
    batch: int
    rounds: int
    inner: int
    environment: Mapping[str, Any] = field(default_factory=dict)
    samples: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def margin(self) -> float:
        """Least relative difference that counts: 1%, or what two identical models differed by, if that is more."""
        return max(MARGIN, math.expm1(abs(math.log(self.control))))

    @property
    def significant(self) -> bool:
        """Whether the whole interval lies outside 1 plus or minus `margin`."""
        return self.ci95[0] > 1 + self.margin or self.ci95[1] < 1 / (1 + self.margin)

    @property
    def control_ok(self) -> bool:
        """Whether the A/A control's interval reaches within 1% of 1; if not, the machine was too noisy to trust."""
        return self.control_ci95[0] <= 1 + MARGIN and self.control_ci95[1] >= 1 / (1 + MARGIN)

    @property
    def verdict(self) -> str:
        """'faster', 'slower' or 'no significant difference'."""
        if not self.significant:
            return "no significant difference"
        return "faster" if self.speedup > 1 else "slower"

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON types, raw samples included."""
        derived = {k: getattr(self, k) for k in ("margin", "significant", "control_ok", "verdict")}
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return plain | derived | {"samples": {name: list(times) for name, times in self.samples.items()}}


def bench(
    before: Source,
    after: Source,
    *,
    feeds: Feeds | None = None,
    provider: str = "cpu",
    batch: int = 1,
    threads: int = 1,
    seed: int = 0,
    budget_s: float = 4.0,
    progress: Callable[[float], None] | None = None,
) -> Comparison:
    """Time two models against each other in this process, on the same inputs.

    Args:
        before: The dense model.
        after: The pruned model.
        feeds: Input name -> array; seeded random arrays of `batch` if not given.
        provider: Execution provider, as for `runtime.session`.
        batch: Size of an open batch axis, when `feeds` is not given.
        threads: Threads inside one operator.
        seed: Of the inputs, the order of the runners and the bootstrap.
        budget_s: Seconds to spend on samples, after the warm-up.
        progress: Called with the share done, 0 to 1.

    Raises:
        DataError: The models take different inputs, or the batch is fixed at another size.
    """
    pair = {"before": before, "control": before, "after": after}
    sessions = {name: runtime.session(m, provider=provider, threads=threads) for name, m in pair.items()}
    refuse_different(sessions["before"], sessions["after"])
    given = runtime.random_feeds(before, batch=batch, seed=seed) if feeds is None else feeds
    size = batch_size(given)
    if feeds is None and batch not in (1, size):
        remedy = f"bench with a batch of {size}, or export the model with an open batch axis"
        raise DataError(f"the model's batch is fixed at {size}, not {batch}", remedy=remedy)
    runners = {name: runtime.runner(opened, given) for name, opened in sessions.items()}
    samples = measure(runners, seed=seed, budget_s=budget_s, progress=progress)
    used, facts = sessions["before"].get_providers()[0], runtime.environment()
    return compare(samples, provider=used, threads=threads, batch=size, environment=facts, seed=seed)


def refuse_different(before: Session, after: Session) -> None:
    """Raise DataError unless both sessions take inputs of the same names, types and shapes."""
    one, two = runtime.signature(before), runtime.signature(after)
    for name in sorted(one.keys() | two.keys()):
        if one.get(name) != two.get(name):
            sides = [_described(side.get(name)) for side in (one, two)]
            where = f"input '{name}': {sides[0]} before, {sides[1]} after"
            raise DataError(
                "the two models take different inputs", where=where, remedy="compare a model and its pruning"
            )


def _described(kind: tuple[str, tuple[int | str | None, ...]] | None) -> str:
    return "absent" if kind is None else f"{kind[0]} [{', '.join(str(d) for d in kind[1])}]"


def batch_size(feeds: Feeds) -> int:
    """Size of the first axis of the first input that has axes; 1 if none has."""
    return next((a.shape[0] for a in feeds.values() if a.ndim), 1)


def measure(
    runners: Mapping[str, Callable[[], object]],
    *,
    seed: int = 0,
    budget_s: float = 4.0,
    progress: Callable[[float], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Samples:
    """Warm up, then sample every runner once a round in shuffled order; the module's docstring has the rules.

    Args:
        runners: Name -> one inference.
        seed: Of the order.
        budget_s: Seconds to spend on rounds.
        progress: Called with the share done, 0 to 1, between rounds.
        clock: Seconds; replaced in tests.
    """
    rng = np.random.default_rng(seed)
    names = list(runners)
    times: dict[str, list[float]] = {name: [] for name in names}
    with steady():
        fastest = min(warm_up(run, clock) for run in runners.values())
        inner = max(1, math.ceil(SAMPLE_S / max(fastest, 1e-7)))
        start = clock()
        while (share := done(len(times[names[0]]), clock() - start, budget_s)) < 1:
            if progress:
                progress(share)
            for index in rng.permutation(len(names)):
                times[names[index]].append(sample(runners[names[index]], inner, clock) * 1e3)
    if progress:
        progress(1.0)
    return Samples({name: tuple(values) for name, values in times.items()}, inner)


def done(rounds: int, elapsed_s: float, budget_s: float) -> float:
    """Share of the measurement that is done: 1 once there are enough rounds and the budget is spent."""
    if rounds >= MAX_ROUNDS or (rounds >= SLOW_ROUNDS and elapsed_s >= SLOW_BUDGETS * budget_s > 0):
        return 1.0
    return min(rounds / MIN_ROUNDS, elapsed_s / budget_s if budget_s > 0 else 1.0, 1.0)


def warm_up(run: Callable[[], object], clock: Callable[[], float]) -> float:
    """Run until both at least WARM_RUNS runs and WARM_S seconds have passed; the fastest run's seconds."""
    start, runs, fastest = clock(), 0, math.inf
    while runs < WARM_RUNS or clock() - start < WARM_S:
        fastest = min(fastest, sample(run, 1, clock))
        runs += 1
    return fastest


def sample(run: Callable[[], object], inner: int, clock: Callable[[], float]) -> float:
    """Mean seconds of `inner` consecutive runs."""
    start = clock()
    for _ in range(inner):
        run()
    return (clock() - start) / inner


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


def compare(
    samples: Samples,
    *,
    provider: str = "",
    threads: int = 1,
    batch: int = 1,
    environment: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Comparison:
    """Statistics of raw times: a pure function.

    Args:
        samples: Times of 'before', 'control' and 'after'.
        provider: Recorded as given, as are `threads`, `batch` and `environment`.
        threads: Threads inside one operator.
        batch: Inputs per inference.
        environment: Where it was measured.
        seed: Of the bootstrap.
    """
    before, control, after = (np.asarray(samples.times[name]) for name in ("before", "control", "after"))
    return Comparison(
        before_ms=float(np.median(before)),
        after_ms=float(np.median(after)),
        before_p90_ms=float(np.quantile(before, 0.9)),
        after_p90_ms=float(np.quantile(after, 0.9)),
        speedup=float(np.median(before / after)),
        ci95=interval(before / after, seed=seed),
        control=float(np.median(before / control)),
        control_ci95=interval(before / control, seed=seed),
        provider=provider,
        threads=threads,
        batch=batch,
        rounds=samples.rounds,
        inner=samples.inner,
        environment=dict(environment or {}),
        samples=dict(samples.times),
    )


def interval(ratios: Floats, *, seed: int = 0, level: float = 0.95) -> Interval:
    """Percentile bootstrap interval of the median (Efron & Tibshirani 1993, chapter 13).

    Args:
        ratios: One per round.
        seed: Of the resampling.
        level: Coverage.
    """
    rng = np.random.default_rng(seed)
    medians = np.median(ratios[rng.integers(0, ratios.size, (RESAMPLES, ratios.size))], axis=1)
    low, high = np.quantile(medians, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
