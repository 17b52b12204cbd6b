"""The command line. Law: a command turns its options into one call of the pipeline and prints the result, nothing more.

Exit codes: 0 done, 1 an error that onnxprune names in one line, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from onnxprune import pipeline
from onnxprune.bench import FULL, QUICK
from onnxprune.bench import bench as time_models
from onnxprune.demo import WRITTEN, run_demo
from onnxprune.errors import OnnxpruneError, OutputError, debugging, described
from onnxprune.model import data_files, write_atomic
from onnxprune.plan import Limits, Plan, Target
from onnxprune.report import inspection, markdown, operators, terminal, words
from onnxprune.report.data import version

DISK = "check the disk's free space and permissions, and run again"

app = typer.Typer(
    name="onnxprune",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Prune exported .onnx models: physically smaller tensors, proof that the surgery is right, measured speedup.",
    epilog="Start with: onnxprune demo. Then: onnxprune prune model.onnx -o small.onnx --macs 0.5",
)

In = Annotated[Path, typer.Argument(metavar="IN.onnx", help="The exported model. It is never changed.")]
Out = Annotated[Path, typer.Option("--output", "-o", metavar="OUT.onnx", help="Where the pruned model goes.")]
Ratio = Annotated[float | None, typer.Option(help="Share of channels to remove, in (0, 1). The default is 0.3.")]
Macs = Annotated[float | None, typer.Option(help="Share of multiply-accumulates to keep, in (0, 1).")]
Params = Annotated[float | None, typer.Option(help="Share of parameters to keep, in (0, 1).")]
Criterion = Annotated[str, typer.Option(help="How filters are ranked: l1 or l2 norm.")]
Scope = Annotated[str, typer.Option(help="local: the same ratio everywhere. global: layers compete.")]
Align = Annotated[str, typer.Option(metavar="auto|N", help="Widths are multiples of N; auto measures what pays.")]
MaxRatio = Annotated[
    float | None,
    typer.Option(help="Largest share a group may lose. The default is all but one channel; 0.9 if global."),
]
Skip = Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Leave matching tensors or nodes whole.")]
LayerRatio = Annotated[
    list[str] | None, typer.Option(metavar="GLOB=R", help="Remove this share of matching layers, whatever the target.")
]
Rows = Annotated[
    str,
    typer.Option(
        metavar="auto|equal|whole",
        help="Grouped convolutions and attention heads lose equal numbers from each, or whole ones. "
        "auto: whole convolution groups where widths are aligned, equal numbers elsewhere.",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(metavar="X.npz", help="Samples to verify and time on, by input. The default is random ones."),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of random inputs and of the order of timing.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads onnxruntime uses inside one operator.")]
Ep = Annotated[str, typer.Option(metavar="cpu|cuda|tensorrt", help="Execution provider to time on.")]
PlanOut = Annotated[Path | None, typer.Option(metavar="P.json", help="Write the plan: editable, replayed by 'apply'.")]
ReportOut = Annotated[Path | None, typer.Option("--report", metavar="R.json", help="Write the report (.md: Markdown).")]
NoBench = Annotated[bool, typer.Option("--no-bench", help="Do not time the models.")]
ThroughNorms = Annotated[
    bool, typer.Option("--through-norms", help="Prune channels that are normalised over, too: approximate, not exact.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace OUT.onnx if it exists.")]
Strict = Annotated[bool, typer.Option("--strict", help="Fail where a layer fails, instead of leaving it whole.")]
Folder = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the results go.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


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
    criterion: Criterion = "l1",
    scope: Scope = "local",
    align: Align = "auto",
    max_ratio: MaxRatio = None,
    skip: Skip = None,
    layer_ratio: LayerRatio = None,
    rows: Rows = "auto",
    data: Data = None,
    seed: Seed = 0,
    threads: Threads = 1,
    ep: Ep = "cpu",
    plan_out: PlanOut = None,
    report: ReportOut = None,
    through_norms: ThroughNorms = False,
    no_bench: NoBench = False,
    overwrite: Overwrite = False,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Prune a model, verify the result, and time it against the original."""
    layers = parse_layers(layer_ratio or [])
    target = Target(0.3 if (ratio, macs, params) == (None,) * 3 and not layers else ratio, macs, params)
    limits = Limits(scope, 1, max_ratio, tuple(skip or ()), layers, rows)
    check_side_files([model, output, data], [plan_out, report])
    common = (criterion, parse_align(align), data, seed, threads, not no_bench, overwrite)
    options = pipeline.Options(*common, strict, through_norms, ep)
    receive = partial(write_files, plan_out, report)
    with progress() as observe:
        done = pipeline.prune(model, output, target, limits, options, observe=observe, receive=receive)
    finish(done, as_json)


@app.command()
def apply(
    model: In,
    plan: Annotated[Path, typer.Argument(metavar="P.json", help="A plan written by --plan-out, perhaps edited.")],
    output: Out,
    data: Data = None,
    seed: Seed = 0,
    threads: Threads = 1,
    ep: Ep = "cpu",
    report: ReportOut = None,
    no_bench: NoBench = False,
    overwrite: Overwrite = False,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Carry out a plan on the model it was made for."""
    check_side_files([model, output, data, plan], [report])
    options = pipeline.Options(
        data=data, seed=seed, threads=threads, time=not no_bench, overwrite=overwrite, strict=strict, ep=ep
    )
    receive = partial(write_files, None, report)
    with progress() as observe:
        done = pipeline.apply(model, Plan.load(plan), output, options, observe=observe, receive=receive)
    finish(done, as_json)


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
    batch: Annotated[int, typer.Option(min=1, help="Samples in one call.")] = 1,
    threads: Threads = 1,
    ep: Ep = "cpu",
    seed: Seed = 0,
    processes: Annotated[int | None, typer.Option(min=1, help="Fresh processes. The default is 5.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Time in this process only, for a few seconds.")] = False,
    batches: Annotated[str, typer.Option(metavar="1,4,16", help="Measure throughput at these batch sizes too.")] = "",
    fp16: Annotated[bool, typer.Option("--fp16", help="Convert both models to float16 first (accelerators).")] = False,
    as_json: Json = False,
) -> None:
    """Time two models against each other, interleaved in fresh processes, with an A/A control."""
    how: dict[str, Any] = {"provider": ep, "batch": batch, "threads": threads, "seed": seed, "fp16": fp16}
    how |= {"protocol": QUICK if quick else FULL, "processes": processes, "batches": parse_batches(batches)}
    with progress() as observe:
        found = time_models(before, after, **how, progress=lambda p: observe("time", p))
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
    else:
        show(terminal.comparison_view(found))


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


def parse_align(text: str) -> int | None:
    """The value of --align: None for auto.

    Raises:
        typer.BadParameter: Neither `auto` nor a positive number.
    """
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"'{text}' is neither 'auto' nor a positive number", param_hint="--align")
    return int(text)


def parse_batches(text: str) -> tuple[int, ...]:
    """The value of --batches.

    Raises:
        typer.BadParameter: It is no list of positive numbers.
    """
    parts = [part.strip() for part in text.split(",")] if text else []
    if not all(part.isdecimal() and int(part) for part in parts):
        raise typer.BadParameter(f"'{text}' is no list of sizes, e.g. 1,4,16", param_hint="--batches")
    return tuple(int(part) for part in parts)


def parse_layers(pairs: list[str]) -> tuple[tuple[str, float], ...]:
    """The values of --layer-ratio.

    Raises:
        typer.BadParameter: One has not the form GLOB=R.
    """
    found = []
    for pair in pairs:
        glob, _, ratio = pair.rpartition("=")
        try:
            found.append((glob, float(ratio)))
        except ValueError:
            glob = ""
        if not glob:
            raise typer.BadParameter(f"'{pair}' is not GLOB=RATIO, e.g. 'layer1.*=0.5'", param_hint="--layer-ratio")
    return tuple(found)


def check_side_files(taken: Sequence[Path | None], wanted: Sequence[Path | None]) -> None:
    """Refuse plan and report paths that are another file of this run, or not writable, before any work."""
    used = {path.resolve() for path in taken if path}
    if any(wanted):  # weights kept beside a model are its own, too
        used |= {path.with_name(f"{path.name}.data") for path in used}
        used |= data_files(taken[0]) if taken[0] else set()
    for path in filter(None, wanted):
        if path.resolve() in used:
            raise OutputError("would overwrite another file of this run", where=str(path), remedy="name another file")
        pipeline.refuse_special(path)
        pipeline.check_folder(path)
        used.add(path.resolve())


def write_files(plan_out: Path | None, report: Path | None, done: pipeline.Pruned) -> None:
    """Write the side files that were asked for."""
    if plan_out is not None:
        done.plan.save(plan_out)
    if report is not None:
        as_markdown = report.suffix.lower() in (".md", ".markdown")
        write_atomic(report, markdown.to_markdown(done.report) if as_markdown else report_json(done))


def finish(done: pipeline.Pruned, as_json: bool) -> None:
    """Print the result, and a warning where groups were left whole."""
    if as_json:
        typer.echo(report_json(done), nl=False)
    else:
        show(terminal.report_view(done.report))
    if done.report.isolated:
        typer.echo(f"onnxprune: warning: {words.printable(words.isolated(done.report.isolated))}", err=True)


def report_json(done: pipeline.Pruned) -> str:
    """The report as JSON text."""
    return json.dumps(done.report.to_dict(), indent=2) + "\n"


def show(view: RenderableType) -> None:
    """Print to standard output, without colour in a pipe."""
    Console(highlight=False).print(view)


@contextmanager
def progress() -> Iterator[pipeline.Observer]:
    """A progress bar on standard error where that is a terminal; silence elsewhere."""
    console = Console(stderr=True)
    if not (sys.stderr.isatty() and console.is_terminal):  # rich takes a pipe for a terminal where FORCE_COLOR is set
        with interruptible():
            yield pipeline.silent
        return
    columns: list[Any] = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()]
    with interruptible(), Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("start", total=1.0)

        def observe(stage: str, done: float) -> None:
            bar.update(task, description=stage, completed=done, total=1.0 if done else None)

        yield observe


@contextmanager
def interruptible() -> Iterator[None]:
    """Say what an interrupt left behind; typer would end without a word."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("onnxprune: interrupted; nothing half-written was left", err=True)
        sys.exit(130)


def reserve_stdout() -> None:
    """Keep standard output for results: native libraries write warnings there, so theirs goes to standard error."""
    try:
        if sys.stdout.fileno() != 1:
            return
        sys.stdout.flush()
        ours = os.dup(1)
        os.dup2(2, 1)
    except (AttributeError, OSError, ValueError):  # closed, or replaced by something that is no file
        return
    sys.stdout = open(ours, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)  # noqa: SIM115, PTH123


def main() -> None:
    """Run the command line; every failure is one line and an exit code."""
    reserve_stdout()
    try:
        app()
    except OnnxpruneError as error:
        fail(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left; say nothing more
        sys.exit(1)
    except OSError as error:  # a full disk, a file taken away meanwhile: not ours, and not a bug
        fail(str(OutputError(error.strerror or str(error), where=str(error.filename or ""), remedy=DISK)))
    except Exception as error:  # the last resort: users see one line, developers set the variable
        if debugging():
            raise
        fail(f"internal error, {described(error)}; please report it with the output of ONNXPRUNE_DEBUG=1")


def fail(line: str) -> None:
    """Print an error line and exit with 1."""
    typer.echo(f"onnxprune: {line}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
