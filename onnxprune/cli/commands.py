"""The commands. Law: a command turns its options into one call of the pipeline and prints the result, nothing more."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer

from onnxprune import pipeline
from onnxprune.bench import FULL, QUICK
from onnxprune.bench import bench as time_models
from onnxprune.cli.console import progress, show
from onnxprune.cli.options import (
    Align,
    Allocate,
    Batch,
    BestEffort,
    Criterion,
    Data,
    Dead,
    Ep,
    Folder,
    Force,
    Gradients,
    HtmlOut,
    In,
    Json,
    LatencyMs,
    LayerRatio,
    Macs,
    MaxRatio,
    Memory,
    NoBench,
    Out,
    Overwrite,
    Params,
    PlanOut,
    Preprocessing,
    Ratio,
    Recover,
    Recovery,
    ReportOut,
    Rows,
    Samples,
    Script,
    Seed,
    Sensitivity,
    Skip,
    Speedup,
    Steps,
    Strict,
    Threads,
    Threshold,
    ThroughNorms,
    parse_align,
    parse_batches,
    parse_layers,
    parse_memory,
)
from onnxprune.demo import WRITTEN, run_demo
from onnxprune.errors import OutputError
from onnxprune.gains import profile_files, refuse_elsewhere
from onnxprune.model import data_files, write_atomic
from onnxprune.outputs import check_folder, refuse_special
from onnxprune.plan import Limits, Plan, Target
from onnxprune.report import criteria as criteria_table
from onnxprune.report import html as webpage
from onnxprune.report import inspection, markdown, operators, terminal, words
from onnxprune.report.data import version
from onnxprune.report.gains import gains_view
from onnxprune.report.staircase import profile_view

app = typer.Typer(
    name="onnxprune",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Prune exported .onnx models: physically smaller tensors, proof that the surgery is right, measured speedup.",
    epilog="Start with: onnxprune demo. Then: onnxprune prune model.onnx -o small.onnx --macs 0.5",
)


def show_version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        typer.echo(f"onnxprune {version()}")
        raise typer.Exit


@app.callback()
def root(
    _: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="Version.")] = False,
) -> None:
    """Options of onnxprune itself."""


@app.command()
def prune(
    model: In,
    output: Out,
    ratio: Ratio = None,
    macs: Macs = None,
    params: Params = None,
    speedup: Speedup = None,
    latency_ms: LatencyMs = None,
    threshold: Threshold = None,
    criterion: Criterion = "auto",
    allocate: Allocate = "auto",
    sensitivity: Sensitivity = None,
    steps: Steps = 1,
    align: Align = "auto",
    max_ratio: MaxRatio = None,
    skip: Skip = None,
    layer_ratio: LayerRatio = None,
    rows: Rows = "auto",
    data: Data = None,
    gradients: Gradients = None,
    preprocess: Preprocessing = None,
    script: Script = None,
    recover: Recover = None,
    recovery: Recovery = "auto",
    samples: Samples = 1024,
    memory: Memory = 2.0,
    dead: Dead = False,
    seed: Seed = 0,
    threads: Threads = 1,
    plan_out: PlanOut = None,
    report: ReportOut = None,
    through_norms: ThroughNorms = False,
    no_bench: NoBench = False,
    batch: Batch = 1,
    best_effort: BestEffort = False,
    force: Force = False,
    html: HtmlOut = None,
    ep: Ep = "cpu",
    overwrite: Overwrite = False,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Prune a model, verify the result, and time it against the original."""
    target = requested(ratio, macs, params, speedup, latency_ms, threshold)
    limits = Limits(1, max_ratio, tuple(skip or ()), parse_layers(layer_ratio or []), rows)
    check_side_files([model, output, data, script, gradients, sensitivity], [plan_out, report], html)
    common = (criterion, parse_align(align), data, seed, threads, not no_bench, overwrite, strict, through_norms)
    options = pipeline.Options(*common, best_effort, batch, None, force, bool(report or html), ep, recover, samples)
    options = replace(options, preprocess=preprocess, script=script, gradients=gradients)
    options = replace(options, allocate=allocate, sensitivity=sensitivity, steps=steps)
    options = replace(options, recovery=recovery, memory=parse_memory(memory), dead=dead)
    deliver(partial(pipeline.prune, model, output, target, limits, options), plan_out, report, html, as_json)


@app.command()
def apply(
    model: In,
    plan: Annotated[Path, typer.Argument(metavar="P.json", help="A plan written by --plan-out, perhaps edited.")],
    output: Out,
    data: Data = None,
    preprocess: Preprocessing = None,
    script: Script = None,
    recover: Recover = None,
    recovery: Recovery = "auto",
    samples: Samples = 1024,
    memory: Memory = 2.0,
    seed: Seed = 0,
    threads: Threads = 1,
    report: ReportOut = None,
    no_bench: NoBench = False,
    force: Force = False,
    html: HtmlOut = None,
    ep: Ep = "cpu",
    overwrite: Overwrite = False,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Carry out a plan on the model it was made for."""
    check_side_files([model, output, data, plan, script], [report], html)
    common = (data, seed, threads, not no_bench, overwrite, strict)
    settings = pipeline.Options("l1", None, *common, force=force, explain=bool(report or html), ep=ep)
    told = partial(replace, settings, samples=samples, preprocess=preprocess, script=script)
    options = told(recover=recover, recovery=recovery, memory=parse_memory(memory))
    deliver(partial(pipeline.apply, model, Plan.load(plan), output, options), None, report, html, as_json)


@app.command()
def inspect(
    model: In,
    why: Annotated[str | None, typer.Option(metavar="NAME", help="Explain one tensor or node.")] = None,
    through_norms: ThroughNorms = False,
    as_json: Json = False,
) -> None:
    """Show what can be pruned, and for everything else why not."""
    with progress() as observe:
        _, found = pipeline.prepare(model, observe, through_norms=through_norms)
    if as_json:
        typer.echo(json.dumps(inspection.inspect_dict(found, why), indent=2))
    else:
        show(terminal.inspect_view(found) if why is None else terminal.why_view(found, why))


@app.command()
def bench(
    before: Annotated[Path, typer.Argument(metavar="A.onnx", help="The dense model.")],
    after: Annotated[Path, typer.Argument(metavar="B.onnx", help="The pruned model.")],
    batch: Batch = 1,
    threads: Threads = 1,
    ep: Ep = "cpu",
    seed: Seed = 0,
    processes: Annotated[int | None, typer.Option(min=1, help="Fresh processes. The default is 5.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Time in this process only, for a few seconds.")] = False,
    batches: Annotated[str, typer.Option(metavar="1,4,16", help="Measure throughput at these batch sizes too.")] = "",
    fp16: Annotated[bool, typer.Option("--fp16", help="Convert both models to float16 first (accelerators).")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Show the time per operator and layer, too.")] = False,
    as_json: Json = False,
) -> None:
    """Time two models against each other, interleaved in fresh processes, with an A/A control."""
    how: dict[str, Any] = {"provider": ep, "batch": batch, "threads": threads, "seed": seed, "fp16": fp16}
    how |= {"protocol": QUICK if quick else FULL, "processes": processes, "batches": parse_batches(batches)}
    if profile:  # before minutes of timing, not after
        refuse_elsewhere(ep)
    with progress() as observe:
        found = time_models(before, after, **how, progress=lambda p: observe("time", p))
        spent = profile_files(before, after, ep, batch, threads, seed) if profile else None
    if as_json:
        typer.echo(json.dumps(found.to_dict() | (spent.to_dict() if spent else {}), indent=2))
        return
    show(terminal.comparison_view(found))
    if spent:
        show(gains_view(spent, found))


@app.command()
def profile(
    model: In,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="T.json", help="Write the table.")] = None,
    ep: Ep = "cpu",
    threads: Threads = 1,
    batch: Batch = 1,
    align: Align = "auto",
    through_norms: ThroughNorms = False,
    seed: Seed = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again what is remembered.")] = False,
    as_json: Json = False,
) -> None:
    """Measure what the width of each group costs on this machine. 'prune --speedup' uses what is found."""
    check_side_files([model], [output])
    common = (parse_align(align), ep, threads, batch, seed, through_norms, not fresh)
    with progress() as observe:
        found = pipeline.profile(model, *common, observe=observe)
    if output:
        write_atomic(output, json.dumps(found.to_dict()) + "\n")
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
    else:
        show(profile_view(found))


@app.command()
def ops(
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
) -> None:
    """List the operators with a rule; all others freeze what they touch."""
    if as_markdown:
        typer.echo(operators.ops_markdown())
    else:
        show(terminal.ops_view())


@app.command()
def criteria(
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
) -> None:
    """List the criteria of --criterion: what each needs, what it computes, and where it was published."""
    if as_markdown:
        typer.echo(criteria_table.criteria_markdown())
    else:
        show(criteria_table.criteria_view())


@app.command()
def demo(
    folder: Folder = Path("onnxprune-demo"),
    threads: Threads = 1,
) -> None:
    """Prune the bundled digits model: verify, time, and print its accuracy before and after."""
    with progress() as observe:
        done = run_demo(model_folder(), folder, threads=threads, observe=observe)
    show(terminal.report_view(done.report))
    show(f"Wrote {', '.join(str(folder / name) for name in WRITTEN)}")


def model_folder() -> Path:
    """Where the bundled model lies: inside an installed package, or beside it in a source tree."""
    packaged = Path(str(files("onnxprune"))) / "_demo"
    return packaged if packaged.is_dir() else packaged.parent.parent / "models"


def check_side_files(taken: Sequence[Path | None], wanted: Sequence[Path | None], page: Path | None = None) -> None:
    """Refuse plan and report paths that are another file of this run, or not writable, before any work."""
    if page is not None:
        webpage.require()
        wanted = [*wanted, page]
    used = {path.resolve() for path in taken if path}
    if any(wanted):  # weights kept beside a model are its own, too
        used |= {path.with_name(f"{path.name}.data") for path in used}
        used |= data_files(taken[0]) if taken[0] else set()
    for path in filter(None, wanted):
        if path.resolve() in used:
            raise OutputError("would overwrite another file of this run", where=str(path), remedy="name another file")
        refuse_special(path)
        check_folder(path)
        used.add(path.resolve())


def requested(*values: float | None) -> Target | None:
    """The target that was asked for, its values in the order of `Target`'s fields; None where none was."""
    return Target(*values) if any(value is not None for value in values) else None


def deliver(
    run: Callable[..., pipeline.Pruned], plan_out: Path | None, report: Path | None, page: Path | None, as_json: bool
) -> None:
    """Carry out a run of the pipeline under a progress bar, write the side files that were asked for, and print it."""
    with progress() as observe:
        done = run(observe=observe, receive=partial(write_files, plan_out, report, page))
    finish(done, as_json)


def write_files(plan_out: Path | None, report: Path | None, page: Path | None, done: pipeline.Pruned) -> None:
    """Write the side files that were asked for."""
    if plan_out is not None:
        done.plan.save(plan_out)
    if report is not None:
        as_markdown = report.suffix.lower() in (".md", ".markdown")
        write_atomic(report, markdown.to_markdown(done.report) if as_markdown else done.report.to_json())
    if page is not None:
        write_atomic(page, webpage.to_html(done.report))


def finish(done: pipeline.Pruned, as_json: bool) -> None:
    """Print the result, and a warning where groups were left whole."""
    if as_json:
        typer.echo(done.report.to_json(), nl=False)
    else:
        show(terminal.report_view(done.report))
    for doubt in words.doubts(done.report.data):
        typer.echo(f"onnxprune: warning: {words.printable(doubt)}", err=True)
    if done.report.isolated:
        typer.echo(f"onnxprune: warning: {words.printable(words.isolated(done.report.isolated))}", err=True)
