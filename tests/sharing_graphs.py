"""Small networks whose layers share parameters, as exporters write them: by accident of equal values, or on purpose."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.graphs import Net

C = 8


def finish(net: Net, h: str, channels: int = C, **options: int) -> onnx.ModelProto:
    """A head, and images in."""
    net.head(h, channels)
    return net.model(["N", 3, 6, 6], ["N", 5], **options)


def conv(net: Net, x: str, name: str, bias: str | None = None, into: int = C, k: int = 1) -> str:
    """A convolution to C channels, with a bias that may be another's, then Relu."""
    inputs = [x, net.weight(f"{name}.w", C, into, k, k), *([bias] if bias else [])]
    return net.op("Relu", [net.op("Conv", inputs, name, pads=[k // 2] * 4)], f"{name}.r")


def biases() -> onnx.ModelProto:
    """Three convolutions that read one bias."""
    net = Net(21)
    h, b = "x", net.weight("b", C)
    for i in range(3):
        h = conv(net, h, f"c{i}", b, C if i else 3, 3)
    return finish(net, h)


def identities() -> onnx.ModelProto:
    """BatchNormalizations whose equal vectors torch hands out through Identity; gamma is variance, too."""
    net = Net(22)
    net.weights["n0.gamma"] = net.rng.uniform(0.5, 1.5, C).astype(np.float32)
    net.weight("n0.beta", C)
    for i in (1, 2):
        for part in ("gamma", "beta"):
            net.op("Identity", [f"n0.{part}"], f"n{i}.{part}")
    h = "x"
    for i in range(3):
        h = conv(net, h, f"c{i}", None, C if i else 3, 3)
        parts = [f"n{i}.gamma", f"n{i}.beta", "n0.beta", f"n{i}.gamma"]
        h = net.op("BatchNormalization", [h, *parts], f"n{i}")
    return finish(net, h)


def unread_original() -> onnx.ModelProto:
    """Every reader, of which one is an Identity again, gets the bias through an Identity."""
    net = Net(23)
    net.op("Identity", [net.weight("b", C)], "b0")
    net.op("Identity", ["b0"], "b1")
    h = conv(net, conv(net, "x", "c0", "b0", 3), "c1", "b1")
    return finish(net, conv(net, h, "c2", "b1"))


def layer_scales() -> onnx.ModelProto:
    """Two blocks scaled by one vector of shape (C, 1, 1)."""
    net = Net(24)
    h, gamma = "x", net.weight("gamma", C, 1, 1)
    for i in range(2):
        h = net.op("Mul", [conv(net, h, f"c{i}", None, C if i else 3), gamma], f"m{i}")
    return finish(net, h)


def prepared() -> onnx.ModelProto:
    """A bias that is cast and reshaped once and then added in two places."""
    net = Net(25)
    net.weights["b"] = net.rng.normal(size=C).astype(np.float64)
    cast = net.op("Cast", ["b"], "b.cast", to=TensorProto.FLOAT)
    wide = net.op("Reshape", [cast, net.constant("shape", [1, C, 1, 1])], "b.wide")
    h = "x"
    for i in range(2):
        h = net.op("Add", [conv(net, h, f"c{i}", None, C if i else 3), wide], f"a{i}")
    return finish(net, h)


def prepared_and_given_out() -> onnx.ModelProto:
    """The reshaped bias is an output of the graph as well."""
    proto = prepared()
    proto.graph.output.append(helper.make_tensor_value_info("b.wide", TensorProto.FLOAT, [1, C, 1, 1]))
    return proto


def constant_nodes() -> onnx.ModelProto:
    """The shared bias lies in a Constant node."""
    net = Net(26)
    value = numpy_helper.from_array(net.rng.normal(size=C).astype(np.float32))
    net.nodes.append(helper.make_node("Constant", [], ["b"], value=value))
    return finish(net, conv(net, conv(net, "x", "c0", "b", 3), "c1", "b"))


def old_file() -> onnx.ModelProto:
    """Before IR version 4 every initializer is an input, too."""
    proto = biases()
    proto.ir_version = 3
    proto.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in proto.graph.initializer
    )
    return proto


def given_out() -> onnx.ModelProto:
    """The shared bias is an output of the graph as well."""
    proto = biases()
    proto.graph.output.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, [C]))
    return proto


def captured() -> onnx.ModelProto:
    """The body of an If reads the bias, too."""
    net = Net(27)
    b = net.weight("b", C)
    h = conv(net, conv(net, "x", "c0", b, 3), "c1", b)
    branches = {}
    for branch in ("then_branch", "else_branch"):
        body = [helper.make_node("Mul", [b, b], [f"{branch}.y"])]
        out = helper.make_tensor_value_info(f"{branch}.y", TensorProto.FLOAT, [C])
        branches[branch] = helper.make_graph(body, branch, [], [out])
    net.nodes.append(helper.make_node("If", [net.constant("yes", True, bool)], ["side"], name="if", **branches))
    proto = finish(net, h)
    proto.graph.output.append(helper.make_tensor_value_info("side", TensorProto.FLOAT, [C]))
    return proto


def maps() -> onnx.ModelProto:
    """A map for each channel and position, added in two places: larger than a vector, but no weight of a sum."""
    net = Net(28)
    h, table = "x", net.weight("map", C, 6, 6)
    for i in range(2):
        h = net.op("Add", [conv(net, h, f"c{i}", None, C if i else 3), table], f"a{i}")
    return finish(net, h)


def quantised() -> onnx.ModelProto:
    """Weights stored as integers, with one vector of scales and one of zero points for both."""
    net = Net(29)
    net.weights["scale"] = net.rng.uniform(0.01, 0.02, C).astype(np.float32)
    net.weights["zero"] = net.rng.integers(-3, 4, C).astype(np.int8)
    h = "x"
    for i, into in enumerate((3, C)):
        net.weights[f"q{i}"] = net.rng.integers(-100, 100, (C, into, 3, 3)).astype(np.int8)
        weight = net.op("DequantizeLinear", [f"q{i}", "scale", "zero"], f"d{i}", axis=0)
        h = net.op("Relu", [net.op("Conv", [h, weight], f"c{i}", pads=[1] * 4)], f"r{i}")
    return finish(net, h)


def two_meanings() -> onnx.ModelProto:
    """One vector is a bias of C channels, and C weights over the image's columns."""
    net = Net(30)
    v = net.weight("v", C)
    h = conv(net, conv(net, "x", "c0", v, 3), "c1")
    h = net.op("MatMul", [h, net.op("Reshape", [v, net.constant("column", [C, 1])], "v.column")], "columns")
    net.head(h, C)
    return net.model(["N", 3, 6, C], ["N", 5])


def siamese() -> onnx.ModelProto:
    """Two halves of the input pass one tower: on purpose, so it stays one."""
    net = Net(31)
    w, b = net.weight("tower.w", C, 3, 3, 3), net.weight("tower.b", C)
    net.nodes.append(helper.make_node("Split", ["x"], ["left", "right"], name="halves", axis=1))
    towers = [net.op("Relu", [net.op("Conv", [side, w, b], f"{side}.conv")], f"{side}.r") for side in ("left", "right")]
    h = net.op("Sub", towers, "difference")
    h = net.op("Relu", [net.conv(h, "after", C, C)], "after.r")
    net.head(h, C)
    return net.model(["N", 6, 6, 6], ["N", 5])


def heads() -> onnx.ModelProto:
    """One head on two levels, as detectors have it; its last layer's weights hold all of its inputs together."""
    net = Net(32)
    low = conv(net, "x", "level0", None, 3)
    levels = [low, net.op("MaxPool", [conv(net, low, "level1")], "pool", kernel_shape=[2, 2], strides=[2, 2])]
    w, b, last = net.weight("head.w", C, C, 1, 1), net.weight("head.b", C), net.weight("last.w", 5, C, 1, 1)
    found = []
    for i, level in enumerate(levels):
        h = net.op("Relu", [net.op("Conv", [level, w, b], f"head{i}")], f"head{i}.r")
        h = net.op("GlobalAveragePool", [net.op("Conv", [h, last], f"last{i}")], f"mean{i}")
        found.append(h)
    net.op("Flatten", [net.op("Add", found, "sum")], "y")
    return net.model(["N", 3, 6, 6], ["N", 5])


def unrolled() -> onnx.ModelProto:
    """A recurrent cell, three steps long."""
    net = Net(33)
    wx, wh, b = net.weight("wx", C, 4), net.weight("wh", C, C), net.weight("b", C)
    steps = [f"x{i}" for i in range(3)]
    net.nodes.append(helper.make_node("Split", ["x"], steps, name="steps", axis=1))
    h = net.op("Tanh", [net.op("Gemm", [steps[0], wx, b], "in0", transB=1)], "h0")
    for i, step in enumerate(steps[1:], 1):
        own = net.op("Gemm", [step, wx, b], f"in{i}", transB=1)
        h = net.op("Tanh", [net.op("Add", [own, net.op("Gemm", [h, wh], f"back{i}", transB=1)], f"add{i}")], f"h{i}")
    net.op("Gemm", [h, net.weight("out", 5, C)], "y", transB=1)
    return net.model(["N", 12], ["N", 5])


def tied_embedding() -> onnx.ModelProto:
    """Words are looked up in a table and told apart by the same table, which torch hands out through an Identity."""
    net = Net(34)
    table = net.op("Identity", [net.weight("table", 20, C)], "decoder.table")
    net.op("Cast", ["x"], "words", to=TensorProto.INT64)
    h = net.op("Gather", ["table", "words"], "looked")
    h = net.op("MatMul", [net.op("Relu", [h], "r0"), net.weight("in", C, C)], "mixed")
    h = net.op("MatMul", [net.op("Relu", [h], "r1"), net.weight("back", C, C)], "turned")
    net.op("MatMul", [h, net.op("Transpose", [table], "decoder.turned", perm=[1, 0])], "y")
    return net.model(["N", 3], ["N", 3, 20])


APART: dict[str, Callable[[], onnx.ModelProto]] = {
    build.__name__: build
    for build in (
        biases, identities, unread_original, layer_scales, prepared, prepared_and_given_out, constant_nodes, old_file,
        given_out, captured, maps, quantised,
    )
}  # fmt: skip
TOGETHER: dict[str, Callable[[], onnx.ModelProto]] = {
    build.__name__: build for build in (siamese, heads, unrolled, tied_embedding)
}
ALL = {**APART, **TOGETHER, "two_meanings": two_meanings}


def separate(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same network as a trained export has it: each reader of a float parameter reads one of its own."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    copy.ir_version = max(copy.ir_version, 4)  # before, every initializer had to be an input
    graph = copy.graph
    made = {node.output[0]: node for node in graph.node if node.op_type in ("Identity", "Cast", "Reshape", "Constant")}
    arrays = {t.name: t for t in graph.initializer}
    nodes = [n for n in graph.node if n.op_type != "Constant"]
    extra: list[onnx.NodeProto] = []

    def own(name: str, reader: str) -> str:
        """A parameter for one reader, and what prepares it."""
        fresh = f"{name}/{reader}"
        if name in arrays or (name in made and made[name].op_type == "Constant"):
            tensor = graph.initializer.add()
            tensor.CopyFrom(arrays[name] if name in arrays else made[name].attribute[0].t)
            tensor.name = fresh
            return fresh
        if name not in made or not parameter(name):
            return name
        node = onnx.NodeProto()
        node.CopyFrom(made[name])
        node.name = node.output[0] = fresh
        node.input[:] = [own(n, fresh) for n in node.input]
        extra.append(node)
        return fresh

    def parameter(name: str) -> bool:
        return name in arrays or (name in made and all(parameter(n) for n in made[name].input))

    for node in nodes:
        if not (node.output[0] in made and parameter(node.output[0])):
            node.input[:] = [own(n, f"{node.name}.{k}") for k, n in enumerate(node.input)]
    left = [onnx.NodeProto.FromString(n.SerializeToString()) for n in [*extra, *nodes]]
    del graph.node[:]
    graph.node.extend(left)
    return copy
