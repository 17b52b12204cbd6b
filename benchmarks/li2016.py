"""Reproduce the reductions of Li et al., Pruning Filters for Efficient ConvNets (arXiv 1608.08710, table 1).

    python benchmarks/li2016.py [--shared FOLDER] [--out FILE] [--threads N] [--images N]
    python benchmarks/li2016.py --markdown

The paper's networks are built here with random weights: sizes do not depend on their values. Every pruned model comes
from the paper's ratios per layer alone, through trace, score, plan and rewrite; its parameters and MACs are counted on
the rewritten file by a counter that shares no code with the package, and the package's own count must agree. The exit
status is 1 when a reduction is more than 0.1 point from the published one.

Where the folder of real models is found, ResNet-56-A/B are also cut from trained weights and run on the CIFAR-10 test
images. The paper's errors are after 40 epochs of retraining, ours are without any.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

from onnxprune.cost import cost
from onnxprune.importance import score
from onnxprune.model import Model, from_proto, load
from onnxprune.normalise import normalise
from onnxprune.plan import Limits, plan
from onnxprune.rewrite import rewrite
from onnxprune.runtime import environment, run, session
from onnxprune.trace import Dependencies, trace

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results" / "li2016.json"
SHARED = FOLDER.parent.parent / "shared"
REAL = Path("cifar10") / "resnet56_legacy_bn.onnx"

POINTS = 0.1  # the largest difference from a published reduction, in percentage points
OPSET, IR = 17, 8  # fixed, so that the files stay the same whatever onnx is installed
BATCH = 100
MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)
RETRAINED = "the paper's errors are after 40 epochs of retraining, ours are without any"

Ratios = Mapping[int, float]  # number of a convolution, the stem being 1 -> share of its filters that goes


# --- the networks ----------------------------------------------------------------------------------------------------


class Network:
    """A graph under construction. Layers take and return tensor names; `width` knows their channels."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []
        self.width: dict[str, int] = {}

    def weight(self, name: str, shape: Sequence[int]) -> str:
        """A weight drawn as He et al. initialise it, so that activations neither grow nor vanish."""
        values = self.rng.standard_normal(shape, dtype=np.float32) * np.float32(math.sqrt(2 / math.prod(shape[1:])))
        return self.constant(name, values)

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """An initializer."""
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def add(self, kind: str, inputs: Sequence[str], width: int, name: str = "", **attributes: Any) -> str:
        """One node; its only output is named after it."""
        name = name or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [f"{name}.out"], name=name, **attributes))
        self.width[f"{name}.out"] = width
        return f"{name}.out"

    def conv(self, x: str, name: str, width: int, *, kernel: int = 3, stride: int = 1, relu: bool = True) -> str:
        """Conv, BatchNormalization and, unless told otherwise, Relu."""
        weight = self.weight(f"{name}.weight", (width, self.width[x], kernel, kernel))
        size = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        x = self.norm(self.add("Conv", [x, weight], width, name, **size), f"{name}.bn")
        return self.relu(x) if relu else x

    def norm(self, x: str, name: str) -> str:
        """BatchNormalization with plausible parameters."""
        n = self.width[x]
        draw = {
            "weight": self.rng.uniform(0.5, 1.5, n),
            "bias": self.rng.normal(0, 0.1, n),
            "running_mean": self.rng.normal(0, 0.1, n),
            "running_var": self.rng.uniform(0.5, 1.5, n),
        }
        inputs = [x, *(self.constant(f"{name}.{key}", value.astype(np.float32)) for key, value in draw.items())]
        return self.add("BatchNormalization", inputs, n, name)

    def relu(self, x: str) -> str:
        """Relu."""
        return self.add("Relu", [x], self.width[x])

    def dense(self, x: str, name: str, width: int) -> str:
        """A fully connected layer."""
        weight = self.weight(f"{name}.weight", (width, self.width[x]))
        bias = self.constant(f"{name}.bias", np.zeros(width, np.float32))
        return self.add("Gemm", [x, weight, bias], width, name, transB=1)

    def model(self, name: str, output: str, size: int) -> onnx.ModelProto:
        """The finished model, for images of size x size and a symbolic batch."""
        x = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", self.width["input"], size, size])
        y = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", self.width[output]])
        graph = helper.make_graph(self.nodes, name, [x], [y], self.weights)
        return helper.make_model(graph, ir_version=IR, opset_imports=[helper.make_opsetid("", OPSET)])


def resnet(blocks: int) -> onnx.ModelProto:
    """CIFAR ResNet with `blocks` basic blocks in each of three stages: 6 blocks + 2 layers deep."""
    net = Network()
    net.width["input"] = 3
    x, number = net.conv("input", "conv_1", 16), 1
    for stage, width in enumerate((16, 32, 64)):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            shortcut = x if stride == 1 else padded_shortcut(net, x, f"shortcut_{stage + 1}")
            x = net.conv(x, f"conv_{number + 1}", width, stride=stride)
            x = net.conv(x, f"conv_{number + 2}", width, relu=False)
            x, number = net.relu(net.add("Add", [x, shortcut], width)), number + 2
    x = net.add("Flatten", [net.add("GlobalAveragePool", [x], 64)], 64)
    return net.model(f"resnet{6 * blocks + 2}", net.dense(x, "fc", 10), 32)


def padded_shortcut(net: Network, x: str, name: str) -> str:
    """He et al.'s option A: every second pixel, and as many channels of zeros as there were."""
    width = net.width[x]
    bounds = {"starts": [0, 0], "ends": [2**31, 2**31], "axes": [2, 3], "steps": [2, 2]}
    inputs = [net.constant(f"{name}.{key}", np.array(value, np.int64)) for key, value in bounds.items()]
    x = net.add("Slice", [x, *inputs], width, f"{name}.slice")
    pads = net.constant(f"{name}.pads", np.array([0, width // 2, 0, 0, 0, width - width // 2, 0, 0], np.int64))
    return net.add("Pad", [x, pads], 2 * width, f"{name}.pad")


def vgg16() -> onnx.ModelProto:
    """The paper's VGG-16 for CIFAR-10: 13 convolutions and two fully connected layers."""
    net = Network()
    net.width["input"] = 3
    x = "input"
    for number, width in enumerate((64, 64, 128, 128, *[256] * 3, *[512] * 6), start=1):
        x = net.conv(x, f"conv_{number}", width)
        if number in (2, 4, 7, 10, 13):
            x = net.add("MaxPool", [x], width, kernel_shape=[2, 2], strides=[2, 2])
    x = net.dense(net.add("Flatten", [x], 512), "fc_1", 512)
    return net.model("vgg16", net.dense(net.relu(net.norm(x, "fc_1.bn")), "fc_2", 10), 32)


# --- the paper's prescriptions ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One row of the paper's table 1.

    Attributes:
        name: The pruned network's name.
        network: Of which network.
        ratios: What the paper removes.
        macs: Published reduction of MACs, percent.
        params: Published reduction of parameters, percent.
    """

    name: str
    network: str
    ratios: Ratios
    macs: float
    params: float


def by_stage(blocks: int, ratios: Sequence[float], skip: Sequence[int]) -> dict[int, float]:
    """One ratio per stage for the first convolution of every block (2, 4, 6, ...), but for the ones skipped."""
    first = range(2, 6 * blocks + 1, 2)
    return {n: ratios[(n - 2) // (2 * blocks)] for n in first if n not in skip and ratios[(n - 2) // (2 * blocks)]}


NETWORKS = {"ResNet-56": lambda: resnet(9), "ResNet-110": lambda: resnet(18), "VGG-16": vgg16}
# MACs and parameters, to the digits printed
PUBLISHED = {"ResNet-56": ("1.25e8", "8.5e5"), "ResNet-110": ("2.53e8", "1.72e6"), "VGG-16": ("3.13e8", "1.5e7")}
CASES = (
    Case("ResNet-56-A", "ResNet-56", by_stage(9, (0.1, 0.1, 0.1), (16, 20, 38, 54)), 10.4, 9.4),
    Case("ResNet-56-B", "ResNet-56", by_stage(9, (0.6, 0.3, 0.1), (16, 18, 20, 34, 38, 54)), 27.6, 13.7),
    Case("ResNet-110-A", "ResNet-110", by_stage(18, (0.5, 0.0, 0.0), (36,)), 15.9, 2.3),
    Case("ResNet-110-B", "ResNet-110", by_stage(18, (0.5, 0.4, 0.3), (36, 38, 74)), 38.6, 32.4),
    Case("VGG-16-A", "VGG-16", dict.fromkeys((1, *range(8, 14)), 0.5), 34.2, 64.0),
)
ERRORS = {"ResNet-56": 6.96, "ResNet-56-A": 6.90, "ResNet-56-B": 6.94}  # percent, retrained


def generated_name(number: int) -> str:
    """The weight of a numbered convolution in the networks built here."""
    return f"conv_{number}.weight"


def exported_name(number: int) -> str:
    """The weight of a numbered convolution of ResNet-56 in the export of its PyTorch implementation."""
    if number == 1:
        return "conv1.weight"
    block, place = divmod(number - 2, 2)
    stage, block = divmod(block, 9)
    return f"layer{stage + 1}.{block}.conv{place + 1}.weight"


# --- pruning and counting --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """What a model costs.

    Attributes:
        macs: Multiply-accumulates of its convolutions and fully connected layers, for one image.
        weights: Their weights, which is what the paper counts.
        params: All floating point values, BatchNormalization included, which is what the package counts.
    """

    macs: int
    weights: int
    params: int

    def less(self, dense: Size) -> dict[str, float]:
        """Reductions from `dense`, percent."""
        before = asdict(dense)
        return {key: 100 * (1 - value / before[key]) for key, value in asdict(self).items()}


def prune(dependencies: Dependencies, ratios: Mapping[str, float]) -> Model:
    """Remove a share of the filters of the named weights, smallest L1 norm first, and nothing else."""
    limits = Limits(layer_ratios=tuple(ratios.items()))
    chosen = plan(dependencies, score(dependencies, "l1"), None, limits).removed(dependencies)
    pruned = rewrite(dependencies, chosen)
    counted, expected = recount(pruned.full()), cost(dependencies, dependencies.keep(chosen))
    if (counted.macs, counted.params) != (expected.macs, expected.params):
        raise AssertionError(f"the rewritten model has {counted}, the package predicts {expected}")
    return pruned


def recount(proto: onnx.ModelProto) -> Size:
    """Count a model from its file alone: onnx's shape inference and the shapes of its initializers."""
    graph = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True).graph
    dims = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in [*graph.value_info, *graph.output]}
    shapes = {t.name: list(t.dims) for t in graph.initializer}
    macs = weights = 0
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            size = math.prod(shapes[node.input[1]])
            weights += size
            macs += size * math.prod(dims[node.output[0]][2:])
    floats = [math.prod(t.dims) for t in graph.initializer if t.data_type == TensorProto.FLOAT]
    return Size(macs, weights, sum(floats))


def reproduce() -> Iterator[dict[str, Any]]:
    """One record for every case: sizes, reductions, and how far they are from the published ones."""
    traced = {name: trace(normalise(from_proto(build()))) for name, build in NETWORKS.items()}
    for case in CASES:
        dense = recount(traced[case.network].model.full())
        pruned = recount(prune(traced[case.network], {generated_name(n): r for n, r in case.ratios.items()}).full())
        less = pruned.less(dense)
        published = {"macs": case.macs, "weights": case.params, "params": case.params}
        yield {
            "model": case.name,
            "dense": asdict(dense),
            "pruned": asdict(pruned),
            "published": {"macs": case.macs, "params": case.params},
            "reduction": {key: round(value, 3) for key, value in less.items()},
            "difference": {key: round(less[key] - value, 3) for key, value in published.items()},
        }


# --- accuracy on real weights ----------------------------------------------------------------------------------------


def measure(shared: Path, images: int, threads: int) -> list[dict[str, Any]]:
    """Test error of the trained ResNet-56 and of what A and B leave of it, without retraining."""
    dependencies = trace(normalise(load(shared / REAL)))
    with np.load(shared / "cifar10" / "cifar10_test.npz") as data:
        x, y = data["x"][:images], data["y"][:images]
    models = {"ResNet-56": dependencies.model}
    for case in CASES:
        if case.network == "ResNet-56":
            models[case.name] = prune(dependencies, {exported_name(n): r for n, r in case.ratios.items()})
    dense = recount(dependencies.model.full())
    return [
        {
            "model": name,
            "images": len(y),
            "error": round(100 * error(model, x, y, threads), 2),
            "published_error": ERRORS[name],
            "reduction": {key: round(value, 3) for key, value in recount(model.full()).less(dense).items()},
        }
        for name, model in models.items()
    ]


def error(model: Model, images: NDArray[np.uint8], labels: NDArray[np.generic], threads: int) -> float:
    """Share of images whose largest output is not their label's."""
    opened = session(model, threads=threads)
    (feed,), wrong = [i.name for i in model.inputs], 0
    for start in range(0, len(labels), BATCH):
        x = (images[start : start + BATCH].astype(np.float32) / 255 - MEAN) / STD
        (logits,) = run(opened, {feed: np.ascontiguousarray(x.transpose(0, 3, 1, 2))}).values()
        wrong += int((logits.argmax(axis=1) != labels[start : start + BATCH]).sum())
    return wrong / len(labels)


# --- results ---------------------------------------------------------------------------------------------------------

Rows = list[list[str]]


def reduction_table(figures: Sequence[Mapping[str, Any]]) -> Rows:
    """Reductions beside the published ones, the header first."""
    rows = [["model", "MACs left", "paper", "ours", "points", "weights left", "paper", "ours", "points", "with BN"]]
    for f in figures:
        less, published, points = f["reduction"], f["published"], f["difference"]
        macs = [f"{f['pruned']['macs'] / 1e6:.1f} M", f"{published['macs']} %", f"{less['macs']:.2f} %"]
        weights = [f"{f['pruned']['weights'] / 1e6:.3f} M", f"{published['params']} %", f"{less['weights']:.2f} %"]
        off = {key: f"{round(value, 2) + 0.0:+.2f}" for key, value in points.items()}  # + 0.0: no minus before a zero
        rows.append([f["model"], *macs, off["macs"], *weights, off["weights"], off["params"]])
    return rows


def error_table(accuracy: Sequence[Mapping[str, Any]]) -> Rows:
    """Errors on the test images beside the published ones, the header first."""
    rows = [["model", "MACs less", "params less", "error, not retrained", "published error, retrained"]]
    for a in accuracy:
        less = [f"{a['reduction']['macs']:.1f} %", f"{a['reduction']['params']:.1f} %"]
        rows.append([a["model"], *less, f"{a['error']:.2f} %", f"{a['published_error']:.2f} %"])
    return rows


def print_table(rows: Rows, title: str) -> None:
    """Render rows on the terminal."""
    table = Table(title=title, title_justify="left")
    for i, heading in enumerate(rows[0]):
        table.add_column(heading, justify="right" if i else "left", no_wrap=True)
    for row in rows[1:]:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def markdown_table(rows: Rows) -> str:
    """The rows as Markdown."""
    rule = ["---", *["--:"] * (len(rows[0]) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], rule, *rows[1:]])


def markdown(results: Mapping[str, Any]) -> str:
    """The committed figures as Markdown."""
    parts = [markdown_table(reduction_table(results["figures"]))]
    if results["accuracy"]:
        parts += [f"Test images: {results['accuracy'][0]['images']:,}; {RETRAINED}."]
        parts += [markdown_table(error_table(results["accuracy"]))]
    return "\n\n".join(parts)


def write(path: Path, results: Mapping[str, Any]) -> None:
    """Write results as JSON, a list of plain values on one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = re.sub(r"\[[^][{}]+\]", lambda row: " ".join(row[0].split()), json.dumps(results, indent=2))
    path.write_text(text + "\n", encoding="utf-8")


def described() -> dict[str, Any]:
    """The environment of a run."""
    return {**environment(), "onnx": onnx.__version__}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of real models; default: ../shared")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the figures go, as JSON")
    parser.add_argument("--threads", type=int, default=1, help="threads of onnxruntime")
    parser.add_argument("--images", type=int, default=10_000, help="how many test images")
    parser.add_argument("--markdown", action="store_true", help="print the figures in --out and run nothing")
    return parser.parse_args()


def main() -> int:
    """Run, print, write; 1 when a figure is not reproduced."""
    options = arguments()
    if options.markdown:
        print(markdown(json.loads(options.out.read_text(encoding="utf-8"))))
        return 0
    figures, accuracy = list(reproduce()), []
    print_table(reduction_table(figures), "What the per-layer ratios of Li et al. remove")
    if (options.shared / REAL).is_file():
        accuracy = measure(options.shared, options.images, options.threads)
        print_table(error_table(accuracy), f"{accuracy[0]['images']:,} CIFAR-10 test images ({RETRAINED})")
    else:
        print("no trained ResNet-56 found (--shared): errors are not measured")
    missed = [f["model"] for f in figures if max(map(abs, f["difference"].values())) > POINTS]
    command = f"python benchmarks/li2016.py --threads {options.threads} --images {options.images}"
    write(options.out, {"command": command, "environment": described(), "figures": figures, "accuracy": accuracy})
    print(f"not reproduced: {', '.join(missed)}" if missed else f"every reduction is within {POINTS} point")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
