"""The order of the stages. Law: nothing is written before the surgery is verified, and the input is never touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from onnxprune.data import batches
from onnxprune.dead import Dead, settle
from onnxprune.errors import NoSpeedup, OnnxpruneError, PlanError
from onnxprune.fit import Fitted
from onnxprune.gate import judged, refusal
from onnxprune.importance import Evidence, Scores, score
from onnxprune.isolate import Replan, Verified, isolate
from onnxprune.lossless import harmless, nothing_dead, plan_dead, spared, unchanged
from onnxprune.model import Array, Model, load, save
from onnxprune.normalise import normalise
from onnxprune.outputs import check_output, check_weights
from onnxprune.pipeline.inputs import calibration, sample, time_pair, timing_feeds
from onnxprune.pipeline.options import DEFAULT_RATIO, Options, Pruned, Receiver, ignore
from onnxprune.pipeline.plans import TimedPlans, not_all, nothing_removed, planner, step_for
from onnxprune.plan import Limits, Plan, Target
from onnxprune.progress import Observer, silent
from onnxprune.recover import recover
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
) -> Pruned:
    """Prune an .onnx file: load, normalise, trace, score, plan, rewrite, verify, time, save.

    Args:
        source: The model file.
        output: Where the pruned model goes.
        target: What to reach; a ratio of 0.3 if neither this nor `limits.layer_ratios` says, nor `options.dead` is on.
        limits: What may be touched; `options.align`, if given, takes the place of its alignment.
        options: Everything else.
        observe: Called with a stage's name and the share of it that is done.
        prepared: What `prepare` gave for the same file and options, if it was called before.
        receive: Called with the result once it is saved, or refused for not being faster.

    Raises:
        OnnxpruneError: See its subclasses; nothing has been written then. `receive` got the result of a NoSpeedup.
    """
    options, limits = options or Options(), limits or Limits()
    how = (options, observe, options.through_norms, options.dead, prepared)
    original, dependencies, dead = opened(source, output, *how)
    if dead and not target and not limits.layer_ratios:
        return stripped(original, dead, Path(output), limits, options, observe, receive)
    target = target or (None if limits.layer_ratios else Target(ratio=DEFAULT_RATIO))
    step = options.align or (limits.align if limits.align > 1 else None)
    limits = replace(limits, align=step or step_for(options, observe))
    samples = calibration(original, options)
    scores = ranked(dependencies, samples, options, observe, dead)
    replan = planner(original, dependencies, scores, target, limits, options, observe, fixed=step is not None)
    observe("plan", 0.0)
    facts = replan(()), Path(output), options, observe, receive, replan, scores, samples, dead
    return carry_out(original, dependencies, *facts)


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
    original, dependencies, dead = opened(source, output, options, observe, chosen.through_norms, chosen.dead)
    scores, given = ranked_by(dependencies, chosen), calibration(original, options)
    facts = chosen, Path(output), options, observe, receive
    return carry_out(original, dependencies, *facts, scores=scores, samples=given, dead=dead)


def opened(
    source: Path | str,
    output: Path | str,
    options: Options,
    observe: Observer,
    through_norms: bool,
    dead: bool,
    prepared: tuple[Model, Dependencies] | None = None,
) -> tuple[Model, Dependencies, Dead | None]:
    """A file, traced, and its dead units if they are wanted: then with the model that can lose them as they are."""
    provider_name(options.ep)  # refuse one that is absent before any work
    check_output(Path(source), Path(output), options.overwrite)
    original, dependencies = prepared or prepare(source, observe, through_norms=through_norms)
    check_weights(original, dependencies, Path(output), options.overwrite)
    if not dead:
        return original, dependencies, None
    observe("find dead units", 0.0)
    found = settle(dependencies)
    return original, found.dependencies, found


def stripped(
    original: Model, dead: Dead, output: Path, limits: Limits, options: Options, observe: Observer, receive: Receiver
) -> Pruned:
    """Remove the dead units and nothing else.

    All that rows allow go, whatever widths that leaves. Where the result was timed and is slower, widths are kept at
    the step this machine rewards instead; an alignment that was asked for holds from the first.

    Raises:
        PlanError: No unit is dead, or recovery was asked for.
        NoSpeedup: What is left is slower either way.
    """
    if options.recover:
        raise PlanError("--dead alone loses nothing to recover", remedy="leave --recover out, or give a target")
    if not dead.units.size:
        raise nothing_dead(dead)
    options = replace(options, criterion="l1", recover=False)
    scores = ranked(dead.dependencies, (), options, observe)
    fixed = options.align or (limits.align if limits.align > 1 else None)
    found: list[Pruned] = []
    refused: NoSpeedup | None = None
    for at in (fixed,) if fixed else (1, None):
        within = replace(limits, align=at or step_for(options, observe))
        chosen = plan_dead(dead, scores, within)
        if refused and not any(g.removed for g in chosen.groups):
            break
        try:
            replan = partial(plan_dead, dead, scores, within)
            facts = chosen, output, options, observe, found.append, replan, scores, (), dead
            carry_out(original, dead.dependencies, *facts)
            receive(found[-1])
            return found[-1]
        except NoSpeedup as error:
            refused = refused or error
    receive(found[0])
    assert refused is not None
    raise refused


def ranked(
    dependencies: Dependencies,
    samples: Sequence[Feeds],
    options: Options,
    observe: Observer,
    dead: Dead | None = None,
) -> Scores:
    """The scores to plan by; the dead, if they were looked for, are worth nothing."""
    observe("score", 0.0)
    name = options.criterion
    if name == "auto":
        name = "reconstruction" if samples and options.recover is not False else "l1"
    evidence = Evidence(samples, threads=options.threads, seed=options.seed, observe=observe)
    found = score(dependencies, name, evidence)
    return spared(found, dead) if dead else found


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
    samples: Sequence[Feeds] = (),
    dead: Dead | None = None,
) -> Pruned:
    """Rewrite, verify, recover, time (a plan fitted to a time has been), and save unless the timing is against it."""
    if not chosen.removed(dependencies).size:
        raise nothing_removed(chosen)
    in_time = replan if isinstance(replan, TimedPlans) else None
    feeds = in_time.feeds if in_time else sample(original, options)
    given = list(batches(original, feeds))
    check_normalised(original, dependencies.model, given, options.threads)
    found = isolate(dependencies, chosen, given, threads=options.threads, replan=replan, observe=observe)
    if options.strict and found.isolated:
        raise not_all(found.isolated)
    report = reported(original, dependencies, found, output, scores)
    if dead:
        same = (original, dependencies, found.removed, found.model, given)
        lossless = unchanged(*same, threads=options.threads) if harmless(dead, found.removed) else None
        listed = {name: axes for name, axes in report.removed.items() if name not in dead.added}
        report = replace(report, dead=dead_report(dead, found.removed, lossless), removed=listed)
    done = refitted(Pruned(found.model, found.plan, report), dependencies, found.removed, samples, options, observe)
    fitted = in_time.fitted(found.plan) if in_time else None
    if options.time or in_time:  # a target in time is never delivered without one
        shaped = replace(original, shapes=dependencies.model.shapes)
        facts_in_time = fitted, shaped, done.model, timing_feeds(original, feeds, options), options, observe
        done = replace(done, report=timed(done.report, *facts_in_time))
    return delivered(done, output, observe, receive)


def reported(
    original: Model, dependencies: Dependencies, found: Verified, output: Path, scores: Scores | None
) -> Report:
    """The report of a plan that was carried out, before anything was timed. It names what the input file names."""
    names = (str(original.path or "model"), str(output))
    gone = removal(dependencies, found.removed)
    facts = (found.plan, found.removed, gone, found.equivalence)
    return make_report(dependencies, *facts, isolated=found.isolated, names=names, scores=scores)


def refitted(
    done: Pruned,
    dependencies: Dependencies,
    removed: Array,
    samples: Sequence[Feeds],
    options: Options,
    observe: Observer,
) -> Pruned:
    """With weights refitted to the samples. It comes after verification: masked and pruned agree up to here only."""
    if not samples or options.recover is False or done.report.lossless:
        return done
    how = partial(recover, threads=options.threads, seed=options.seed, observe=observe)
    found = how(dependencies, removed, done.model, samples)
    return replace(done, model=found.model, report=replace(done.report, recovery=found))


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
