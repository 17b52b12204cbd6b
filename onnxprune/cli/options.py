"""The options that commands share. Law: an option has one name and one meaning, whichever command takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

In = Annotated[Path, typer.Argument(metavar="IN.onnx", help="The exported model. It is never changed.")]
Out = Annotated[Path, typer.Option("--output", "-o", metavar="OUT.onnx", help="Where the pruned model goes.")]
Ratio = Annotated[float | None, typer.Option(help="Share of channels to remove, in (0, 1). The default is 0.3.")]
Macs = Annotated[float | None, typer.Option(help="Share of multiply-accumulates to keep, in (0, 1).")]
Params = Annotated[float | None, typer.Option(help="Share of parameters to keep, in (0, 1).")]
Speedup = Annotated[
    float | None, typer.Option(metavar="S", help="Speedup to reach on this machine, measured: 2 is half the time.")
]
LatencyMs = Annotated[
    float | None, typer.Option(metavar="T", help="Milliseconds of one inference to reach on this machine, measured.")
]
BestEffort = Annotated[
    bool, typer.Option("--best-effort", help="Where a time is out of reach, take the best that was measured.")
]
Batch = Annotated[int, typer.Option(min=1, help="Samples in one timed inference.")]
Ep = Annotated[str, typer.Option(metavar="cpu|cuda|tensorrt", help="Execution provider to time on.")]
Criterion = Annotated[
    str,
    typer.Option(
        metavar="auto|l1|l2|reconstruction",
        help="How filters are ranked: by their norm, or by what their readers lose on --data when all others make up "
        "for it (reconstruction). auto: reconstruction with --data, else l1.",
    ),
]
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
    typer.Option(
        metavar="X.npz",
        help="Typical inputs, unlabelled, by input name, to rank filters, recover accuracy, verify and time on. "
        "A few hundred are enough. Without them: filters' norms, no recovery, random inputs.",
    ),
]
Recover = Annotated[
    bool | None,
    typer.Option(
        "--recover/--no-recover",
        help="Refit the weights that are left to what the dense model computes on --data. On by default if there are "
        "enough samples.",
    ),
]
Samples = Annotated[int, typer.Option(min=1, help="Samples of --data to rank filters and refit weights on, at most.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of random inputs and of the order of timing.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads onnxruntime uses inside one operator.")]
PlanOut = Annotated[Path | None, typer.Option(metavar="P.json", help="Write the plan: editable, replayed by 'apply'.")]
ReportOut = Annotated[Path | None, typer.Option("--report", metavar="R.json", help="Write the report (.md: Markdown).")]
HtmlOut = Annotated[Path | None, typer.Option("--html", metavar="R.html", help="Write the report as a web page.")]
Dead = Annotated[
    bool,
    typer.Option(
        "--dead",
        help="Remove the units that no output depends on: zero filters, channels nobody reads, ReLUs that never fire. "
        "Lossless, and nothing else goes without a target; with one, they go first.",
    ),
]
NoBench = Annotated[bool, typer.Option("--no-bench", help="Do not time the models.")]
ThroughNorms = Annotated[
    bool, typer.Option("--through-norms", help="Prune channels that are normalised over, too: approximate, not exact.")
]
Force = Annotated[bool, typer.Option("--force", help="Write OUT.onnx even if it is not measurably faster.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace OUT.onnx if it exists.")]
Strict = Annotated[bool, typer.Option("--strict", help="Fail where a layer fails, instead of leaving it whole.")]
Folder = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the results go.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


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
