"""The order of the stages. Law: nothing is written before the surgery is verified, and the input is never touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from onnxprune.data import Samples, kind_of
from onnxprune.errors import OnnxpruneError
from onnxprune.fit import Fitted
from onnxprune.gate import judged, refusal
from onnxprune.importance import NOTHING, Evidence, Scores, score
from onnxprune.isolate import Replan, isolate
from onnxprune.metric import metric, metric_of
from onnxprune.model import Array, Model, load, save
from onnxprune.normalise import normalise
from onnxprune.outputs import check_output, check_weights
from onnxprune.pipeline.allocate import Case, allocation, check_allocation
from onnxprune.pipeline.inputs import (
    calibration,
    loss_gradients,
    read_samples,
    recovery,
    sample,
    time_pair,
    timing_feeds,
)
from onnxprune.pipeline.options import DEFAULT_RATIO, Options, Pruned, Receiver, ignore
from onnxprune.pipeline.plans import TimedPlans, not_all, nothing_removed, planned, planner, step_for
from onnxprune.pipeline.steps import SteppedPlans, check_steps
from onnxprune.plan import Limits, Plan, Target
from onnxprune.progress import Observer, silent
from onnxprune.recover import recover
from onnxprune.report import Report, make_report
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
        target: What to reach; a ratio of 0.3 if neither this nor `limits.layer_ratios` says.
        limits: What may be touched; `options.align`, if given, takes the place of its alignment.
        options: Everything else.
        observe: Called with a stage's name and the share of it that is done.
        prepared: What `prepare` gave for the same file and options, if it was called before.
        data: What `read_samples` gave for the same file and options, if it was called before.
        receive: Called with the result once it is saved, or refused for not being faster.

    Raises:
        OnnxpruneError: See its subclasses; nothing has been written then. `receive` got the result of a NoSpeedup.
    """
    options, limits = options or Options(), limits or Limits()
    target = target or (None if limits.layer_ratios else Target(ratio=DEFAULT_RATIO))
    check_options(options, target, limits)
    original, dependencies = opened(Path(source), Path(output), options, observe, prepared)
    step = options.align or (limits.align if limits.align > 1 else None)
    limits = replace(limits, align=step or step_for(options, observe))
    given = gathered(Path(source), original, options, observe, data)
    rank = partial(ranked, dependencies, given.batches, options, observe)
    how, fixed = (given, target, limits, options, observe), step is not None
    chosen, replan, scores = planned(rank, lambda s: replanner(original, dependencies, s, *how, fixed=fixed))
    carried = chosen, Path(output), options, observe, receive, replan, scores, given
    return carry_out(original, dependencies, *carried)


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
    options = prepared_as(replace(options or Options(), through_norms=chosen.through_norms), chosen)
    original, dependencies = opened(Path(source), Path(output), options, observe)
    given = gathered(Path(source), original, options, observe)
    facts = chosen, Path(output), options, observe, receive, None, ranked_by(dependencies, chosen), given
    return carry_out(original, dependencies, *facts)


def opened(
    source: Path,
    output: Path,
    options: Options,
    observe: Observer,
    prepared: tuple[Model, Dependencies] | None = None,
) -> tuple[Model, Dependencies]:
    """The model, loaded and traced, once nothing speaks against the output or the provider."""
    provider_name(options.ep)  # refuse one that is absent before any work
    check_output(source, output, options.overwrite)
    original, dependencies = prepared or prepare(source, observe, through_norms=options.through_norms)
    check_weights(original, dependencies, output, options.overwrite)
    return original, dependencies


@dataclass(frozen=True, eq=False)
class Given:
    """What the user gave, as the stages need it.

    Attributes:
        samples: Samples, all that were read.
        batches: Those that scores and weights are fitted to; none where there are too few.
        metric: The metric of the dense model.
    """

    samples: Samples | None = None
    batches: Sequence[Feeds] = ()
    metric: float | None = None


def gathered(
    source: Path, original: Model, options: Options, observe: Observer, samples: Samples | None = None
) -> Given:
    """Read the samples, unless that was done, and measure the metric: a script that fails should fail at once."""
    samples, value = samples or read_samples(original, options, observe), None
    batches = calibration(original, options, samples)
    if options.script is not None:
        observe("metric of the dense model", 0.0)
        value = metric(options.script, source, threads=options.threads)
    return Given(samples, batches, value)


def prepared_as(options: Options, chosen: Plan) -> Options:
    """Options with the preprocessing of images that a plan was made with, unless another is asked for."""
    held = chosen.settings.get("preprocess")
    if options.preprocess is not None or options.data is None or not isinstance(held, str):
        return options
    return replace(options, preprocess=held) if kind_of(options.data) == "images" else options


def check_options(options: Options, target: Target | None, limits: Limits) -> None:
    """Refuse what cannot be carried out before any work."""
    check_allocation(options, target)
    check_steps(options, target, limits)


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


def ranked(
    dependencies: Dependencies, samples: Sequence[Feeds], options: Options, observe: Observer, first: Plan | None = None
) -> Scores:
    """The scores to plan by; `first` is a provisional plan, if there is one."""
    observe("score", 0.0)
    name = options.criterion
    if name == "auto":
        name = "reconstruction" if samples and options.recover is not False else "l1"
    how = partial(Evidence, threads=options.threads, memory=options.memory, seed=options.seed, observe=observe)
    removed = first.removed(dependencies) if first else NOTHING
    return score(dependencies, name, how(samples, loss_gradients(options), removed=removed))


def ranked_by(dependencies: Dependencies, chosen: Plan) -> Scores | None:
    """The scores a plan was made from; None where it names no criterion, or one that does not fit these weights."""
    try:
        seed = int(str(chosen.settings.get("seed", 0)))
        evidence = Evidence(seed=seed, removed=chosen.removed(dependencies))
        return score(dependencies, str(chosen.settings.get("criterion")), evidence)
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
    given: Given | None = None,
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
    names = (str(original.path or "model"), str(output))
    gone = removal(dependencies, found.removed)
    facts = (noted(found.plan, given.samples), found.removed, gone, found.equivalence)
    report = make_report(dependencies, *facts, isolated=found.isolated, names=names, scores=scores)
    done = Pruned(found.model, facts[0], replace(report, data=given.samples.about if given.samples else None))
    done = refitted(done, dependencies, found.removed, given.batches, options, observe)
    done = evaluated(done, given.metric, options, observe)
    fitted = in_time.fitted(found.plan) if in_time else None
    if options.time or in_time:  # a target in time is never delivered without one
        shaped = replace(original, shapes=dependencies.model.shapes)
        facts_in_time = fitted, shaped, done.model, timing_feeds(original, feeds, options), options, observe
        done = replace(done, report=timed(done.report, *facts_in_time))
    return delivered(done, output, observe, receive)


def refitted(
    done: Pruned,
    dependencies: Dependencies,
    removed: Array,
    samples: Sequence[Feeds],
    options: Options,
    observe: Observer,
) -> Pruned:
    """With other weights. It comes after verification: masked and pruned agree up to here only."""
    if (method := recovery(options, bool(samples))) is None:
        return done
    how = partial(recover, threads=options.threads, memory=options.memory, seed=options.seed, observe=observe)
    found = how(dependencies, removed, done.model, samples, method=method)
    return replace(done, model=found.model, report=replace(done.report, recovery=found))


def noted(plan: Plan, data: Samples | None) -> Plan:
    """The plan with the preprocessing of the images it was made or carried out with, so that it can be replayed."""
    held = data.about.get("preprocess") if data else None
    return replace(plan, settings={**plan.settings, "preprocess": held}) if held else plan


def evaluated(done: Pruned, dense: float | None, options: Options, observe: Observer) -> Pruned:
    """With the user's metric, of the model that is to be delivered."""
    if options.script is None or dense is None:
        return done
    observe("metric of the pruned model", 0.0)
    value = metric_of(options.script, done.model, threads=options.threads)
    held = {"script": str(options.script), "before": dense, "after": value}
    return replace(done, report=replace(done.report, metric=held))


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
