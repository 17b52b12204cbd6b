"""Measure what widths cost. Law: every time is that of the whole model as onnxruntime runs it, kernel by kernel.

A layer timed alone has other neighbours, other layouts and other caches than in its model. So whole models are timed:
the dense one and a set of pruned ones, at even and at random widths, and a table is fitted to the times of their
kernels (`latency.Table`). The profiler slows what it watches, so it gives each kernel's share, of a time measured
without it; and the dense model runs in turn with each of the others, so that only ratios count, and drift of the clock
and the load of the machine cancel out.

On an accelerator the profiler sees when kernels are launched, not how long they run: there the whole model is one
region, and the table is fitted to total times alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxprune import runtime
from onnxprune.align import timed
from onnxprune.labels import Ids
from onnxprune.latency import Regions, Table, Terms, fit_table, regions_of, terms_of, whole_region
from onnxprune.latency.table import Sample
from onnxprune.model import Model
from onnxprune.plan.levels import Level
from onnxprune.progress import Observer, silent
from onnxprune.rewrite import rewrite
from onnxprune.runtime import Feeds, Kernel, Profiled
from onnxprune.trace import Dependencies

Floats = NDArray[np.float64]

EVEN = (0.25, 0.5, 0.75, 1.0)  # models with all groups at this share of their levels
RANDOM = 12  # models with every group at a level of its own
MIN_RUNS, MAX_RUNS, BUDGET_S = 8, 100, 0.5  # of one model
WARM = 2


@dataclass(eq=False)
class Profiler:
    """Profiles pruned models in turn with the dense one.

    Attributes:
        dependencies: A traced model.
        feeds: What it is run on.
        step: Widths are priced in multiples of this, too.
        provider: Execution provider.
        threads: Threads inside one operator.
        regions: The parts that times are counted for; found if not given.
        samples: What was measured so far, the dense model first; times are those of a moment when the dense model
            takes what its sample says.
    """

    dependencies: Dependencies
    feeds: Feeds
    step: int
    provider: str = "cpu"
    threads: int = 1
    regions: Regions | None = None
    samples: list[Sample] = field(default_factory=list)

    def __post_init__(self) -> None:
        model = self.dependencies.model
        self.by_kernel = runtime.provider_name(self.provider) == runtime.CPU
        self.dense = self.runner(model)
        if self.samples and self.regions is not None:
            self.terms: Terms = terms_of(self.dependencies, self.regions, self.step)
            return
        kernels = self.kernels(model) if self.by_kernel else []
        graph = model.proto.graph
        self.regions = regions_of(graph, kernels) if self.by_kernel else whole_region(graph)
        self.terms = terms_of(self.dependencies, self.regions, self.step)
        usual, _ = alternate(self.dense, self.dense)
        self.samples = [Sample(self.terms.dense, self.shared(kernels, usual))]

    @property
    def dense_ms(self) -> float:
        """The dense model's time, ms."""
        return float(self.samples[0].ms.sum())

    def runner(self, model: Model) -> Callable[[], object]:
        """One inference of a model, without the profiler."""
        opened = runtime.session(model, provider=self.provider, threads=self.threads)
        return runtime.runner(opened, self.feeds)

    def kernels(self, model: Model) -> list[Kernel]:
        """The kernels of a model, without those of its first runs."""
        with Profiled(model, self.feeds, provider=self.provider, threads=self.threads) as profiled:
            for _ in range(WARM + MIN_RUNS):
                profiled.run()
            return profiled.kernels(skip=WARM)

    def shared(self, kernels: Sequence[Kernel], total: float) -> Floats:
        """A time of the whole model, shared out among its regions by what the profiler saw. Shape (regions + 1,)."""
        assert self.regions is not None
        times = np.array(self.regions.times(kernels) if self.by_kernel else [1.0, 0.0])
        return np.asarray(times * (total / times.sum()))

    def sample(self, removed: Ids, speedup: float | None = None) -> Sample:
        """Profile a pruned model, and keep what was measured.

        Args:
            removed: Unit numbers.
            speedup: Of the pruned model over the dense one, if that is known.
        """
        model = rewrite(self.dependencies, removed)
        kernels = self.kernels(model) if self.by_kernel else []
        if speedup is None:
            dense, pruned = alternate(self.dense, self.runner(model))
            speedup = dense / pruned
        widths = self.terms.measure(self.dependencies.keep(removed))
        self.samples.append(Sample(widths, self.shared(kernels, self.dense_ms / speedup)))
        return self.samples[-1]

    def table(self, correct: Sample | None = None) -> Table:
        """The table fitted to everything measured; `correct` as for `fit_table`."""
        assert self.regions is not None
        return fit_table(self.regions, self.terms, self.samples, correct)


def alternate(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds that one inference of each takes, run in turn: the median, and for the second by its ratio."""
    for _ in range(WARM):
        first()
        second()
    start = time.perf_counter()
    rounds: list[tuple[float, float]] = []
    while len(rounds) < MIN_RUNS or (len(rounds) < MAX_RUNS and time.perf_counter() - start < BUDGET_S):
        rounds.append((timed(first, time.perf_counter), timed(second, time.perf_counter)))
    times = np.array(rounds) * 1e3
    usual = float(np.median(times[:, 0]))
    return usual, usual * float(np.median(times[:, 1] / times[:, 0]))


def design(levels: Sequence[Sequence[Level]], seed: int = 0) -> list[list[int]]:
    """The models to measure, each as a level for every group: even ones and random ones."""
    rng = np.random.default_rng(seed)
    even = [[round(share * (len(options) - 1)) for options in levels] for share in EVEN]
    return even + [[int(rng.integers(len(options))) for options in levels] for _ in range(RANDOM)]


def removed_by(dependencies: Dependencies, levels: Sequence[Sequence[Level]], chosen: Sequence[int]) -> Ids:
    """The units that go when every group stops at a level."""
    pairs = zip(dependencies.groups, levels, chosen, strict=True)
    return np.concatenate([np.zeros(0, np.int64), *(g.units[options[c].removed] for g, options, c in pairs)])


def profile(
    profiler: Profiler, levels: Sequence[Sequence[Level]], *, seed: int = 0, observe: Observer = silent
) -> Table:
    """Measure what is left of a designed set of pruned models, and fit a table to all that was measured.

    Args:
        profiler: Of the dense model.
        levels: The widths of every group.
        seed: Of the random widths.
        observe: Called with a stage's name and the share of it that is done.
    """
    plans = design(levels, seed)
    for done in range(len(profiler.samples) - 1, len(plans)):  # an interrupted profile goes on where it ended
        chosen = plans[done]
        observe("profile", done / len(plans))
        profiler.sample(removed_by(profiler.dependencies, levels, chosen))
    return profiler.table()
