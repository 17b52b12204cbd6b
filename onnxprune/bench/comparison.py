"""Dense against pruned. Law: a speedup is claimed only where identical models show no such gap.

`compare` is a pure function of raw times. Ratios are paired within a round; their median within a process is what the
process says, and the interval is that of `statistics.interval`, over processes where there were several.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np

from onnxprune.bench.measure import Samples
from onnxprune.bench.statistics import Floats, Interval, centre, drift, drifts, interval

MARGIN = 0.01  # a median within 1% of 1 is no difference, whatever its interval
PERCENTILES = {"ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99}


@dataclass(frozen=True)
class Throughput:
    """Samples per second at one batch size.

    Attributes:
        batch: Samples in one inference.
        before_per_s: Of the dense model.
        before_ci95: Its 95% interval.
        after_per_s: Of the pruned model.
        after_ci95: Its 95% interval.
        speedup: Median of the paired ratios at this batch size.
        ci95: Its 95% interval.
    """

    batch: int
    before_per_s: float
    before_ci95: Interval
    after_per_s: float
    after_ci95: Interval
    speedup: float
    ci95: Interval


@dataclass(frozen=True)
class Comparison:
    """How much faster `after` is than `before`.

    Attributes:
        before_ms: Median time of one inference of the dense model, ms.
        after_ms: Median time of the pruned model, ms.
        before_p90_ms: 90th percentile of the dense model, ms.
        after_p90_ms: 90th percentile of the pruned model, ms.
        speedup: Median of before / after over the rounds, its geometric mean over processes; above 1 is faster.
        ci95: Bootstrap 95% interval of `speedup`.
        control: The same ratio of the dense model to itself in a second session; 1 on a quiet machine.
        control_ci95: Its interval.
        provider: Execution provider.
        threads: Threads inside one operator.
        batch: Size of the first axis of the first input.
        rounds: Number of paired samples, of all processes.
        inner: Inferences averaged in one sample, at least.
        environment: Software and processor, see `runtime.environment`.
        samples: Raw times, ms per inference: runner's name -> one per round, process after process.
        before_p99_ms: 99th percentile of the dense model, ms.
        after_p99_ms: 99th percentile of the pruned model, ms.
        processes: Fresh processes that were timed; 0 when it was the caller's own.
        process_rounds: Rounds of each process: where to cut `samples`.
        ratios: What each process says: its median of before / after.
        drift: Rank correlation of round and ratio in each process; beyond 0.5 either way it drifted.
        repeated: The same of processes that drifted and were replaced by another.
        cores: The cores the processes were pinned to; empty where they were not.
        before_load_ms: Median time to open the dense model, ms.
        after_load_ms: Median time to open the pruned model, ms.
        before_peak_bytes: What opening and running the dense model added to the process's peak resident memory (of
            the host).
        after_peak_bytes: The same of the pruned model.
        throughput: Samples per second over batch sizes.
        fp16: Whether both models were converted to float16.
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
    before_p99_ms: float | None = None
    after_p99_ms: float | None = None
    processes: int = 0
    process_rounds: tuple[int, ...] = ()
    ratios: tuple[float, ...] = ()
    drift: tuple[float, ...] = ()
    repeated: tuple[float, ...] = ()
    cores: tuple[int, ...] = ()
    before_load_ms: float | None = None
    after_load_ms: float | None = None
    before_peak_bytes: int | None = None
    after_peak_bytes: int | None = None
    throughput: tuple[Throughput, ...] = ()
    fp16: bool = False

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

    @property
    def drifting(self) -> int:
        """Processes whose ratio rose or fell while they were timed."""
        return sum(map(drifts, self.drift))

    def of_process(self, name: str) -> list[tuple[float, ...]]:
        """A runner's raw times, process by process."""
        ends = list(accumulate(self.process_rounds)) or [self.rounds]
        return [self.samples[name][start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON types, raw samples included."""
        derived = {k: getattr(self, k) for k in ("margin", "significant", "control_ok", "verdict", "drifting")}
        return {key: as_json(value) for key, value in (asdict(self) | derived).items()}


def as_json(value: Any) -> Any:
    """The same with lists for tuples, at any depth."""
    if isinstance(value, Mapping):
        return {str(key): as_json(inner) for key, inner in value.items()}
    return [as_json(inner) for inner in value] if isinstance(value, list | tuple) else value


def compare(
    samples: Samples | Sequence[Samples],
    *,
    provider: str = "",
    threads: int = 1,
    batch: int = 1,
    environment: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Comparison:
    """Statistics of raw times: a pure function.

    Args:
        samples: Times of 'before', 'control' and 'after'; of each process, where there were several.
        provider: Recorded as given, as are `threads`, `batch` and `environment`.
        threads: Threads inside one operator.
        batch: Inputs per inference.
        environment: Where it was measured.
        seed: Of the bootstrap.
    """
    runs = [samples] if isinstance(samples, Samples) else list(samples)
    ratios, controls = paired(runs, "after"), paired(runs, "control")
    return Comparison(
        **percentiles(runs, "before"),
        **percentiles(runs, "after"),
        speedup=centre(ratios),
        ci95=interval(ratios, seed=seed),
        control=centre(controls),
        control_ci95=interval(controls, seed=seed),
        provider=provider,
        threads=threads,
        batch=batch,
        rounds=sum(run.rounds for run in runs),
        inner=min(run.inner for run in runs),
        environment=dict(environment or {}),
        samples={name: sum((tuple(run.times[name]) for run in runs), ()) for name in runs[0].times},
        process_rounds=tuple(run.rounds for run in runs),
        ratios=tuple(float(np.median(ratio)) for ratio in ratios),
        drift=tuple(drift(ratio) for ratio in ratios),
    )


def paired(runs: Sequence[Samples], name: str) -> list[Floats]:
    """The ratio of the dense model's time to another's in every round, process by process."""
    return [np.asarray(run.times["before"]) / np.asarray(run.times[name]) for run in runs]


def percentiles(runs: Sequence[Samples], name: str) -> dict[str, Any]:
    """A runner's PERCENTILES by field, of its single inferences; of its samples where single ones were not kept."""
    values = np.concatenate([run.singles.get(name, run.times[name]) for run in runs])
    found = np.quantile(values.astype(np.float64), list(PERCENTILES.values()))
    return {f"{name}_{key}": float(q) for key, q in zip(PERCENTILES, found, strict=True)}


def throughput(samples: Sequence[Samples], batch: int, *, seed: int = 0) -> Throughput:
    """Samples per second: the batch over the time of an inference, as `compare` estimates it.

    Args:
        samples: Times of each process.
        batch: Samples in one inference.
        seed: Of the bootstrap.
    """
    ratios, rates, bounds = paired(samples, "after"), [], []
    for name in ("before", "after"):
        per_s = [batch * 1e3 / np.asarray(run.times[name]) for run in samples]
        rates.append(centre(per_s))
        bounds.append(interval(per_s, seed=seed))
    return Throughput(batch, rates[0], bounds[0], rates[1], bounds[1], centre(ratios), interval(ratios, seed=seed))
