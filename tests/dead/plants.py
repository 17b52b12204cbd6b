"""Networks with planted dead units. Each builder says which filters are dead, by hand, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from tests.graphs import Net

ZERO, SILENT, UNREAD, CONSTANT = "zero filter", "never fires", "unread", "constant"


@dataclass
class Planted:
    """A model, and for each of its filters that is dead, the cause: (weight, filter) -> cause."""

    proto: onnx.ModelProto
    dead: dict[tuple[str, int], str] = field(default_factory=dict)


def two(act: str = "Relu", k: int = 3, *, bias: Sequence[float] = (), **attributes: object) -> tuple[Net, str]:
    """x -> c1 (8 filters) -> an activation; what reads it is still to come. Filters 0, 1, ... are zero with `bias`."""
    net = Net(5)
    h = net.conv("x", "c1", 8, 3, k)
    for i, value in enumerate(bias):
        net.weights["c1.w"][i] = 0
        net.weights["c1.b"][i] = value
    extra = [net.constant(f"{act}.{name}", value, np.float32) for name, value in attributes.pop("inputs", {}).items()]  # type: ignore[attr-defined]
    return net, net.op(act, [h, *extra], "act", **attributes) if act else h


def closed(net: Net, h: str, width: int = 8, k: int = 3) -> onnx.ModelProto:
    """A second convolution and a head."""
    h = net.op("Relu", [net.conv(h, "c2", 6, width, k)], "r2")
    net.head(h, 6)
    return net.model(["N", 3, 8, 8], ["N", 5])


def zero_filters() -> Planted:
    """No bias, a bias below zero before a ReLU: zero. One above zero is a constant, which padding tells apart."""
    net, h = two(bias=(0.0, -0.3, 0.4))
    return Planted(closed(net, h), {("c1.w", 0): ZERO, ("c1.w", 1): ZERO})


def constants_unpadded() -> Planted:
    """A reader without padding takes a constant into its bias."""
    net, h = two(bias=(0.0, -0.3, 0.4))
    return Planted(closed(net, h, k=1), {("c1.w", 0): ZERO, ("c1.w", 1): ZERO, ("c1.w", 2): CONSTANT})


def constant_without_bias() -> Planted:
    """A reader that has no bias gets one."""
    net, h = two(bias=(0.4,))
    h = net.op("Conv", [h, net.weight("c2.w", 6, 8, 1, 1)], "c2")
    net.head(net.op("Relu", [h], "r2"), 6)
    return Planted(net.model(["N", 3, 8, 8], ["N", 5]), {("c1.w", 0): CONSTANT})


def leaky() -> Planted:
    """A LeakyReLU lets a negative bias through: a constant, which padding tells apart; zero stays zero."""
    net, h = two("LeakyRelu", bias=(0.0, -0.3), alpha=0.2)
    return Planted(closed(net, h), {("c1.w", 0): ZERO})


def leaky_unpadded() -> Planted:
    """The same where the reader does not pad."""
    net, h = two("LeakyRelu", bias=(0.0, -0.3), alpha=0.2)
    return Planted(closed(net, h, k=1), {("c1.w", 0): ZERO, ("c1.w", 1): CONSTANT})


def slopes() -> Planted:
    """A PReLU of slope zero is a ReLU."""
    slope = np.full((8, 1, 1), 0.25)
    slope[1] = 0
    net, h = two("PRelu", bias=(-0.3, -0.3), inputs={"slope": slope})
    return Planted(closed(net, h), {("c1.w", 1): ZERO})


def sigmoids() -> Planted:
    """A sigmoid of zero is a half: constant, not dead before padding."""
    net, h = two("Sigmoid", bias=(0.0,))
    return Planted(closed(net, h))


def unread() -> Planted:
    """Nothing has a weight on filter 3; filter 4 is read by filter 5 of the next layer alone, which nothing reads."""
    net, h = two()
    h = net.op("Relu", [net.conv(h, "c2", 6, 8, 3)], "r2")
    h = net.op("Relu", [net.conv(h, "c3", 6, 6, 3)], "r3")
    net.head(h, 6)
    net.weights["c2.w"][:, 3] = 0
    net.weights["c2.w"][:5, 4] = 0
    net.weights["c3.w"][:, 5] = 0
    return Planted(net.model(["N", 3, 8, 8], ["N", 5]), {("c1.w", 3): UNREAD, ("c1.w", 4): UNREAD, ("c2.w", 5): UNREAD})


def never_fires() -> Planted:
    """ReLUs are not below zero: negative weights and no bias above zero never reach zero. One bias too high does."""
    net, h = two()
    h = net.op("Relu", [net.conv(h, "c2", 6, 8, 3)], "r2")
    for i, bias in ((0, -0.1), (1, 0.0), (2, 0.1)):
        net.weights["c2.w"][i] = -np.abs(net.weights["c2.w"][i])
        net.weights["c2.b"][i] = bias
    net.head(net.op("Relu", [net.conv(h, "c3", 4, 6, 3)], "r3"), 4)
    return Planted(net.model(["N", 3, 8, 8], ["N", 5]), {("c2.w", 0): SILENT, ("c2.w", 1): SILENT})


def bounded() -> Planted:
    """Behind a ReLU6 a sum is bounded: with a bias below minus the most it can be, it never fires."""
    net, h = two("Clip", inputs={"min": 0.0, "max": 6.0})
    h = net.op("Relu", [net.conv(h, "c2", 6, 8, 3)], "r2")
    reach = 6 * np.maximum(net.weights["c2.w"], 0).sum(axis=(1, 2, 3))
    net.weights["c2.b"][0], net.weights["c2.b"][1] = -1.01 * reach[0], -0.99 * reach[1]
    net.head(net.op("Relu", [net.conv(h, "c3", 4, 6, 3)], "r3"), 4)
    return Planted(net.model(["N", 3, 8, 8], ["N", 5]), {("c2.w", 0): SILENT})


def normalised() -> Planted:
    """Gamma zero: beta 0, below and above zero; above zero is a constant before padding, and stays."""
    net = Net(6)
    h = net.op("Relu", [net.bn(net.conv("x", "c1", 8, 3, 3), "bn", 8)], "r1")
    net.weights["bn.scale"][:3] = 0
    net.weights["bn.shift"][:3] = [0.0, -0.5, 0.5]
    return Planted(closed(net, h), {("c1.w", 0): SILENT, ("c1.w", 1): SILENT})


def normalised_unpadded() -> Planted:
    """The same before a reader that does not pad."""
    net = Net(6)
    h = net.op("Relu", [net.bn(net.conv("x", "c1", 8, 3, 3), "bn", 8)], "r1")
    net.weights["bn.scale"][:3] = 0
    net.weights["bn.shift"][:3] = [0.0, -0.5, 0.5]
    return Planted(closed(net, h, k=1), {("c1.w", 0): SILENT, ("c1.w", 1): SILENT, ("c1.w", 2): CONSTANT})


def residual() -> Planted:
    """A stream that is zero in one branch only lives; zero in both, and unread by all readers, it goes."""
    net = Net(7)
    h = net.op("Relu", [net.conv("x", "stem", 8, 3, 3)], "stem.r")
    inner = net.op("Relu", [net.conv(h, "a1", 6, 8, 3)], "a1.r")
    h = net.op("Relu", [net.op("Add", [net.conv(inner, "a2", 8, 6, 3), h], "a.add")], "a.r")
    net.head(net.op("Relu", [net.conv(h, "c", 6, 8, 3)], "c.r"), 6)
    for name, filters in (("stem", [0, 1]), ("a2", [1, 2])):
        net.weights[f"{name}.w"][filters] = 0
        net.weights[f"{name}.b"][filters] = 0
    for name in ("a1", "c"):
        net.weights[f"{name}.w"][:, 3] = 0
    net.weights["a1.w"][:, 4] = 0  # the other reader still needs it
    return Planted(
        net.model(["N", 3, 8, 8], ["N", 5]),
        {("stem.w", 1): ZERO, ("a2.w", 1): ZERO, ("stem.w", 3): UNREAD, ("a2.w", 3): UNREAD},
    )


def ring() -> Planted:
    """A channel of a stream that only its own block reads, into itself."""
    net = Net(8)
    h = net.op("Relu", [net.conv("x", "stem", 8, 3, 3)], "stem.r")
    h = net.op("Relu", [net.op("Add", [net.conv(h, "a", 8, 8, 3), h], "a.add")], "a.r")
    net.head(net.op("Relu", [net.conv(h, "c", 6, 8, 3)], "c.r"), 6)
    net.weights["c.w"][:, 2] = 0
    net.weights["a.w"][[i for i in range(8) if i != 2], 2] = 0
    return Planted(net.model(["N", 3, 8, 8], ["N", 5]), {("stem.w", 2): UNREAD, ("a.w", 2): UNREAD})


def depthwise() -> Planted:
    """A zero depthwise filter: its channel goes, and what feeds it. Zero input, bias above zero: constant."""
    net = Net(9)
    h = net.op("Relu", [net.conv("x", "e", 8, 3)], "e.r")
    h = net.op("Relu", [net.conv(h, "d", 8, 8, 3, group=8)], "d.r")
    net.head(net.op("Relu", [net.conv(h, "p", 6, 8)], "p.r"), 6)
    net.weights["d.w"][0], net.weights["d.b"][0] = 0, -1
    net.weights["e.w"][1], net.weights["e.b"][1], net.weights["d.b"][1] = 0, 0, 0.7
    net.weights["e.w"][2], net.weights["e.b"][2], net.weights["d.b"][2] = 0, 0.5, 0.7
    dead = {(f"{name}.w", 1): CONSTANT for name in "ed"} | {(f"{name}.w", 0): SILENT for name in "ed"}
    return Planted(net.model(["N", 3, 8, 8], ["N", 5]), dead)


def pooled(count: int) -> Planted:
    """An average over padding: where that counts, a constant is another number at the border."""
    net, h = two(bias=(0.4, 0.0))
    h = net.op("AveragePool", [h], "ap", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=count)
    h = net.op("Relu", [net.conv(h, "c2", 6, 8, 1)], "r2")
    net.head(h, 6)
    dead = {("c1.w", 1): ZERO} | ({} if count else {("c1.w", 0): CONSTANT})
    return Planted(net.model(["N", 3, 8, 8], ["N", 5]), dead)


def softmax() -> Planted:
    """A Softmax over channels needs every one of them, zero or not."""
    net, h = two("", bias=(0.0, 0.0))
    net.op("Identity", [net.conv(net.op("Softmax", [h], "s", axis=1), "c2", 6, 8, 1)], "y")
    return Planted(net.model(["N", 3, 8, 8], ["N", 6, 8, 8]))


def concatenated() -> Planted:
    """Each half of a Concat keeps its own dead ones; a Transpose and a Reshape lie before the reader."""
    net, h = two(bias=(0.0,))
    g = net.op("Relu", [net.conv("x", "g", 4, 3, 3)], "g.r")
    h = net.op("Concat", [h, g], "cat", axis=1)
    h = net.op("Transpose", [net.op("GlobalAveragePool", [h], "gap")], "nhwc", perm=[0, 2, 3, 1])
    h = net.op("Reshape", [h, net.constant("shape", [-1, 12])], "flat")
    net.dense(h, "fc", 5, 12, "y")
    net.weights["fc.w"][:, [1, 10]] = 0
    return Planted(net.model(["N", 3, 8, 8], ["N", 5]), {("c1.w", 0): ZERO, ("c1.w", 1): UNREAD, ("g.w", 2): UNREAD})


def flattened() -> Planted:
    """A channel is 16 inputs of a matrix; one of them with a weight keeps it."""
    net, h = two(k=3)
    h = net.op("MaxPool", [h], "pool", kernel_shape=[2, 2], strides=[2, 2])
    net.dense(net.op("Flatten", [h], "flat"), "fc", 5, 128, "y")
    net.weights["fc.w"][:, 16:48] = 0
    net.weights["fc.w"][3, 40] = 1e-6
    return Planted(net.model(["N", 3, 8, 8], ["N", 5]), {("c1.w", 1): UNREAD})


def gated() -> Planted:
    """A gate that is zero for certain silences its channel; what only that channel's gate reads goes, too."""
    net = Net(10)
    h = net.op("Relu", [net.conv("x", "e", 8, 3)], "e.r")
    gate = net.op("GlobalAveragePool", [h], "squeeze")
    gate = net.op("Relu", [net.conv(gate, "s1", 6, 8)], "s1.r")
    gate = net.op("HardSigmoid", [net.conv(gate, "s2", 8, 6)], "gate")
    h = net.op("Mul", [h, gate], "scaled")
    net.head(net.op("Relu", [net.conv(h, "p", 6, 8)], "p.r"), 6)
    net.weights["s2.w"][2], net.weights["s2.b"][2] = 0, -9
    net.weights["s1.w"][:, 2] = 0
    net.weights["s2.w"][3], net.weights["s2.b"][3] = 0, -9  # its channel is still squeezed
    return Planted(net.model(["N", 3, 8, 8], ["N", 5]), {("e.w", 2): UNREAD, ("s2.w", 2): UNREAD})


def grouped() -> Planted:
    """Three groups of four lose one dead channel each; a second one in a single group has to stay."""
    net = Net(11)
    h = net.op("Relu", [net.conv("x", "r", 12, 3)], "r.r")
    h = net.op("Relu", [net.conv(h, "g", 12, 12, 3, group=3)], "g.r")
    net.head(net.op("Relu", [net.conv(h, "p", 6, 12, 3)], "p.r"), 6)
    dead = [1, 2, 6, 11]
    net.weights["g.w"][dead] = 0
    net.weights["g.b"][dead] = 0
    return Planted(net.model(["N", 3, 8, 8], ["N", 5]), {("g.w", i): ZERO for i in dead})


def multiplied() -> Planted:
    """Gemm and MatMul: a constant goes to the bias behind a product, times alpha over beta in a Gemm."""
    net = Net(12)
    h = net.op("Relu", [net.dense("x", "g1", 8, 6)], "r1")
    h = net.op("Gemm", [h, net.weight("g2.w", 8, 7), net.weight("g2.b", 7)], "g2", alpha=0.5, beta=2.0)
    h = net.op("Relu", [h], "r2")
    h = net.op("Add", [net.op("MatMul", [h, net.weight("m3.w", 7, 6)], "m3"), net.weight("m3.b", 6)], "a3")
    net.op("MatMul", [net.op("Relu", [h], "r3"), net.weight("m4.w", 6, 4)], "y")
    net.weights["g1.w"][[0, 1]] = 0
    net.weights["g1.b"][[0, 1]] = [0.8, -0.8]
    net.weights["g2.w"][:, 2], net.weights["g2.b"][2] = 0, 0.6
    net.weights["m3.w"][:, 3], net.weights["m3.b"][3] = 0, 0.6  # the last product has no bias
    dead = {("g1.w", 0): CONSTANT, ("g1.w", 1): ZERO, ("g2.w", 2): CONSTANT}
    return Planted(net.model(["N", 6], ["N", 4]), dead)


def infinite() -> Planted:
    """A logarithm of what may be zero: a weight of zero on it is not a number, so the reader does matter."""
    net, h = two()
    h = net.op("Relu", [net.conv(net.op("Log", [h], "log"), "c2", 6, 8, 1)], "r2")
    net.weights["c2.w"][:, 0] = 0
    net.head(h, 6)
    return Planted(net.model(["N", 3, 8, 8], ["N", 5]))


def transposed() -> Planted:
    """A transposed convolution reaches each place with some of its taps: zero goes, a constant stays."""
    net, h = two(bias=(0.0, 0.4))
    h = net.op("ConvTranspose", [h, net.weight("t.w", 8, 6, 2, 2), net.weight("t.b", 6)], "t", strides=[2, 2])
    net.weights["t.w"][3] = 0
    net.weights["t.w"][:, 4], net.weights["t.b"][4] = 0, -1
    net.head(net.op("Relu", [net.conv(net.op("Relu", [h], "t.r"), "c3", 6, 6, 3)], "c3.r"), 6)
    dead = {("c1.w", 0): ZERO, ("c1.w", 3): UNREAD, ("t.w", 4): ZERO}
    return Planted(net.model(["N", 3, 8, 8], ["N", 5]), dead)


def attention() -> Planted:
    """Heads: nothing reads head 1's values, so its queries and keys go, too; one feature is zero in every query."""
    net = Net(13)
    rows = {}
    for name in "qkv":
        h = net.op(
            "Add", [net.op("MatMul", ["x", net.weight(f"{name}.w", 8, 12)], f"{name}.m"), f"{name}.b"], f"{name}.a"
        )
        net.weight(f"{name}.b", 12)
        h = net.op("Reshape", [h, net.constant(f"{name}.s", [0, 5, 3, 4])], f"{name}.r")
        rows[name] = net.op("Transpose", [h], f"{name}.t", perm=[0, 2, 3, 1] if name == "k" else [0, 2, 1, 3])
    weights = net.op("Softmax", [net.op("MatMul", [rows["q"], rows["k"]], "scores")], "probabilities", axis=-1)
    h = net.op("Transpose", [net.op("MatMul", [weights, rows["v"]], "mixed")], "back", perm=[0, 2, 1, 3])
    h = net.op("Reshape", [h, net.constant("o.s", [0, 5, 12])], "merged")
    net.op("MatMul", [h, net.weight("o.w", 12, 6)], "y")
    net.weights["o.w"][4:8] = 0
    dead = {(f"{name}.w", i): UNREAD for name in "qkv" for i in range(4, 8)}
    return Planted(net.model(["N", 5, 8], ["N", 5, 6]), dead)


def fused() -> Planted:
    """The runtime's own convolution with a ReLU in it."""
    net = Net(14)
    weights = [net.weight("c1.w", 8, 3, 3, 3), net.weight("c1.b", 8)]
    h = net.op("FusedConv", ["x", *weights], "c1", pads=[1] * 4, activation="Relu", domain="com.microsoft")
    h = net.op("FusedConv", [h, net.weight("c2.w", 6, 8, 1, 1), net.weight("c2.b", 6)], "c2", domain="com.microsoft")
    net.head(net.op("Relu", [h], "r2"), 6)
    net.weights["c1.w"][:3], net.weights["c1.b"][:3] = 0, [0, -0.3, 0.4]
    proto = net.model(["N", 3, 8, 8], ["N", 5])
    proto.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return Planted(proto, {("c1.w", 0): ZERO, ("c1.w", 1): ZERO, ("c1.w", 2): CONSTANT})


PLANTED: dict[str, Callable[[], Planted]] = {
    build.__name__: build
    for build in (
        zero_filters,
        constants_unpadded,
        constant_without_bias,
        leaky,
        leaky_unpadded,
        slopes,
        sigmoids,
        unread,
        never_fires,
        bounded,
        normalised,
        normalised_unpadded,
        residual,
        ring,
        depthwise,
        softmax,
        concatenated,
        flattened,
        gated,
        grouped,
        multiplied,
        infinite,
        transposed,
        attention,
        fused,
    )
}
PLANTED["padding counts"] = lambda: pooled(1)
PLANTED["padding does not count"] = lambda: pooled(0)
