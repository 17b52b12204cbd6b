"""The order of the stages. Law: nothing is written before the surgery is verified, and the input is never touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from onnxprune.data import Samples
from onnxprune.dead import Dead, settle
from onnxprune.errors import NoSpeedup, PlanError
from onnxprune.fit import Fitted
from onnxprune.gate import judged, refusal
from onnxprune.importance import Scores
from onnxprune.isolate import Replan, Verified, isolate
from onnxprune.lossless import harmless, nothing_dead, plan_dead, unchanged
from onnxprune.model import Array, Model, load, save
from onnxprune.normalise import normalise
from onnxprune.outputs import check_output, check_weights
from onnxprune.pipeline.allocate import Case, allocation, check_allocation
from onnxprune.pipeline.given import Given, evaluated, gathered, noted, prepared_as, told
from onnxprune.pipeline.inputs import sample, time_pair, timing_feeds
from onnxprune.pipeline.options import DEFAULT_RATIO, Options, Pruned, Receiver, ignore
from onnxprune.pipeline.plans import TimedPlans, not_all, nothing_removed, planned, planner, step_for
from onnxprune.pipeline.ranked import ranked, ranked_by
from onnxprune.pipeline.recovered import recovered
from onnxprune.pipeline.steps import SteppedPlans, check_steps
from onnxprune.plan import Limits, Plan, Target
from onnxprune.progress import Observer, silent
from onnxprune.report import Report, make_report
from onnxprune.report.dead import dead_report
from onnxprune.rewrite import removal
from onnxprune.runtime import Feeds, provider_name
from onnxprune.trace import Dependencies, trace
from onnxprune.verify import check_normalised


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
    data: Samples | None = None,
) -> Pruned:
    """Prune an .onnx file: load, normalise, trace, score, plan, rewrite, verify, time, save.

    Args:
        source: The model file.
        output: Where the pruned model goes.
        target: What to reach; a ratio of 0.3 if neither this nor `limits.layer_ratios` says, nor `options.dead` is on.
        limits: What may be touched; `options.align`, if given, takes the place of its alignment.
        options: Everything else.
        observe: Called with a stage's name and the share of it that is done.
        receive: Called with the result once it is saved, or refused for not being faster.
        prepared: What `prepare` gave for the same file and options, if it was called before.
        data: What `read_samples` gave for the same file and options, if it was called before.

    Raises:
        OnnxpruneError: See its subclasses; nothing has been written then. `receive` got the result of a NoSpeedup.
    """
    target, limits, options = checked(target, limits or Limits(), options or Options())
    original, dependencies, dead = opened(Path(source), Path(output), options, observe, prepared)
    given = gathered(Path(source), original, options, observe, data)
    if dead and target is None and not limits.layer_ratios:
        return stripped(original, dead, Path(output), limits, options, given, observe, receive)
    limits, fixed = aligned(limits, options, observe)
    rank = partial(ranked, dependencies, given.batches, options, observe, dead=dead)
    how = given, target, limits, options, observe
    chosen, replan, scores = planned(rank, lambda s: replanner(original, dependencies, s, *how, fixed=fixed))
    rest = options, observe, receive, replan, scores, given, dead
    return carry_out(original, dependencies, chosen, Path(output), *rest)


def aligned(limits: Limits, options: Options, observe: Observer) -> tuple[Limits, bool]:
    """Limits with the width step that holds, and whether it was given, not measured."""
    step = asked_step(limits, options)
    return replace(limits, align=step or step_for(options, observe), finer=step is None), step is not None


def asked_step(limits: Limits, options: Options) -> int | None:
    """The width step that was asked for; None where it is to be measured."""
    return options.align or (limits.align if limits.align > 1 else None)


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
    options = replace(options, through_norms=chosen.through_norms, dead=chosen.dead)
    options = prepared_as(options, chosen)
    original, dependencies, dead = opened(Path(source), Path(output), options, observe)
    given = gathered(Path(source), original, options, observe)
    facts = chosen, Path(output), options, observe, receive, None, ranked_by(dependencies, chosen), given, dead
    return carry_out(original, dependencies, *facts)


def opened(
    source: Path,
    output: Path,
    options: Options,
    observe: Observer,
    prepared: tuple[Model, Dependencies] | None = None,
) -> tuple[Model, Dependencies, Dead | None]:
    """A file, traced, once nothing speaks against the output or the provider, and its dead units if they are wanted.

    The dependencies are then those of the model that can lose the dead as they are.
    """
    provider_name(options.ep)  # refuse one that is absent before any work
    check_output(source, output, options.overwrite)
    original, dependencies = prepared or prepare(source, observe, through_norms=options.through_norms)
    check_weights(original, dependencies, output, options.overwrite)
    if not options.dead:
        return original, dependencies, None
    observe("find dead units", 0.0)
    found = settle(dependencies)
    return original, found.dependencies, found


def stripped(
    original: Model,
    dead: Dead,
    output: Path,
    limits: Limits,
    options: Options,
    given: Given,
    observe: Observer,
    receive: Receiver,
) -> Pruned:
    """Remove the dead units and nothing else.

    All that rows allow go, whatever widths that leaves. Where the result was timed and is slower, widths are kept at
    the step this machine rewards instead; an alignment that was asked for holds from the first.

    Raises:
        PlanError: No unit is dead, or recovery was asked for.
        NoSpeedup: What is left is slower either way.
    """
    check_dead(dead, options)
    options, given = replace(options, criterion="l1", recover=False), replace(given, batches=())
    scores = ranked(dead.dependencies, (), options, observe)
    fixed = asked_step(limits, options)
    found: list[Pruned] = []
    refused: NoSpeedup | None = None
    for at in (fixed,) if fixed else (1, None):
        within = replace(limits, align=at or step_for(options, observe))
        chosen = plan_dead(dead, scores, within)
        if refused and not any(g.removed for g in chosen.groups):
            break
        try:
            replan = partial(plan_dead, dead, scores, within)
            facts = chosen, output, options, observe, found.append, replan, scores, given, dead
            carry_out(original, dead.dependencies, *facts)
            receive(found[-1])
            return found[-1]
        except NoSpeedup as error:
            refused = refused or error
    receive(found[0])
    raise refused or nothing_dead(dead)


def check_dead(dead: Dead, options: Options) -> None:
    """Refuse to remove the dead alone where there are none, or where recovery was asked for."""
    if options.recover:
        raise PlanError("--dead alone loses nothing to recover", remedy="leave --recover out, or give a target")
    if not dead.units.size:
        raise nothing_dead(dead)


def checked(target: Target | None, limits: Limits, options: Options) -> tuple[Target | None, Limits, Options]:
    """The target with its default, limits and options, once nothing in them speaks against carrying them out."""
    target = target or (None if options.dead or limits.layer_ratios else Target(ratio=DEFAULT_RATIO))
    check_allocation(options, target)
    check_steps(options, target, limits)
    return target, limits, options


def replanner(
    original: Model,
    dependencies: Dependencies,
    scores: Scores,
    given: Given,
    target: Target | None,
    limits: Limits,
    options: Options,
    observe: Observer,
    *,
    fixed: bool,
) -> Replan:
    """What makes the plan, at once or in rounds, given the sources (`tensor:axis`) whose groups stay whole."""
    sharing = allocation(Case(original, dependencies, scores, limits, options, observe, given.samples))
    observe("plan", 0.0)
    if options.steps > 1 and target is not None:
        rescore = partial(ranked, samples=given.batches, options=options, observe=observe)
        how = target, limits, options, sharing, given.batches, rescore
        return SteppedPlans(dependencies, scores, *how, observe, fixed)
    how_at_once = target, limits, options, observe, given.samples
    return planner(original, dependencies, scores, *how_at_once, fixed=fixed, sharing=sharing)


def prepare(
    source: Path | str, observe: Observer = silent, *, through_norms: bool = False
) -> tuple[Model, Dependencies]:
    """Load and trace a file."""
    observe("load", 0.0)
    original = load(source)
    observe("trace", 0.0)
    return original, trace(normalise(original), through_norms=through_norms)


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
    given: Given | None = None,
    dead: Dead | None = None,
) -> Pruned:
    """Rewrite, verify, recover, time (a plan fitted to a time has been), and save unless the timing is against it."""
    if not chosen.removed(dependencies).size:
        raise nothing_removed(chosen)
    in_time, given = replan if isinstance(replan, TimedPlans) else None, given or Given()
    feeds = in_time.feeds if in_time else sample(original, options, given.samples)
    verified = list(feeds.batches(original))
    check_normalised(original, dependencies.model, verified, options.threads)
    found = isolate(dependencies, chosen, verified, threads=options.threads, replan=replan, observe=observe)
    if options.strict and found.isolated:
        raise not_all(found.isolated)
    made = noted(found.plan, given.samples)
    report = reported(original, dependencies, replace(found, plan=made), output, scores, told(given, options))
    if dead:
        same = (original, dependencies, found.removed, found.model, verified)
        lossless = unchanged(*same, threads=options.threads) if harmless(dead, found.removed) else None
        listed = {name: axes for name, axes in report.removed.items() if name not in dead.added}
        report = replace(report, dead=dead_report(dead, found.removed, lossless), removed=listed)
    done = Pruned(found.model, made, report)
    done = refitted(done, dependencies, found.removed, given.batches, options, observe)
    done = evaluated(done, given.metric, options, observe)
    fitted = in_time.fitted(found.plan) if in_time else None
    if options.time or in_time:  # a target in time is never delivered without one
        shaped = replace(original, shapes=dependencies.model.shapes)
        facts_in_time = fitted, shaped, done.model, timing_feeds(original, feeds, options), options, observe
        done = replace(done, report=timed(done.report, *facts_in_time))
    return delivered(done, output, observe, receive)


def reported(
    original: Model,
    dependencies: Dependencies,
    found: Verified,
    output: Path,
    scores: Scores | None,
    data: Mapping[str, Any] | None,
) -> Report:
    """The report of a plan that was carried out, before anything was timed. It names what the input file names."""
    names = (str(original.path or "model"), str(output))
    gone = removal(dependencies, found.removed)
    facts = (found.plan, found.removed, gone, found.equivalence)
    report = make_report(dependencies, *facts, isolated=found.isolated, names=names, scores=scores)
    return replace(report, data=data)


def refitted(
    done: Pruned,
    dependencies: Dependencies,
    removed: Array,
    samples: Sequence[Feeds],
    options: Options,
    observe: Observer,
) -> Pruned:
    """With other weights. It comes after verification: masked and pruned agree up to here only."""
    if done.report.lossless:
        return done
    found = recovered(dependencies, removed, done.model, samples, options, observe)
    return done if found is None else replace(done, model=found.model, report=replace(done.report, recovery=found))


def delivered(done: Pruned, output: Path, observe: Observer, receive: Receiver) -> Pruned:
    """Save it, unless its timing speaks against it.

    Raises:
        NoSpeedup: It does.
    """
    if (error := refusal(done.report)) is None:
        observe("save", 0.0)
        save(done.model, output)
    receive(done)
    if error:
        raise error
    return done


def timed(
    report: Report,
    fitted: Fitted | None,
    original: Model,
    pruned: Model,
    batch: Feeds,
    options: Options,
    observe: Observer,
) -> Report:
    """The report with a timing, the one that a target in time was met by if there is one, and its judgement."""
    timing = fitted.comparison if fitted else time_pair(original, pruned, batch, options, observe)
    observe("judge", 0.0)
    how = options.threads, options.seed
    found = report.timed(timing, fitted)
    return judged(found, original, pruned, batch, *how, always=options.explain, force=options.force)
