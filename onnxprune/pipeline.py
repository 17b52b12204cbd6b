"""The order of the stages. Law: nothing is written before the surgery is verified, and the input is never touched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from onnxprune.align import width_step
from onnxprune.bench import Comparison, bench
from onnxprune.data import Feeds, batches, load_npz
from onnxprune.errors import DataError, OnnxpruneError, PlanError, RuntimeUnavailable
from onnxprune.fit import Fitted, meet
from onnxprune.gate import judged, not_all, refusal
from onnxprune.importance import Scores, score
from onnxprune.isolate import Replan, isolate
from onnxprune.model import Model, is_float, load, save
from onnxprune.normalise import normalise
from onnxprune.outputs import check_output, check_weights
from onnxprune.plan import Limits, Plan, Target, plan
from onnxprune.plan.knapsack import choosers_of, levels_of
from onnxprune.profile import Profile, profile_of, profiler_of
from onnxprune.profile import profile as measure_widths
from onnxprune.profile import save as save_profile
from onnxprune.report import Report, make_report
from onnxprune.rewrite import removal
from onnxprune.runtime import random_feeds, run, session
from onnxprune.trace import Dependencies, trace
from onnxprune.verify import check_normalised

Observer = Callable[[str, float], None]
Receiver = Callable[["Pruned"], None]
DEFAULT_RATIO = 0.3


def silent(stage: str, done: float) -> None:
    """An observer that says nothing."""


def ignore(done: Pruned) -> None:
    """A receiver that does nothing."""


@dataclass(frozen=True)
class Options:
    """How a run behaves, beside its target and limits.

    Attributes:
        criterion: Importance criterion.
        align: Width step; None measures the one this machine rewards.
        data: `.npz` with samples for verification; None draws random inputs.
        seed: For random inputs and the order of timing.
        threads: Threads inside one operator.
        time: Whether to time dense against pruned.
        overwrite: Whether an existing output may be replaced.
        strict: Whether groups that fail verification are an error, instead of being left whole.
        through_norms: Whether channels may go that are normalised over, which makes the result approximate.
        best_effort: Whether a target in time that is out of reach is met as far as possible, instead of an error.
        batch: Samples in one timed inference.
        step: The width step this machine rewards, where it is known already; looked at if `align` is None.
        force: Whether a model is written that was timed and is not measurably faster.
        explain: Whether layers are profiled even if the model is faster; if it is not, they always are.
    """

    criterion: str = "l1"
    align: int | None = None
    data: Path | None = None
    seed: int = 0
    threads: int = 1
    time: bool = True
    overwrite: bool = False
    strict: bool = False
    through_norms: bool = False
    best_effort: bool = False
    batch: int = 1
    step: int | None = None
    force: bool = False
    explain: bool = False


@dataclass(frozen=True, eq=False)
class Pruned:
    """What a run produced.

    Attributes:
        model: The pruned model.
        plan: What was removed.
        report: Everything that was found and measured.
    """

    model: Model
    plan: Plan
    report: Report


def prune(
    source: Path | str,
    output: Path | str,
    target: Target | None = None,
    limits: Limits | None = None,
    options: Options | None = None,
    *,
    observe: Observer = silent,
    receive: Receiver = ignore,
    prepared: tuple[Model, Dependencies] | None = None,
) -> Pruned:
    """Prune an .onnx file: load, normalise, trace, score, plan, rewrite, verify, time, save.

    Args:
        source: The model file.
        output: Where the pruned model goes.
        target: What to reach; a ratio of 0.3 if neither this nor `limits.layer_ratios` says.
        limits: What may be touched; `options.align`, if given, takes the place of its alignment.
        options: Everything else.
        observe: Called with a stage's name and the share of it that is done.
        prepared: What `prepare` gave for the same file and options, if it was called before.
        receive: Called with the result once it is saved, or refused for not being faster.

    Raises:
        NoSpeedup: It is not measurably faster: `receive` got the result, but it was not written.
        OnnxpruneError: See its subclasses; nothing has been written then.
    """
    options, limits = options or Options(), limits or Limits()
    if target is None and not limits.layer_ratios:
        target = Target(ratio=DEFAULT_RATIO)
    check_output(Path(source), Path(output), options.overwrite)
    original, dependencies = prepared or prepare(source, observe, through_norms=options.through_norms)
    check_weights(original, dependencies, Path(output), options.overwrite)
    given = options.align or (limits.align if limits.align > 1 else None)
    align = given or step_for(options, observe)
    observe("plan", 0.0)
    scores, limits = score(dependencies, options.criterion), replace(limits, align=align)
    replan: Replan = partial(plan_beside, dependencies, scores, target, limits, given is not None)
    if target is not None and target.timed:
        replan = TimedPlans(original, dependencies, scores, target, limits, options, observe)
    return carry_out(original, dependencies, replan(()), Path(output), options, observe, receive, replan, scores)


@dataclass(eq=False)
class TimedPlans:
    """Plans for a target in time, made by measuring; `found` keeps the last measurement."""

    original: Model
    dependencies: Dependencies
    scores: Scores
    target: Target
    limits: Limits
    options: Options
    observe: Observer
    found: Fitted | None = None

    def __call__(self, whole: Sequence[str]) -> Plan:
        """The plan with the groups of some sources (`tensor:axis`) left whole.

        Raises:
            PlanError: The target is out of reach, and `Options.best_effort` is off.
        """
        options, narrower = self.options, replace(self.limits, skip=(*self.limits.skip, *whole))
        feeds = timing_feeds(self.original, sample(self.original, options), options)
        found = meet(
            self.original,
            self.dependencies,
            feeds,
            self.scores,
            self.target,
            narrower,
            finer=options.align is None,
            threads=options.threads,
            seed=options.seed,
            observe=self.observe,
        )
        if not found.reached and not options.best_effort:
            raise out_of_reach(found)
        self.found = replace(found, plan=as_asked(found.plan, self.limits))
        return self.found.plan

    def timing(self, plan: Plan) -> Comparison | None:
        """The measurement of a plan, if it was the last one made."""
        same = self.found is not None and self.found.plan.groups == plan.groups
        return self.found.comparison if self.found and same else None


def out_of_reach(found: Fitted) -> PlanError:
    """The error for a time that no plan meets."""
    best = found.comparison
    wanted = f"{found.wanted:.2f}x ({best.before_ms / found.wanted:.3g} ms)"
    what = f"{wanted} is out of reach: at most {best.speedup:.2f}x ({best.after_ms:.3g} ms) was measured"
    remedy = "ask for less, relax --max-ratio, --skip or --align, or take that with --best-effort; nothing was written"
    return PlanError(what, remedy=remedy)


def plan_beside(
    dependencies: Dependencies,
    scores: Scores,
    target: Target | None,
    limits: Limits,
    fixed: bool,
    whole: Sequence[str],
) -> Plan:
    """Plan with the groups of some sources (`tensor:axis`) left whole; the settings are those that were asked for."""
    narrower = replace(limits, skip=(*limits.skip, *whole))
    chosen = plan_aligned(dependencies, scores, target, narrower, fixed=fixed)
    return as_asked(chosen, limits)


def as_asked(chosen: Plan, limits: Limits) -> Plan:
    """The plan with the settings that were asked for, where more groups were left whole."""
    asked = {k: limits.skip if k == "skip" else v for k, v in chosen.settings.items() if k != "skip" or limits.skip}
    return replace(chosen, settings=asked)


def plan_aligned(
    dependencies: Dependencies, scores: Scores, target: Target | None, limits: Limits, *, fixed: bool
) -> Plan:
    """Plan at an alignment; one that was measured, not given, is halved while it leaves nothing to remove."""
    while True:
        narrower = replace(limits, align=limits.align // 2) if limits.align > 1 and not fixed else None
        try:
            chosen = plan(dependencies, scores, target, limits)
            if narrower is None or any(g.removed for g in chosen.groups):
                return chosen
        except PlanError:
            if narrower is None:
                raise
        limits = narrower


def apply(
    source: Path | str,
    chosen: Plan,
    output: Path | str,
    options: Options | None = None,
    *,
    observe: Observer = silent,
    receive: Receiver = ignore,
) -> Pruned:
    """Carry out a plan that was made before; arguments as of `prune`.

    Raises:
        PlanError: It was made for another model, or leaves an axis empty or rows uneven.
        OnnxpruneError: As `prune`.
    """
    options = options or Options()
    check_output(Path(source), Path(output), options.overwrite)
    original, dependencies = prepare(source, observe, through_norms=chosen.through_norms)
    check_weights(original, dependencies, Path(output), options.overwrite)
    scores = ranked_by(dependencies, chosen)
    return carry_out(original, dependencies, chosen, Path(output), options, observe, receive, scores=scores)


def ranked_by(dependencies: Dependencies, chosen: Plan) -> Scores | None:
    """The scores a plan was made from; None where it names no criterion, or one that does not fit these weights."""
    try:
        return score(dependencies, str(chosen.settings.get("criterion")))
    except OnnxpruneError:  # the report does without; the plan itself is all that counts
        return None


def prepare(
    source: Path | str, observe: Observer = silent, *, through_norms: bool = False
) -> tuple[Model, Dependencies]:
    """Load and trace a file."""
    observe("load", 0.0)
    original = load(source)
    observe("trace", 0.0)
    return original, trace(normalise(original), through_norms=through_norms)


def step_for(options: Options, observe: Observer) -> int:
    """The width step to align to: measured on this machine's onnxruntime, or remembered."""
    if options.step is not None:
        return options.step
    observe("find the width step", 0.0)
    return width_step(threads=options.threads).step


def carry_out(
    original: Model,
    dependencies: Dependencies,
    chosen: Plan,
    output: Path,
    options: Options,
    observe: Observer,
    receive: Receiver,
    replan: Replan | None = None,
    scores: Scores | None = None,
) -> Pruned:
    """Rewrite, verify, time (a plan fitted to a time has been), and save unless the timing speaks against it."""
    if not chosen.removed(dependencies).size:
        raise nothing_removed(chosen)
    feeds = sample(original, options)
    given = list(batches(original, feeds))
    check_normalised(original, dependencies.model, given, options.threads)
    found = isolate(dependencies, chosen, given, threads=options.threads, replan=replan, observe=observe)
    if options.strict and found.isolated:
        raise not_all(found.isolated)
    names = (str(original.path or "model"), str(output))
    gone = removal(dependencies, found.removed)
    facts = (found.plan, found.removed, gone, found.equivalence)
    report = make_report(dependencies, *facts, isolated=found.isolated, names=names, scores=scores)
    known = replan.timing(found.plan) if isinstance(replan, TimedPlans) else None
    if options.time or known:
        report = report.timed(known or time_pair(original, found.model, feeds, options, observe))
        observe("judge", 0.0)
        shaped = replace(original, shapes=dependencies.model.shapes)
        used = timing_feeds(original, feeds, options), options.threads, options.seed
        report = judged(report, shaped, found.model, *used, always=options.explain, force=options.force)
    done = Pruned(found.model, found.plan, report)
    if (error := refusal(done.report)) is None:
        observe("save", 0.0)
        save(found.model, output)
    receive(done)
    if error:
        raise error
    return done


def nothing_removed(chosen: Plan) -> PlanError:
    """The error for a plan that leaves everything whole, with its most frequent note."""
    notes = [g.note for g in chosen.groups if g.note]
    why = f": {max(set(notes), key=notes.count)}" if notes else ""
    return PlanError(f"the plan removes nothing{why}", remedy="ask for a larger ratio, or a smaller --align")


def sample(model: Model, options: Options) -> Feeds:
    """The inputs to verify and time on: the user's, or seeded random ones.

    Raises:
        DataError: They do not fit, or the model computes nothing finite from them, which would prove nothing.
    """
    opened = session(model, threads=options.threads, optimise=False)
    if options.data is not None:
        feeds = load_npz(model, options.data)
        found = run(opened, next(iter(batches(model, feeds))))
    else:
        feeds = random_feeds(model, batch=2, seed=options.seed)
        try:
            found = run(opened, feeds)
        except (DataError, RuntimeUnavailable):  # exports with an open batch axis may still hold a batch of 1 inside
            feeds = random_feeds(model, batch=1, seed=options.seed)
            found = run(opened, feeds)
    for name, output in found.items():
        if is_float(output) and output.size and not np.isfinite(output).any():
            what = f"the model's output '{name}' is NaN or infinite on {options.data or 'random inputs'}"
            raise DataError(
                what, remedy="give typical samples with --data X.npz, or export a model with finite weights"
            )
    return feeds


def time_pair(original: Model, pruned: Model, feeds: Feeds, options: Options, observe: Observer) -> Comparison:
    """Time dense against pruned on one batch."""
    return bench(
        original,
        pruned,
        feeds=timing_feeds(original, feeds, options),
        threads=options.threads,
        seed=options.seed,
        progress=lambda done: observe("time", done),
    )


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
    feeds = timing_feeds(original, sample(original, options), options)
    step = align or width_step(provider=provider, threads=threads).step
    choosers = choosers_of(dependencies, score(dependencies), Limits(align=step), finer=align is None)
    levels = [levels_of(choosers, g) for g in range(len(dependencies.groups))]
    profiler = profiler_of(dependencies, feeds, step, provider=provider, threads=threads, cache=cache)
    table = measure_widths(profiler, levels, seed=seed, observe=observe)
    save_profile(profiler)
    return profile_of(profiler, table, levels)


def timing_feeds(model: Model, feeds: Feeds, options: Options) -> Feeds:
    """One batch of the size that is timed: of the user's samples, or of random ones."""
    if options.data is None and options.batch > 1:
        return random_feeds(model, batch=options.batch, seed=options.seed)
    one: Sequence[Feeds] = list(batches(model, feeds, size=options.batch, limit=1))
    return {k: np.asarray(v) for k, v in one[0].items()}
