"""The command `sensitivity`. Law: what it shows is what `prune --allocate sensitivity` goes by."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from onnxprune import pipeline
from onnxprune.cli.commands import app, check_side_files
from onnxprune.cli.console import progress, show
from onnxprune.cli.options import (
    Criterion,
    Gradients,
    HtmlOut,
    In,
    Json,
    Preprocessing,
    Rows,
    Samples,
    Script,
    Seed,
    Threads,
    ThroughNorms,
)
from onnxprune.errors import DataError, PlanError
from onnxprune.metric import metric_of
from onnxprune.model import Model, write_atomic
from onnxprune.report.curves import curves_csv, curves_view
from onnxprune.report.html import curves_html, require
from onnxprune.report.svg import curves_svg
from onnxprune.sensitivity import Curves
from onnxprune.sweep import numbers
from onnxprune.sweep.folder import file_hash

DEFAULT = "0.1:0.9:0.1"
Data = Annotated[
    Path,
    typer.Option(
        metavar="PATH",
        help="Typical inputs: an .npz with arrays named after the model's inputs, a folder of .npy files or of images, "
        "or a Python file with def batches(). Outputs are compared on 256 of them, spread over all.",
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The class of each sample, for accuracy: an array of the .npz of --data, or an .npy file in its order.",
    ),
]
Ratios = Annotated[str, typer.Option(metavar="FIRST:LAST:STEP|A,B,..", help="Shares of a group's channels to remove.")]
Macs = Annotated[float, typer.Option(help="Share of MACs to keep, to recommend ratios for.")]
Table = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="S.json", help="Write the curves, for --sensitivity; .csv too.")
]
Picture = Annotated[Path | None, typer.Option(metavar="S.svg", help="Write the curves as a picture.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Measure again what is remembered.")]


@app.command()
def sensitivity(
    model: In,
    data: Data,
    preprocess: Preprocessing = None,
    output: Table = None,
    labels: Labels = None,
    script: Script = None,
    ratios: Ratios = DEFAULT,
    criterion: Criterion = "auto",
    gradients: Gradients = None,
    macs: Macs = 0.5,
    samples: Samples = 1024,
    rows: Rows = "auto",
    seed: Seed = 0,
    threads: Threads = 1,
    through_norms: ThroughNorms = False,
    fresh: Fresh = False,
    picture: Picture = None,
    html: HtmlOut = None,
    as_json: Json = False,
) -> None:
    """Cut each group alone and see what the outputs lose. Run it again to go on after a stop."""
    check_side_files([model, data, script, gradients], [output, picture], html)
    check_picture(picture)
    grid = parse_ratios(ratios)
    common = {"criterion": criterion, "data": data, "seed": seed, "threads": threads, "samples": samples}
    common |= {"preprocess": preprocess, "through_norms": through_norms, "gradients": gradients}
    options = pipeline.Options(**common)  # type: ignore[arg-type]
    classes = pipeline.read_labels(data, labels) if labels else None
    wanted = pipeline.Wanted(grid, classes, *scored_by(script, threads), fresh)
    with progress() as observe:
        found = pipeline.sensitivity(model, options, wanted, rows=rows, macs=macs, observe=observe)
    written(found, output, picture, html)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
    else:
        show(curves_view(found))


def check_picture(picture: Path | None) -> None:
    """Refuse a picture whose name promises another format.

    Raises:
        typer.BadParameter: It does.
    """
    if picture is not None and picture.suffix.lower() != ".svg":
        raise typer.BadParameter(f"'{picture}' is drawn as SVG: end its name in .svg", param_hint="--picture")


def parse_ratios(text: str) -> tuple[float, ...]:
    """The grid.

    Raises:
        typer.BadParameter: It is no list of shares.
    """
    try:
        found = tuple(sorted(numbers(text)))
        if not found or not all(0 < ratio < 1 for ratio in found):
            raise ValueError(f"'{text}' is not between 0 and 1, e.g. {DEFAULT}")
    except (ValueError, PlanError) as error:
        raise typer.BadParameter(str(error), param_hint="--ratios") from error
    return found


def scored_by(script: Path | None, threads: int) -> tuple[Callable[[Model], float] | None, str]:
    """The user's metric of a model, which is written to a file for the process that the script runs in; its key."""
    if script is None:
        return None, ""
    if not script.is_file():
        raise DataError("the script of --eval is not a file", where=str(script), remedy="check the path")

    return partial(metric_of, script, threads=threads), file_hash(script)


def written(found: Curves, output: Path | None, picture: Path | None, page: Path | None) -> None:
    """Write what was asked for, and say what is missing."""
    if found.macs is None:
        typer.echo("onnxprune: no ratios are recommended: --macs cannot be met by these groups", err=True)
    if output is not None:
        as_table = output.suffix.lower() == ".csv"
        write_atomic(output, curves_csv(found) if as_table else json.dumps(found.to_dict(), indent=1) + "\n")
    if picture is not None:
        write_atomic(picture, curves_svg(found))
    if page is not None:
        require()
        write_atomic(page, curves_html(found))
