"""Measure what widths cost, in time and in outputs. Law: what is found is what `prune` plans with."""

from __future__ import annotations

from pathlib import Path

from onnxprune.align import width_step
from onnxprune.importance import score
from onnxprune.pipeline.curves import Wanted, all_samples, curves_of, recommended
from onnxprune.pipeline.inputs import calibration, sample, timing_feeds
from onnxprune.pipeline.options import Options
from onnxprune.pipeline.ranked import ranked
from onnxprune.pipeline.run import prepare
from onnxprune.plan import Limits, Target
from onnxprune.plan.levels import choosers_of, levels_of
from onnxprune.profile import Profile, profile_of, profiler_of
from onnxprune.profile import profile as measure_widths
from onnxprune.profile import save as save_profile
from onnxprune.progress import Observer, silent
from onnxprune.sensitivity import Curves


def profile(
    source: Path | str,
    align: int | None = None,
    provider: str = "cpu",
    threads: int = 1,
    batch: int = 1,
    seed: int = 0,
    through_norms: bool = False,
    cache: bool = True,
    *,
    observe: Observer = silent,
) -> Profile:
    """Measure what the width of each group costs on this machine, or recall it.

    Args:
        source: The model file.
        align: Width step; None finds the one this machine rewards.
        provider: Execution provider.
        threads: Threads inside one operator.
        batch: Samples in one inference.
        seed: Of the inputs and of the widths that are measured.
        through_norms: As in `Options`.
        cache: Whether what is remembered will do.
        observe: Called with a stage's name and the share of it that is done.

    Raises:
        UnprunableError: Nothing in the model can be removed.
    """
    original, dependencies = prepare(source, observe, through_norms=through_norms)
    options = Options(seed=seed, batch=batch, threads=threads, align=align)
    feeds = timing_feeds(original, sample(original, options, None), options)
    step = align or width_step(provider=provider, threads=threads).step
    choosers = choosers_of(dependencies, score(dependencies), Limits(align=step), finer=align is None)
    levels = levels_of(choosers)
    profiler = profiler_of(dependencies, feeds, step, provider=provider, threads=threads, cache=cache)
    table = measure_widths(profiler, levels, seed=seed, observe=observe)
    save_profile(profiler)
    return profile_of(profiler, table, levels)


def sensitivity(
    source: Path | str,
    options: Options,
    wanted: Wanted | None = None,
    *,
    rows: str = "auto",
    macs: float = 0.5,
    observe: Observer = silent,
) -> Curves:
    """Cut each group alone and compare the outputs, or recall it.

    Args:
        source: The model file.
        options: As of `prune`, of which data, criterion, seed, samples, threads and through_norms count.
        wanted: The grid, and what is asked beside the divergence.
        rows: As of `Limits`.
        macs: Share of the work to keep, for which ratios are recommended.
        observe: Called with a stage's name and the share of it that is done.

    Raises:
        UnprunableError: Nothing in the model can be removed.
        DataError: There is no data, or it does not fit.
        PlanError: `macs` is outside (0, 1).
    """
    target = Target(macs=macs)
    original, dependencies = prepare(source, observe, through_norms=options.through_norms)
    samples, wanted = all_samples(original, options, wanted or Wanted())
    scores = ranked(dependencies, calibration(original, options, samples), options, observe)
    how = {"samples": samples, "observe": observe}
    found = curves_of(original, dependencies, scores, options, rows, wanted, **how)  # type: ignore[arg-type]
    return recommended(found, dependencies, scores, target, rows)
