"""Small seeded networks, one for each way that channels depend on each other, shared by the tests.

Weights are random with variance 1 / fan-in, so that activations stay near 1 and a wrong channel shows in the output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxprune.model import Model, from_proto
from onnxprune.normalise import normalise
from onnxprune.trace import Dependencies, trace

IR, OPSET = 8, 17


@dataclass
class Net:
    """A graph in the making. Each method adds one node and gives the name of its output, which is the node's name."""

    seed: int = 0
    dtype: np.dtype[np.floating] = field(default_factory=lambda: np.dtype(np.float32))
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, NDArray[np.generic]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def op(self, kind: str, inputs: Sequence[str], name: str, **attributes: object) -> str:
        """Any operator with one output."""
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def weight(self, name: str, *shape: int) -> str:
        """A random weight."""
        fan_in = max(1, int(np.prod(shape[1:])))
        self.weights[name] = (self.rng.normal(size=shape) / np.sqrt(fan_in)).astype(self.dtype)
        return name

    def constant(self, name: str, value: object, dtype: type = np.int64) -> str:
        """A given value."""
        self.weights[name] = np.array(value, dtype)
        return name

    def conv(self, x: str, name: str, out: int, into: int, k: int = 1, *, group: int = 1, stride: int = 1) -> str:
        """A 2-D convolution with a bias that keeps the image's size at stride 1."""
        inputs = [x, self.weight(f"{name}.w", out, into // group, k, k), self.weight(f"{name}.b", out)]
        return self.op("Conv", inputs, name, group=group, strides=[stride] * 2, pads=[k // 2] * 4)

    def bn(self, x: str, name: str, c: int) -> str:
        """BatchNormalization whose parameters differ from channel to channel."""
        scale, shift, mean = (self.weight(f"{name}.{part}", c) for part in ("scale", "shift", "mean"))
        self.weights[f"{name}.var"] = self.rng.uniform(0.5, 2, c).astype(self.dtype)
        return self.op("BatchNormalization", [x, scale, shift, mean, f"{name}.var"], name)

    def head(self, x: str, channels: int, classes: int = 5) -> str:
        """Global pooling and a fully connected layer."""
        flat = self.op("Flatten", [self.op("GlobalAveragePool", [x], "pool")], "flat")
        return self.dense(flat, "fc", classes, channels, "y")

    def dense(self, x: str, name: str, out: int, into: int, output: str = "") -> str:
        """A Gemm with a transposed weight, as PyTorch exports its linear layer."""
        inputs = [x, self.weight(f"{name}.w", out, into), self.weight(f"{name}.b", out)]
        return self.op("Gemm", inputs, output or name, transB=1)

    def model(self, x: Sequence[object], y: Sequence[object], *, ir: int = IR, opset: int = OPSET) -> onnx.ModelProto:
        """The finished model, from input `x` to output `y` of these shapes."""
        kind = helper.np_dtype_to_tensor_dtype(self.dtype)
        ends = [helper.make_tensor_value_info(name, kind, shape) for name, shape in (("x", x), ("y", y))]
        tensors = [numpy_helper.from_array(value, name) for name, value in self.weights.items()]
        graph = helper.make_graph(self.nodes, "net", ends[:1], ends[1:], tensors)
        return helper.make_model(graph, ir_version=ir, opset_imports=[helper.make_opsetid("", opset)])


def chain(*, width: int = 16, seed: int = 0, dtype: type = np.float32) -> onnx.ModelProto:
    """Three convolutions in a row, then a fully connected layer. Groups: c1.w and c2.w of `width`, c3.w of 12."""
    net = Net(seed, np.dtype(dtype))
    h = net.op("Relu", [net.conv("x", "c1", width, 3, 3)], "r1")
    h = net.op("Relu", [net.bn(net.conv(h, "c2", width, width, 3, stride=2), "bn2", width)], "r2")
    h = net.op("LeakyRelu", [net.conv(h, "c3", 12, width)], "r3", alpha=0.1)
    net.head(h, 12)
    return net.model(["N", 3, 8, 8], ["N", 5])


def residual(*, seed: int = 1) -> onnx.ModelProto:
    """Two residual blocks with BatchNormalization, the second with a downsampling shortcut."""
    net = Net(seed)
    h = net.op("Relu", [net.bn(net.conv("x", "stem", 8, 3, 3), "stem.bn", 8)], "stem.r")
    for name, into, out, stride in (("a", 8, 8, 1), ("b", 8, 16, 2)):
        inner = net.bn(net.conv(h, f"{name}1", out, into, 3, stride=stride), f"{name}1.bn", out)
        inner = net.op("Relu", [inner], f"{name}1.r")
        inner = net.bn(net.conv(inner, f"{name}2", out, out, 3), f"{name}2.bn", out)
        if into != out:
            h = net.bn(net.conv(h, f"{name}s", out, into, stride=stride), f"{name}s.bn", out)
        h = net.op("Relu", [net.op("Add", [inner, h], f"{name}.add")], f"{name}.r")
    net.head(h, 16)
    return net.model(["N", 3, 8, 8], ["N", 5])


def gated(*, seed: int = 2) -> onnx.ModelProto:
    """A MobileNetV3 block: expansion, depthwise convolution, squeeze-and-excite gate, projection."""
    net = Net(seed)
    h = net.op("HardSwish", [net.bn(net.conv("x", "expand", 12, 3), "bn1", 12)], "hs1")
    h = net.op("HardSwish", [net.bn(net.conv(h, "depth", 12, 12, 3, group=12), "bn2", 12)], "hs2")
    gate = net.op("GlobalAveragePool", [h], "squeeze")
    gate = net.op("Relu", [net.conv(gate, "se1", 6, 12)], "se1.r")
    gate = net.op("HardSigmoid", [net.conv(gate, "se2", 12, 6)], "gate")
    h = net.conv(net.op("Mul", [h, gate], "scaled"), "project", 8, 12)
    net.head(h, 8)
    return net.model(["N", 3, 8, 8], ["N", 5])


def grouped(*, seed: int = 3) -> onnx.ModelProto:
    """A ResNeXt block: reduction, convolution in 3 groups of 4 channels, expansion, shortcut."""
    net = Net(seed)
    h = net.op("Relu", [net.conv("x", "stem", 8, 3, 3)], "stem.r")
    inner = net.op("Relu", [net.conv(h, "reduce", 12, 8)], "reduce.r")
    inner = net.op("Relu", [net.conv(inner, "groups", 12, 12, 3, group=3)], "groups.r")
    h = net.op("Add", [net.conv(inner, "expand", 8, 12), h], "sum")
    net.head(h, 8)
    return net.model(["N", 3, 8, 8], ["N", 5])


def dense(*, seed: int = 4) -> onnx.ModelProto:
    """A DenseNet block: each layer reads the concatenation of all before it."""
    net = Net(seed)
    h, width = net.conv("x", "stem", 8, 3, 3), 8
    for i in (1, 2):
        new = net.conv(net.op("Relu", [net.bn(h, f"bn{i}", width)], f"r{i}"), f"grow{i}", 6, width, 3)
        h, width = net.op("Concat", [h, new], f"cat{i}", axis=1), width + 6
    net.head(net.op("Relu", [net.bn(h, "bn3", width)], "r3"), width)
    return net.model(["N", 3, 8, 8], ["N", 5])


def mlp(*, seed: int = 5, dtype: type = np.float32) -> onnx.ModelProto:
    """Gemm with a transposed weight, Gemm with a plain one, MatMul and Add."""
    net = Net(seed, np.dtype(dtype))
    h = net.op("Relu", [net.dense("x", "g1", 16, 10)], "r1")
    h = net.op("Tanh", [net.op("Gemm", [h, net.weight("g2.w", 16, 12), net.weight("g2.b", 12)], "g2")], "t2")
    h = net.op("Add", [net.op("MatMul", [h, net.weight("m3.w", 12, 8)], "m3"), net.weight("m3.b", 8)], "a3")
    net.op("MatMul", [net.op("Sigmoid", [h], "s3"), net.weight("m4.w", 8, 4)], "y")
    return net.model(["N", 10], ["N", 4])


def flattened(*, seed: int = 6) -> onnx.ModelProto:
    """A VGG head: a channel of the convolution is 16 inputs of the fully connected layer, a Reshape stores sizes."""
    net = Net(seed)
    h = net.op("Relu", [net.conv("x", "c1", 10, 3, 3)], "r1")
    h = net.op("MaxPool", [h], "pool", kernel_shape=[2, 2], strides=[2, 2])
    h = net.op("Reshape", [h, net.constant("sizes", [-1, 160])], "flat")
    h = net.op("Relu", [net.dense(h, "f1", 12, 160)], "r2")
    net.dense(h, "f2", 5, 12, "y")
    return net.model(["N", 3, 8, 8], ["N", 5])


def shuffled(*, seed: int = 7) -> onnx.ModelProto:
    """Two ShuffleNet v2 units: half of the channels pass by, then the halves are interleaved."""
    net = Net(seed)
    h = net.op("Relu", [net.conv("x", "stem", 16, 3, 3)], "stem.r")
    for i in (1, 2):
        halves = [f"u{i}.left", f"u{i}.right"]
        net.nodes.append(helper.make_node("Split", [h], halves, name=f"u{i}.split", axis=1))
        right = net.op("Relu", [net.conv(halves[1], f"u{i}", 8, 8, 3)], f"u{i}.r")
        h = net.op("Concat", [halves[0], right], f"u{i}.cat", axis=1)
        h = net.op("Reshape", [h, net.constant(f"u{i}.rows", [0, 2, 8, 8, 8])], f"u{i}.wide")
        h = net.op("Transpose", [h], f"u{i}.t", perm=[0, 2, 1, 3, 4])
        h = net.op("Reshape", [h, net.constant(f"u{i}.flat", [0, 16, 8, 8])], f"u{i}.shuffle")
    net.head(h, 16)
    return net.model(["N", 3, 8, 8], ["N", 5])


def funnel(*, seed: int = 8) -> onnx.ModelProto:
    """Grouped convolutions with one output, then one input, in each group: only whole groups can go."""
    net = Net(seed)
    h = net.op("Relu", [net.conv("x", "wide", 12, 3, 3)], "wide.r")
    h = net.op("Relu", [net.conv(h, "gather", 4, 12, 3, group=4)], "gather.r")
    h = net.op("Relu", [net.conv(h, "scatter", 8, 4, 3, group=4)], "scatter.r")
    net.head(h, 8)
    return net.model(["N", 3, 8, 8], ["N", 5])


ALL: dict[str, Callable[[], onnx.ModelProto]] = {
    build.__name__: build for build in (chain, residual, gated, grouped, dense, mlp, flattened, shuffled, funnel)
}


def rich() -> onnx.ModelProto:
    """A model with one of everything that pruning leaves alone."""
    proto = residual()
    proto.producer_name, proto.producer_version, proto.domain = "maker", "1.2", "org.example"
    proto.model_version, proto.doc_string = 7, "what it is for"
    helper.set_model_props(proto, {"author": "someone", "classes": "a,b"})
    graph = proto.graph
    graph.doc_string = "the graph"
    graph.node[0].doc_string = "the stem"
    graph.input[0].doc_string = "an image"
    graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch size"
    graph.initializer[0].doc_string = "filters"
    graph.input.append(helper.make_tensor_value_info("fc.w", TensorProto.FLOAT, (5, 16)))
    graph.value_info.append(helper.make_tensor_value_info("stem", TensorProto.FLOAT, ("batch size", 8, 8, 8)))
    extras = [numpy_helper.from_array(np.float32(3), "scalar"), helper.make_tensor("text", 8, [2], [b"a", b"b"])]
    graph.initializer.extend(extras)
    call = helper.make_node("Twice", ["y"], ["y2"], domain="local")
    graph.node.append(call)
    graph.output.append(helper.make_tensor_value_info("y2", TensorProto.FLOAT, ("batch size", 5)))
    proto.opset_import.append(helper.make_opsetid("local", 1))
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    proto.functions.append(helper.make_function("local", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))
    return proto


def external(folder: Path, *, width: int = 16) -> Path:
    """A model on disk whose weights lie in a file of their own."""
    path = folder / "model.onnx"
    onnx.save(chain(width=width), path, save_as_external_data=True, location="model.bin", size_threshold=64)
    return path


def loaded(proto: onnx.ModelProto) -> Model:
    """The model as `load` would give it; the argument is left as it is."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return from_proto(copy)


def traced(proto: onnx.ModelProto) -> Dependencies:
    """The model after the stages before scoring. Groups are free: the harder form of a grouped convolution."""
    return trace(normalise(loaded(proto)), free_groups=True)
