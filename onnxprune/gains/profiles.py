"""Where time goes, before and after. Law: every figure is of kernels that ran, both models' runs taking turns.

A profiled session of each model runs in turns, in shuffled order, so that other load hits both alike; the first runs
of each are left out. The sum over kernels is less than what a caller waits for, or more where noting times costs more
than what lies between kernels; both are shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.align import width_step
from onnxprune.errors import ProviderError
from onnxprune.gains.layers import Pair, Side, pair_layers
from onnxprune.gains.reasons import Reason, failed, lost_ms, reasons
from onnxprune.model import Model, Shape, load
from onnxprune.normalise import normalise
from onnxprune.runtime import CPU, Feeds, Kernel, Profiled, provider_name, random_feeds

WARM = 2  # runs of each that do not count
MIN_RUNS, MAX_RUNS = 5, 200


@dataclass(frozen=True)
class Operator:
    """All kernels of one kind.

    Attributes:
        op: Operator as onnxruntime runs it, with its domain unless that is ONNX's.
        count_before: Kernels of the dense model.
        count_after: Kernels of the pruned model.
        ms_before: Their time, ms.
        ms_after: Their time, ms.
    """

    op: str
    count_before: int
    count_after: int
    ms_before: float
    ms_after: float


@dataclass(frozen=True)
class Layer:
    """One layer before and after.

    Attributes:
        pair: What ran, and how long.
        lost_ms: Time it takes beyond its share of the work, ms.
        reasons: Why, if it failed to gain; empty if it did not fail.
    """

    pair: Pair
    lost_ms: float = 0.0
    reasons: tuple[Reason, ...] = ()

    @property
    def ratio(self) -> float | None:
        """Time before / after; above 1 is faster. None where nothing ran after."""
        return self.pair.before.ms / self.pair.after.ms if self.pair.after.ms else None

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        before, after = side_dict(self.pair.before), side_dict(self.pair.after)
        both = {key: {"before": before[key], "after": after[key]} for key in before}
        why = [{"kind": r.kind, "text": r.text, "remedy": r.remedy} for r in self.reasons]
        head = {"name": self.pair.name, "node": self.pair.node}
        return head | both | {"ratio": self.ratio, "lost_ms": self.lost_ms, "reasons": why}


@dataclass(frozen=True)
class Gains:
    """Where two models spend their time.

    Attributes:
        operators: By kind of kernel; the slowest of the pruned model first.
        layers: By layer, in the order of the graph; empty where the models do not share the names of their tensors.
        step: The width step that reasons are told with.
        runs: Runs of each model that the times are of.
    """

    operators: tuple[Operator, ...]
    layers: tuple[Layer, ...]
    step: int
    runs: int

    @property
    def before_ms(self) -> float:
        """Time in kernels of the dense model, ms."""
        return sum(o.ms_before for o in self.operators)

    @property
    def after_ms(self) -> float:
        """Time in kernels of the pruned model, ms."""
        return sum(o.ms_after for o in self.operators)

    @property
    def failed(self) -> tuple[Layer, ...]:
        """Layers that failed to gain; those that lost most first."""
        return tuple(sorted((la for la in self.layers if la.reasons), key=lambda la: -la.lost_ms))

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; `failed` lists the names of the layers that failed to gain."""
        sums = self.before_ms, self.after_ms
        return {
            "operators": [operator_dict(o, *sums) for o in self.operators],
            "layers": [layer.to_dict() for layer in self.layers],
            "failed": [layer.pair.name for layer in self.failed],
            "kernels_ms": {"before": sums[0], "after": sums[1]},
            "width_step": self.step,
            "runs": self.runs,
        }


def operator_dict(found: Operator, before_ms: float, after_ms: float) -> dict[str, Any]:
    """One kind of kernel with its share of all time."""
    pairs = {
        "count": (found.count_before, found.count_after),
        "ms": (found.ms_before, found.ms_after),
        "share": (found.ms_before / max(before_ms, 1e-9), found.ms_after / max(after_ms, 1e-9)),
    }
    return {"op": found.op} | {key: {"before": b, "after": a} for key, (b, a) in pairs.items()}


def side_dict(side: Side) -> dict[str, Any]:
    """What ran of a layer in one model."""
    return {
        "kernels": [kernel.op for kernel in side.kernels],
        "shape": list(side.shape),
        "channels": {"read": side.into, "written": side.out, "groups": side.groups},
        "work": side.work,
        "ms": side.ms,
    }


def explain(
    dense: Model,
    pruned: Model,
    feeds: Feeds,
    *,
    step: int | None = None,
    provider: str = "cpu",
    threads: int = 1,
    seed: int = 0,
    budget_s: float = 1.0,
    progress: Callable[[float], None] | None = None,
) -> Gains:
    """Profile a model against its pruning, and say why layers did not gain.

    Args:
        dense: The model before.
        pruned: The model after.
        feeds: Input name -> array, for both.
        step: The width step the machine rewards; None measures it, or takes it from the cache.
        provider: Execution provider.
        threads: Threads inside one operator.
        seed: Of the order of the runs.
        budget_s: Seconds to run for; at least 5 runs of each are taken.
        progress: Called with the share done, 0 to 1.

    Raises:
        ProviderError: Not the processor: elsewhere kernels run on while the profiler's clock has stopped.
        RuntimeUnavailable: onnxruntime refuses a model.
    """
    refuse_elsewhere(provider)
    step = step or width_step(threads=threads).step
    models = [shaped(dense), shaped(pruned)]
    with Profiled(models[0], feeds, threads=threads) as one, Profiled(models[1], feeds, threads=threads) as two:
        runs = alternate([one.run, two.run], seed=seed, budget_s=budget_s, progress=progress)
        before, after = (opened.kernels(skip=WARM) for opened in (one, two))
    return judge(before, after, pair_layers(models[0], models[1], (before, after)), step, runs)


def refuse_elsewhere(provider: str) -> None:
    """Raise ProviderError for a provider whose kernels onnxruntime cannot time: any but the processor's."""
    if provider_name(provider) != CPU:
        raise ProviderError(f"operators cannot be timed on '{provider}'", remedy="profile with --ep cpu")


def profile_files(
    before: Path | str, after: Path | str, provider: str = "cpu", batch: int = 1, threads: int = 1, seed: int = 0
) -> Gains:
    """`explain` for two files, on seeded random inputs.

    Args:
        before: The dense model.
        after: The pruned model.
        provider: Execution provider.
        batch: Size of an open batch axis.
        threads: Threads inside one operator.
        seed: Of the inputs and the order of the runs.
    """
    dense = load(before)
    feeds = random_feeds(dense, batch=batch, seed=seed)
    return explain(dense, load(after), feeds, provider=provider, threads=threads, seed=seed)


def shaped(model: Model) -> Model:
    """The model with the shapes of its tensors."""
    shapes: dict[str, Shape] = dict(model.shapes)
    return model if shapes else replace(model, shapes=normalise(model).shapes)


def alternate(
    runners: Sequence[Callable[[], object]],
    *,
    seed: int,
    budget_s: float,
    progress: Callable[[float], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Run each once a round, in shuffled order; how many rounds count."""
    rng = np.random.default_rng(seed)
    for _ in range(WARM):
        for run in runners:
            run()
    rounds, start = 0, clock()
    while rounds < MIN_RUNS or (rounds < MAX_RUNS and clock() - start < budget_s):
        for index in rng.permutation(len(runners)):
            runners[index]()
        rounds += 1
        if progress:
            progress(min(1.0, rounds / MIN_RUNS, (clock() - start) / max(budget_s, 1e-9)))
    return rounds


def judge(before: Sequence[Kernel], after: Sequence[Kernel], pairs: Sequence[Pair], step: int, runs: int) -> Gains:
    """What the kernels of two models say: a pure function."""
    least = min(k.typical_ms for k in (*before, *after))
    layers = [
        Layer(pair, lost_ms(pair), reasons(pair.before, pair.after, step, least) if failed(pair) else ())
        for pair in pairs
    ]
    return Gains(operator_times(before, after), tuple(layers), step, runs)


def operator_times(before: Sequence[Kernel], after: Sequence[Kernel]) -> tuple[Operator, ...]:
    """Time by kind of kernel, the slowest of the pruned model first."""
    found = []
    for op in dict.fromkeys(k.op for k in (*before, *after)):
        ones, twos = ([k.typical_ms for k in side if k.op == op] for side in (before, after))
        found.append(Operator(op, len(ones), len(twos), sum(ones), sum(twos)))
    return tuple(sorted(found, key=lambda o: (-o.ms_after, -o.ms_before)))
