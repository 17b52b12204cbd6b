"""The command `sweep`. Law: what a plan depends on means what it means to `prune`; `--dead` has no place here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from onnxprune import pipeline
from onnxprune import sweep as sweeping
from onnxprune.cli.commands import app, check_side_files
from onnxprune.cli.console import progress, show
from onnxprune.cli.options import (
    Align,
    Allocate,
    Criterion,
    Data,
    Gradients,
    HtmlOut,
    In,
    Json,
    LayerRatio,
    MaxRatio,
    Memory,
    NoBench,
    Preprocessing,
    Recover,
    Recovery,
    Rows,
    Samples,
    Script,
    Seed,
    Sensitivity,
    Skip,
    Steps,
    Strict,
    Threads,
    ThroughNorms,
    parse_align,
    parse_layers,
    parse_memory,
)
from onnxprune.errors import OutputError, PlanError
from onnxprune.model import write_atomic
from onnxprune.plan import Limits
from onnxprune.report import words
from onnxprune.report.front import front_view
from onnxprune.report.html import front_html, require

DEFAULT = "0.1:0.9:0.1"
FORM = "FIRST:LAST:STEP|A,B,.."

Folder = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the results go.")]
Ratios = Annotated[
    str | None, typer.Option(metavar=FORM, help=f"Shares of channels to remove. The default is {DEFAULT}.")
]
Macs = Annotated[
    str | None, typer.Option(metavar=FORM, help="Shares of MACs (multiplications, each with an addition) to keep.")
]
Params = Annotated[str | None, typer.Option(metavar=FORM, help="Shares of parameters to keep.")]
Speedups = Annotated[str | None, typer.Option(metavar=FORM, help="Speedups to reach, measured one at a time.")]
Jobs = Annotated[
    int | None, typer.Option(min=1, help="Candidates at a time. The default is one for each core, or cluster worker.")
]
Backend = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Who works on candidates: processes (loky), threads (threading), or a cluster (dask, ray). On a cluster "
        "IN.onnx, DIR and the files of other options must be on a disk that all machines share. Timings are always "
        "taken here, alone.",
    ),
]
Scheduler = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Of a running dask scheduler or ray cluster; else one is started.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Start over in DIR, instead of doing only what is missing.")
]


@app.command()
def sweep(
    model: In,
    output: Folder,
    ratios: Ratios = None,
    macs: Macs = None,
    params: Params = None,
    speedups: Speedups = None,
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
    recover: Recover = None,
    recovery: Recovery = "auto",
    samples: Samples = 1024,
    memory: Memory = 2.0,
    seed: Seed = 0,
    threads: Threads = 1,
    through_norms: ThroughNorms = False,
    strict: Strict = False,
    script: Script = None,
    no_bench: NoBench = False,
    jobs: Jobs = None,
    backend: Backend = "loky",
    scheduler: Scheduler = None,
    overwrite: Overwrite = False,
    html: HtmlOut = None,
    as_json: Json = False,
) -> None:
    """Prune to many targets and find the front of speed, size and fidelity. Run it again to go on after a stop."""
    wanted = parse_targets(ratios, macs, params, speedups)
    check_page([model, data, script, gradients, sensitivity], html, output)
    limits = Limits(1, max_ratio, tuple(skip or ()), parse_layers(layer_ratio or []), rows)
    common = (criterion, parse_align(align), data, seed, threads)
    given: dict[str, Any] = {"recover": recover, "samples": samples, "preprocess": preprocess}
    given |= {"recovery": recovery, "memory": parse_memory(memory)}
    given |= {"allocate": allocate, "sensitivity": sensitivity, "steps": steps, "gradients": gradients}
    options = pipeline.Options(*common, strict=strict, through_norms=through_norms, **given)
    settings = sweeping.Settings(sweeping.Pool(backend, jobs, scheduler), script, not no_bench, overwrite)
    with progress() as observe:
        found = sweeping.sweep(model, output, wanted, limits, options, settings, observe=observe)
    if html:
        write_atomic(html, front_html(found.front))
    finish(found, output, html, as_json)


def check_page(taken: list[Path | None], page: Path | None, folder: Path) -> None:
    """Refuse a page that is another file of this run, or cannot be written; the sweep's folder need not exist yet.

    Raises:
        OutputError: See above, or it lies in the folder and may be a file of the sweep, of which none ends in .html.
    """
    if page is None:
        return
    place, inside = page.resolve(), folder.resolve()
    if place.is_relative_to(inside) and (place == inside or page.suffix.lower() not in (".html", ".htm")):
        what = "the page may replace a file of the sweep"
        raise OutputError(what, where=str(page), remedy="end its name in .html, or name another folder")
    if place.parent == inside and not folder.exists():
        require()
    else:
        check_side_files(taken, [], page)


def parse_targets(
    ratios: str | None, macs: str | None, params: str | None, speedups: str | None
) -> tuple[sweeping.Candidate, ...]:
    """The candidates that were asked for.

    Raises:
        typer.BadParameter: A value is no number or range, or no target.
    """
    given = {"ratio": ratios, "macs": macs, "params": params, "speedup": speedups}
    names = {"ratio": "--ratios", "macs": "--macs", "params": "--params", "speedup": "--speedups"}
    found: list[sweeping.Candidate] = []
    for kind, text in given.items():
        text = DEFAULT if kind == "ratio" and not any(given.values()) else text
        if text is None:
            continue
        try:
            found += sweeping.candidates({kind: sweeping.numbers(text)})
        except (ValueError, PlanError) as error:
            raise typer.BadParameter(str(error), param_hint=names[kind]) from error
    return tuple(found)


def finish(found: sweeping.Sweep, folder: Path, html: Path | None, as_json: bool) -> None:
    """Print the front, and what was not done again."""
    if as_json:
        typer.echo(json.dumps(found.details, indent=2))
    else:
        show(front_view(found.front))
        show(f"Wrote sweep.json, sweep.md, sweep.csv and the models to {folder}" + (f", {html}" if html else ""))
    if found.reused:
        steps, before = words.plural(found.done, "step"), f"{found.reused:,}"
        typer.echo(f"onnxprune: resumed: {before} steps were finished before, {steps} done now", err=True)
