"""The order of the stages. Law: nothing is written before the surgery is verified, and the input is never touched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from onnxprune.align import width_step
from onnxprune.bench import Comparison, bench
from onnxprune.data import Feeds, batches, load_npz
from onnxprune.errors import DataError, ModelError, OutputError, PlanError, RuntimeUnavailable, VerificationError
from onnxprune.importance import Scores, score
from onnxprune.isolate import Replan, isolate
from onnxprune.model import Model, data_files, is_float, load, save
from onnxprune.normalise import normalise
from onnxprune.plan import Limits, Plan, Target, plan
from onnxprune.report import Report, make_report
from onnxprune.rewrite import removal
from onnxprune.runtime import provider_name, random_feeds, run, session
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
        ep: Execution provider to time on; verification runs on the CPU.
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
    ep: str = "cpu"


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
) -> Pruned:
    """Prune an .onnx file: load, normalise, trace, score, plan, rewrite, verify, save, time.

    Args:
        source: The model file.
        output: Where the pruned model goes.
        target: What to reach; a ratio of 0.3 if neither this nor `limits.layer_ratios` says.
        limits: What may be touched; `options.align`, if given, takes the place of its alignment.
        options: Everything else.
        observe: Called with a stage's name and the share of it that is done.
        receive: Called with the result once it is saved, and again once it is timed, which may fail or take long.

    Raises:
        OnnxpruneError: See its subclasses; nothing has been written then, unless the timing fails.
    """
    options, limits = options or Options(), limits or Limits()
    provider_name(options.ep)  # refuse one that is absent before any work
    if target is None and not limits.layer_ratios:
        target = Target(ratio=DEFAULT_RATIO)
    check_output(Path(source), Path(output), options.overwrite)
    original, dependencies = prepare(source, observe, through_norms=options.through_norms)
    check_weights(original, dependencies, Path(output), options.overwrite)
    given = options.align or (limits.align if limits.align > 1 else None)
    align = given or step_for(options, observe)
    observe("plan", 0.0)
    scores = score(dependencies, options.criterion)
    replan = partial(plan_beside, dependencies, scores, target, replace(limits, align=align), given is not None)
    chosen = replan(())
    return carry_out(original, dependencies, chosen, Path(output), options, observe, receive, replan)


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
    provider_name(options.ep)
    check_output(Path(source), Path(output), options.overwrite)
    original, dependencies = prepare(source, observe, through_norms=chosen.through_norms)
    check_weights(original, dependencies, Path(output), options.overwrite)
    return carry_out(original, dependencies, chosen, Path(output), options, observe, receive)


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
    observe("find the width step", 0.0)
    return width_step(provider=options.ep, threads=options.threads).step


def carry_out(
    original: Model,
    dependencies: Dependencies,
    chosen: Plan,
    output: Path,
    options: Options,
    observe: Observer,
    receive: Receiver,
    replan: Replan | None = None,
) -> Pruned:
    """Rewrite, verify, save and time."""
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
    whole = found.isolated
    report = make_report(dependencies, found.plan, found.removed, gone, found.equivalence, isolated=whole, names=names)
    done = Pruned(found.model, found.plan, report)
    observe("save", 0.0)
    save(found.model, output)
    receive(done)
    if options.time:
        done = replace(done, report=report.timed(time_pair(original, found.model, feeds, options, observe)))
        receive(done)
    return done


def not_all(isolated: Mapping[str, str]) -> VerificationError:
    """The error for groups that fail where all of them were to be pruned."""
    names, first = ", ".join(f"'{name}'" for name in isolated), next(iter(isolated.values()))
    what = f"not all groups can be pruned: {names} ({first})"
    return VerificationError(what, remedy="nothing was written; without --strict they are left whole")


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
    """Time dense against pruned on one sample."""
    one: Sequence[Feeds] = list(batches(original, feeds, size=1, limit=1))
    return bench(
        original,
        pruned,
        feeds={k: np.asarray(v) for k, v in one[0].items()},
        provider=options.ep,
        threads=options.threads,
        seed=options.seed,
        progress=lambda done: observe("time", done),
    )


def check_output(source: Path, output: Path, overwrite: bool) -> None:
    """Refuse outputs that cannot be written, before any work is done.

    Raises:
        OutputError: It is the input, exists, is a directory, or lies in no writable folder.
    """
    if output.exists() and source.exists() and output.samefile(source):
        raise OutputError("the output is the input itself", where=str(output), remedy="name another file with -o")
    refuse_special(output, "the output ")
    if output.exists() and not overwrite:
        raise OutputError("the output exists", where=str(output), remedy="give --overwrite to replace it")
    check_folder(output)


def refuse_special(path: Path, what: str = "") -> None:
    """Refuse directories, devices and pipes: files are put in place by renaming, which would replace them."""
    if path.is_dir():
        raise OutputError(f"{what}is a directory", where=str(path), remedy="name a file in it")
    if path.exists() and not path.is_file():
        raise OutputError(f"{what}is not a regular file", where=str(path), remedy="name a file; --json prints")


def check_weights(original: Model, dependencies: Dependencies, output: Path, overwrite: bool) -> None:
    """Refuse weights that are not numbers, and weight files that would be written over, before any work is done.

    A single NaN may be a constant of the graph, and infinities may be masks; a NaN among other weights is neither.

    Raises:
        ModelError: A weight holds NaN.
        OutputError: A file of weights lies where the output's would go.
    """
    for name, weight in dependencies.model.weights.items():
        if is_float(weight) and weight.size > 1 and np.isnan(weight.min()):
            what, remedy = f"'{name}' holds NaN weights", "export a model with finite weights"
            raise ModelError(what, where=str(original.path or "model"), remedy=remedy)
    if not original.external or original.path is None:
        return
    used, data = data_files(original.path), output.with_name(output.name + ".data")
    if taken := used & {output.resolve(), data.resolve()}:
        what = "the output would replace the input's weights"
        raise OutputError(what, where=str(taken.pop()), remedy="name another file with -o")
    if data.exists() and not overwrite:
        raise OutputError("the output's weights exist", where=str(data), remedy="give --overwrite to replace them")


def check_folder(output: Path) -> None:
    """Refuse a file whose folder is missing or cannot be written."""
    folder = output.resolve().parent
    if not folder.is_dir():
        raise OutputError("the output's folder does not exist", where=str(folder), remedy="create it first")
    probe = folder / f".{output.name}.probe"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        what = f"the output's folder cannot be written ({error.strerror})"
        raise OutputError(what, where=str(folder), remedy="choose another place") from error
