"""Finished runs for the report's tests: real graphs, traced and pruned; made-up timings and verdicts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.bench import Comparison, Samples, Throughput, compare
from onnxprune.fit import Fitted, Trial
from onnxprune.gains import Gains, Layer, Operator, Pair, Reason, Side
from onnxprune.importance import score
from onnxprune.labels import Ids
from onnxprune.model import Model
from onnxprune.plan import Plan, Target, plan
from onnxprune.report import GroupReport, Report, make_report
from onnxprune.rewrite import removal, rewrite
from onnxprune.runtime import Kernel
from onnxprune.trace import Dependencies
from onnxprune.verify import Equivalence
from tests.graphs import Net, traced

NASTY = "a|b`c`[red]*x*\n\x1b[31m"  # what a tensor may be called


@dataclass(frozen=True)
class Run:
    """One run and its report."""

    dependencies: Dependencies
    plan: Plan
    removed: Ids
    pruned: Model
    report: Report


@cache
def odd() -> Run:
    """The oddities, pruned and timed."""
    return run(oddities(), latency=timed())


def run(proto: onnx.ModelProto, ratio: float = 0.4, latency: Comparison | None = None) -> Run:
    """Prune a graph and report it."""
    dependencies = traced(proto)
    chosen = plan(dependencies, score(dependencies), Target(ratio=ratio))
    removed = chosen.removed(dependencies)
    gone = removal(dependencies, removed)
    names = ("in.onnx", "out.onnx")
    report = make_report(dependencies, chosen, removed, gone, equal(), names=names)
    report = report.timed(latency) if latency else report
    return Run(dependencies, chosen, removed, rewrite(dependencies, removed), report)


def equal(*, ok: bool = True) -> Equivalence:
    """A verdict."""
    return Equivalence(ok, "exact", 3e-6, 2e-7, 1e-4, 4)


def timed(ratio: float = 1.5, *, control: float = 1.0, noise: float = 0.01) -> Comparison:
    """A timing of a model `ratio` times as fast, on a machine where the A/A control shows `control`."""
    rng = np.random.default_rng(3)
    before, same, after = (tuple((2 / r * np.exp(rng.normal(0, noise, 50))).tolist()) for r in (1, control, ratio))
    samples = Samples({"before": before, "control": same, "after": after}, 4)
    return compare(samples, provider="CPUExecutionProvider", threads=2, environment={"cpu": "A processor"})


def fully_timed() -> Comparison:
    """A timing in fresh processes, with all that can be measured beside it, of which one process drifted."""
    rate = Throughput(16, 812.34, (800.0, 820.0), 1630.2, (1600.0, 1650.0), 2.01, (1.98, 2.04))
    return replace(
        timed(),
        processes=5,
        cores=(0, 1),
        drift=(0.1, -0.7, 0.0, 0.2, 0.3),
        repeated=(-0.6,),
        throughput=(rate,),
        before_load_ms=35.17,
        after_load_ms=23.42,
        before_peak_bytes=9_138_000,
        after_peak_bytes=3_514_000,
        fp16=True,
    )


def oddities() -> onnx.ModelProto:
    """A weight in a Constant node, a grouped convolution whose groups lose different inputs, a layer held in part by a
    graph output, one held whole by a normalisation, and a name that no table should have to bear."""
    net = Net(11)
    stem = net.op("Relu", [net.conv("x", "stem", 8, 3, 3)], "stem.r")
    weak = np.where(np.isin(np.arange(8), [0, 5]), 1e-3, 1).astype(np.float32)  # positions 0 and 1 of the two groups
    net.weights["stem.w"] = net.weights["stem.w"].astype(np.float32) * weak[:, None, None, None]
    h = net.op("Relu", [net.conv(stem, "groups", 8, 8, 3, group=2)], "groups.r")
    fixed = numpy_helper.from_array(net.rng.normal(size=(6, 8, 1, 1)).astype(np.float32))
    net.nodes.append(helper.make_node("Constant", [], ["held"], name="held.constant", value=fixed))
    h = net.op("Conv", [h, "held"], "middle")
    net.op("Slice", [h, net.constant("from", [0]), net.constant("to", [2]), net.constant("axis", [1])], "part")
    h = net.op("Conv", [h, net.weight(NASTY, 10, 6, 1, 1)], "nasty")
    h = net.conv(h, "normed", 6, 10)
    h = net.op("Transpose", [h], "last", perm=[0, 2, 3, 1])
    h = net.op("LayerNormalization", [h, net.weight("norm.scale", 6)], "norm", axis=-1)
    h = net.op("Transpose", [h], "first", perm=[0, 3, 1, 2])
    net.head(h, 6)
    model = net.model(["N", 3, 8, 8], ["N", 5])
    model.graph.output.append(helper.make_tensor_value_info("part", onnx.TensorProto.FLOAT, ["N", 2, 8, 8]))
    return model


def many(report: Report, count: int) -> Report:
    """The same report with `count` groups."""
    template = report.groups[0]
    groups = tuple(replace(template, name=f"layer{n}.weight", sources=("w:0",), nodes=("n",)) for n in range(count))
    return replace(report, groups=groups)


def group(name: str, node: str = "", note: str = "") -> GroupReport:
    """One group."""
    return GroupReport(name, (f"{name}:0",), (node,), 8, 4, 1000, 500, note)


def fitted() -> Fitted:
    """A target of 1.5x, met by the second plan."""
    trials = (Trial(0, 1.5, 1.38, (1.37, 1.39), 0.91), Trial(1, 1.5, 1.49, (1.48, 1.5), 0.874))
    return Fitted(odd().plan, 1.5, timed(1.49), True, trials)


def gains() -> Gains:
    """Where a model and its pruning spend their time: one layer that failed to gain, one that did."""
    slow, quick = (layer(name, *times) for name, *times in (("slow", 1.5, 1.4), ("quick", 1.5, 0.6)))
    why = Reason("unaligned width", "5 channels are no multiple of 8", "use --align 8")
    return Gains((Operator("Conv", 2, 2, 3.0, 2.0),), (replace(slow, lost_ms=0.65, reasons=(why,)), quick), 8, 20)


def layer(name: str, before: float, after: float) -> Layer:
    """A convolution of which half the work went."""
    kernels = [Kernel(name, "Conv", name, (ms,), (), (), "CPUExecutionProvider") for ms in (before, after)]
    sides = [Side((kernel,), (1, 8, 4, 4), work=work) for kernel, work in zip(kernels, (2.0, 1.0), strict=True)]
    return Layer(Pair(name, f"node of {name}", *sides))
