"""From two models to a comparison. Law: what decides the figures is recorded beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from onnxprune import runtime
from onnxprune.bench import processes as apart
from onnxprune.bench.comparison import Comparison, compare, throughput
from onnxprune.bench.footprint import Footprint
from onnxprune.bench.pair import Measured, Setting, batch_size, made_up, time_pair
from onnxprune.bench.protocol import QUICK, Protocol
from onnxprune.errors import ProviderError
from onnxprune.runtime import Feeds, Source

FOOTPRINT_SHARE = 0.05  # of the work, for the bar of progress


@dataclass(frozen=True)
class Found:
    """What each process measured; the drift of those repeated; each model alone; whether processes were fresh."""

    runs: Sequence[Measured]
    repeated: Sequence[float] = ()
    footprints: tuple[Footprint, Footprint] | None = None
    fresh: bool = True


def bench(
    before: Source,
    after: Source,
    *,
    feeds: Feeds | None = None,
    provider: str = "cpu",
    batch: int = 1,
    threads: int = 1,
    seed: int = 0,
    protocol: Protocol = QUICK,
    processes: int | None = None,
    budget_s: float | None = None,
    batches: Sequence[int] = (),
    fp16: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Comparison:
    """Time a dense model against a pruned one, on the same inputs.

    Args:
        before: The dense model.
        after: The pruned model.
        feeds: Input name -> array; seeded random arrays of `batch` if not given.
        provider: Execution provider, as for `runtime.session`.
        batch: Size of an open batch axis, when `feeds` is not given.
        threads: Inside one operator; fresh processes are pinned to as many cores.
        seed: Of the inputs, the order of the runners and the bootstrap.
        protocol: How long and how often: `QUICK`, in this process, or `FULL`, in fresh ones.
        processes: In place of the protocol's; 0 is this process.
        budget_s: Seconds of samples in each process, after the warm-up, in place of the protocol's.
        batches: Sizes of an open batch axis at which to measure throughput too, on random inputs.
        fp16: Convert both models to float16 first, inputs and outputs excepted; on accelerators.
        progress: Called with the share done, 0 to 1.

    Raises:
        OnnxpruneError: Inputs that differ, a batch of another size, float16 on the CPU, a process that died.
    """
    setting = Setting(runtime.provider_name(provider), threads, fp16)
    inputs = [made_up(before, batch, seed) if feeds is None else feeds, *(made_up(before, n, seed) for n in batches)]
    protocol = adjusted(protocol, processes, budget_s)
    return result(measured(before, after, inputs, setting, protocol, seed, progress), setting, inputs, seed)


def adjusted(protocol: Protocol, processes: int | None, budget_s: float | None) -> Protocol:
    """A protocol with what was asked for in place of its own."""
    count = protocol.processes if processes is None else processes
    return replace(protocol, processes=count, budget_s=protocol.budget_s if budget_s is None else budget_s)


def halves(before: Source, after: Source, setting: Setting) -> tuple[Source, Source]:
    """Both models in float16.

    Raises:
        ProviderError: On the CPU, whose float16 kernels are too few to say anything of the models.
    """
    if setting.provider == runtime.CPU:
        what = "float16 is not timed on the CPU: onnxruntime casts to float32 and back there"
        raise ProviderError(what, remedy="leave --fp16 away, or name an accelerator with --ep")
    return runtime.half(before), runtime.half(after)


def measured(
    before: Source,
    after: Source,
    inputs: Sequence[Feeds],
    setting: Setting,
    protocol: Protocol,
    seed: int,
    progress: Callable[[float], None] | None,
) -> Found:
    """Measure in this process, or in fresh ones."""
    if setting.fp16:
        before, after = halves(before, after, setting)
    progress = progress or (lambda share: None)
    if not protocol.processes:
        one = time_pair(before, after, inputs, setting, protocol, seed=seed, progress=progress)
        return Found([one], fresh=False)
    with apart.prepared(before, after, inputs, setting, protocol) as worker:
        share = (1 - (FOOTPRINT_SHARE if protocol.loads else 0)) / protocol.processes

        def time(number: int) -> Measured:
            done = number % protocol.processes  # a repetition stands where the process it replaces stood
            return worker.time(seed + number, lambda p: progress((done + p) * share))

        runs, repeated = apart.repeat(time, protocol.processes)
        if not protocol.loads:
            return Found(runs, repeated)
        progress(1 - FOOTPRINT_SHARE)
        prints = worker.footprint(worker.models[0]), worker.footprint(worker.models[1])
        progress(1.0)
        return Found(runs, repeated, prints)


def result(found: Found, setting: Setting, inputs: Sequence[Feeds], seed: int) -> Comparison:
    """The comparison of what was measured."""
    one, sizes = found.runs[0], [batch_size(feeds) for feeds in inputs]
    main = [run.samples[0] for run in found.runs]
    rates = [
        throughput([run.samples[n] for run in found.runs], size, seed=seed) for n, size in enumerate(sizes[1:], start=1)
    ]
    facts: Mapping[str, Any] = runtime.environment() | runtime.clocks(one.cores) | runtime.device(one.provider)
    if one.options:
        facts = {**facts, "provider_options": one.options}
    if one.nodes:
        facts = {**facts, "nodes": one.nodes}
    compared = compare(
        main, provider=one.provider, threads=setting.threads, batch=sizes[0], environment=facts, seed=seed
    )
    compared = replace(
        compared,
        processes=len(found.runs) if found.fresh else 0,
        repeated=tuple(found.repeated),
        cores=one.cores,
        throughput=tuple(rates),
        fp16=setting.fp16,
    )
    if found.footprints is None:
        return compared
    dense, small = found.footprints
    return replace(
        compared,
        before_load_ms=dense.load_ms,
        after_load_ms=small.load_ms,
        before_peak_bytes=dense.peak_bytes,
        after_peak_bytes=small.peak_bytes,
    )
