"""The options that commands share. Law: an option has one name and one meaning, whichever command takes it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from onnxprune import pipeline

In = Annotated[Path, typer.Argument(metavar="IN.onnx", help="The exported model. It is never changed.")]
Out = Annotated[Path, typer.Option("--output", "-o", metavar="OUT.onnx", help="Where the pruned model goes.")]
Ratio = Annotated[float | None, typer.Option(help="Share of channels to remove, in (0, 1). The default is 0.3.")]
Macs = Annotated[
    float | None, typer.Option(help="Share of MACs (multiplications, each with an addition) to keep, in (0, 1).")
]
Params = Annotated[float | None, typer.Option(help="Share of parameters to keep, in (0, 1).")]
Threshold = Annotated[
    float | None,
    typer.Option(
        help="Remove filters that score less than this share of their layer's highest score, in (0, 1): for models "
        "trained to sparsity. With --allocate global, of the model's highest."
    ),
]
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
        metavar="NAME",
        help="How filters are ranked; 'onnxprune criteria' lists all. auto: reconstruction, what their readers lose on "
        "--data when all others make up for it; without --data, l1.",
    ),
]
Allocate = Annotated[
    str,
    typer.Option(
        metavar="|".join(pipeline.ALLOCATIONS),
        help="How groups share the cut. uniform: all lose the same share. global: all units compete. sensitivity: by "
        "what the outputs lose when each group is cut alone, measured on --data. redundancy: the layer whose filters "
        "are most alike loses first. auto: where it costs least if scores are errors and the target is --macs, else "
        "uniform.",
    ),
]
Sensitivity = Annotated[
    Path | None, typer.Option(metavar="S.json", help="What 'onnxprune sensitivity -o' wrote, instead of measuring.")
]
Steps = Annotated[
    int, typer.Option(min=1, help="Rounds of pruning, refitting and scoring anew on the way to a target.")
]
Align = Annotated[str, typer.Option(metavar="auto|N", help="Widths are multiples of N; auto measures what pays.")]
MaxRatio = Annotated[
    float | None,
    typer.Option(
        help="Largest share a group may lose. The default is all but one channel; 0.9 with --allocate global."
    ),
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
        metavar="PATH",
        help="Typical inputs, unlabelled, to rank filters, recover accuracy, verify and time on: an .npz (X.npz) with "
        "arrays named after the model's inputs, a folder of .npy files, a folder of images, or a Python file with "
        "def batches(). A few hundred are enough. Without them: filters' norms, no recovery, random inputs.",
    ),
]
Preprocessing = Annotated[
    str | None,
    typer.Option(
        metavar="HOW",
        help="How images of --data become the model's input: a preset (imagenet, clip, inception, 0..1, -1..1, 0..255, "
        "caffe), or keys with commas between them (size=224, resize=256, crop=center or none, interpolation=..., "
        "scale=255, mean= and std= one number or as 0.485:0.456:0.406, layout=NCHW, channels=RGB), or both. What is "
        "left out is read from the model; the report says what was done.",
    ),
]
Script = Annotated[
    Path | None,
    typer.Option(
        "--eval",
        metavar="SCRIPT.py",
        help="Your metric, larger is better: def evaluate(run) -> float, where run({input: array}) gives "
        "{output: array}. It is called in a process of its own for every model.",
    ),
]
Gradients = Annotated[
    Path | None,
    typer.Option(
        metavar="G.npz",
        help="Gradients of the loss by initializer name, for --criterion taylor and hessian: in the shape of the "
        "weight, or with an axis of samples before it (hessian needs that).",
    ),
]
Recover = Annotated[
    bool | None,
    typer.Option(
        "--recover/--no-recover",
        help="Bring the weights that are left near to what the dense model computes. On by default if --data has "
        "enough samples. Without --data: removed filters are merged into the kept ones that are most like them.",
    ),
]
Recovery = Annotated[
    str,
    typer.Option(
        metavar="auto|ridge|statistics|bias|merge",
        help="How: refit all weights (ridge), each channel's mean and deviation (statistics) or mean (bias) on --data; "
        "merge needs none.",
    ),
]
Memory = Annotated[
    float,
    typer.Option(metavar="GIB", min=0, help="Activations held in memory, in GiB; what is beyond lies in files."),
]
Samples = Annotated[
    int, typer.Option(min=1, help="Samples of --data to rank filters and refit weights on, at most, spread over all.")
]
Seed = Annotated[
    int, typer.Option(min=0, help="Seed of random inputs, of the samples taken and of the order of timing.")
]
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


def parse_memory(gib: float) -> int:
    """The value of --memory, in bytes.

    Raises:
        typer.BadParameter: It is not a number.
    """
    if not math.isfinite(gib):
        raise typer.BadParameter(f"'{gib}' is no number of GiB", param_hint="--memory")
    return round(gib * 2**30)


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
