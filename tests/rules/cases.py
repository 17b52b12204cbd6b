"""Small graphs, at least one for each operator that has a rule, set between what produces and what consumes.

A case is written as onnx's text form. `case("name", "x[N,3,4,4] -> y[N,5,4,4]", body, w=(6, 3, 1, 1))` makes a graph
with the inputs and outputs of the signature, and one initializer for each keyword: a tuple is the shape of a random
weight, a list or array is the value itself. `FLOAT` in a body is the element type that the case is built for.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, parser

from onnxprune.model import Array, Model, from_proto
from onnxprune.normalise import normalise
from onnxprune.rules.pointwise import UNARY
from onnxprune.rules.reduce import REDUCE

BATCH = 2
NAMES = {np.dtype(np.float64): "double", np.dtype(np.float32): "float"}
Weight = tuple[int, ...] | list[object] | NDArray[np.generic] | float


@dataclass(frozen=True, eq=False)
class Case:
    """One graph.

    Attributes:
        name: Its line in the golden file.
        signature: Inputs and outputs.
        body: Nodes.
        weights: Initializers.
        opset: Version of the default operator set.
        ir: IR version.
        lacks: Why onnx's reference implementation cannot run it; onnxruntime does, in float32. Empty: it can.
        whole: Whether nothing of it can be pruned.
        listed: Whether initializers are listed among the graph's inputs, as before IR version 4.
    """

    name: str
    signature: str
    body: str
    weights: dict[str, Weight] = field(default_factory=dict)
    opset: int = 17
    ir: int = 8
    lacks: str = ""
    whole: bool = False
    listed: bool = False

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The precision its laws are tested in."""
        return np.dtype(np.float32 if self.lacks else np.float64)

    def proto(self) -> onnx.ModelProto:
        """The graph as a model."""
        kind = NAMES[self.dtype]
        inputs, outputs = (declared(side, kind) for side in self.signature.split("->"))
        body = self.body.replace("FLOAT", str(TensorProto.DataType.Value(kind.upper())))
        body = re.sub(r"\bfloat(?=\[|\s)", kind, body)
        graph = parser.parse_graph(f"g ({inputs}) => ({outputs}) {{ {body} }}")
        for i, node in enumerate(graph.node):
            node.name = f"{node.op_type}{i}"
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        tensors = [numpy_helper.from_array(self.array(w, rng), n) for n, w in self.weights.items()]
        graph.initializer.extend(tensors)
        if self.listed:
            graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=self.ir)

    def array(self, weight: Weight, rng: np.random.Generator) -> Array:
        """The value of an initializer."""
        if isinstance(weight, tuple):
            return rng.normal(size=weight).astype(self.dtype)
        value = np.array(weight)
        return value.astype(self.dtype) if value.dtype == np.float64 else value

    def model(self) -> Model:
        """The normalised model."""
        return normalise(from_proto(self.proto()))

    def feeds(self, seed: int = 0) -> dict[str, Array]:
        """Random inputs; the symbolic batch is `BATCH`."""
        rng, feeds = np.random.default_rng(seed), {}
        for info in (i for i in self.proto().graph.input if i.name not in self.weights):
            shape = tuple(d.dim_value or BATCH for d in info.type.tensor_type.shape.dim)
            dtype = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
            feeds[info.name] = (rng.normal(size=shape) if dtype.kind == "f" else rng.integers(0, 2, shape)).astype(
                dtype
            )
        return feeds


def declared(side: str, kind: str) -> str:
    """`x[N,3], i:int64[2]` as onnx's text form declares inputs and outputs."""
    found = re.findall(r"(\w+)(?::(\w+))?\[([^\]]*)\]", side)
    return ", ".join(f"{given or kind}[{dims}] {name}" for name, given, dims in found)


CASES: dict[str, Case] = {}


def case(
    name: str,
    signature: str,
    body: str,
    *,
    opset: int = 17,
    ir: int = 8,
    lacks: str = "",
    whole: bool = False,
    listed: bool = False,
    **weights: Weight,
) -> None:
    """Add a case."""
    assert name not in CASES, name
    CASES[name] = Case(name, signature, body, weights, opset, ir, lacks, whole, listed)


def chain(name: str, body: str, *, w: Weight = (6, 3, 1, 1), v: Weight = (5, 6, 1, 1), **rest: object) -> None:
    """Add a case `x -> Conv w -> a -> body -> b -> Conv v -> y` on 4x4 images (`out` is the size of y)."""
    out = rest.pop("out", "4,4")
    case(name, f"x[N,3,4,4] -> y[N,5,{out}]", f"a = Conv(x, w) {body} y = Conv(b, v)", w=w, v=v, **rest)  # type: ignore[arg-type]


def dense(name: str, body: str, *, w: Weight = (7, 6), v: Weight = (6, 5), **rest: object) -> None:
    """Add a case `x -> MatMul w -> a -> body -> b -> MatMul v -> y` on matrices."""
    case(name, "x[N,7] -> y[N,5]", f"a = MatMul(x, w) {body} y = MatMul(b, v)", w=w, v=v, **rest)  # type: ignore[arg-type]


def positive(*shape: int) -> Array:
    """Weights in (0.5, 1.5), for variances and scales."""
    return np.random.default_rng(sum(shape)).uniform(0.5, 1.5, shape)


GONE = "removed from the standard before its reference implementation was written"
RUNTIME = "an operator of onnxruntime, not of the standard"
SINGLE = "this version of the standard defines it for float32 only"

# --- elementwise, one input ------------------------------------------------------------------------------------------

PREPARE = {  # what brings the values into the operator's domain
    **dict.fromkeys(("Acos", "Asin", "Atanh", "Log", "Sqrt", "Reciprocal"), "s = Sigmoid(a) b = {}(s)"),
    "Acosh": "e = Abs(a) s = Exp(e) b = Acosh(s)",
    "BitwiseNot": "s = Cast <to=7> (a) t = BitwiseNot(s) b = Cast <to=FLOAT> (t)",
    "Not": "r = Relu(a) s = Cast <to=9> (r) t = Not(s) b = Cast <to=FLOAT> (t)",
    "Cast": "s = Cast <to=6> (a) b = Cast <to=FLOAT> (s)",
    "IsInf": "r = Relu(a) l = Log(r) s = IsInf(l) b = Cast <to=FLOAT> (s)",
    "IsNaN": "l = Log(a) s = IsNaN(l) b = Cast <to=FLOAT> (s)",
}
SINCE = {"BitwiseNot": 18, "Mish": 18, "Gelu": 20, "Swish": 24}
for _op in UNARY:
    _lacks = SINGLE if _op == "Celu" else ""
    chain(_op, PREPARE.get(_op, "b = {}(a)").format(_op), opset=SINCE.get(_op, 17), ir=10, lacks=_lacks)

chain("Clip", "b = Clip(a, low, high)", low=-0.5, high=0.5)
chain("Clip-attributes", "b = Clip <min=-0.5, max=0.5> (a)", opset=6)
chain("CastLike", "b = CastLike(a, t)", t=(1,))
chain("Dropout", "b = Dropout(a)")
chain("Dropout-mask", "s, m = Dropout(a) f = Cast <to=FLOAT> (m) b = Mul(s, f)", opset=13)
chain(
    "ImageScaler",
    "b = ImageScaler <scale=2.0, bias=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]> (a)",
    opset=8,
    lacks=GONE,
    whole=True,
)
chain("Affine", "b = Affine <alpha=2.0, beta=0.5> (a)", opset=8, lacks=GONE, whole=True)
chain("Crop", "b = Crop <border=[1, 0, 0, 1]> (a)", out="3,3", opset=8, lacks=GONE)

# --- elementwise, several inputs -------------------------------------------------------------------------------------

JOIN = "a = Conv(x, w) c = Conv(x, u) {} y = Conv(b, v)"


def join(name: str, body: str, **rest: object) -> None:
    """Add a case in which two convolutions meet: `a` and `c` -> body -> b."""
    given = {"w": (6, 3, 1, 1), "u": (6, 3, 1, 1), "v": (5, 6, 1, 1)} | rest
    case(name, "x[N,3,4,4] -> y[N,5,4,4]", JOIN.format(body), **given)  # type: ignore[arg-type]


for _op in ("Add", "Max", "Mean", "Min", "Mul", "Sub", "Sum"):
    join(_op, f"b = {_op}(a, c)")
for _op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"):
    join(_op, f"r = Round(a) s = Round(c) t = {_op}(r, s) b = Cast <to=FLOAT> (t)")
for _op in ("And", "Or", "Xor"):
    join(_op, f"p = Greater(a, zero) q = Greater(c, zero) t = {_op}(p, q) b = Cast <to=FLOAT> (t)", zero=0.0)
for _op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
    body = f"p = Cast <to=7> (a) q = Cast <to=7> (c) t = {_op}(p, q) b = Cast <to=FLOAT> (t)"
    join(_op, body, opset=18)
join(
    "BitShift",
    'f = Abs(a) g = Abs(c) p = Cast <to=13> (f) q = Cast <to=13> (g) t = BitShift <direction="LEFT"> (p, q) '
    "b = Cast <to=FLOAT> (t)",
)
join("Div", "e = Sigmoid(c) b = Div(a, e)")
join("Mod", "e = Exp(c) b = Mod <fmod=1> (a, e)")
join("Pow", "e = Exp(a) b = Pow(e, c)")
join("Where", "m = Greater(a, c) b = Where(m, a, c)")
join("Sum-three", "b = Sum(a, c, a)")
join("Add-old-broadcast", "s = Add <broadcast=1, axis=1> (a, d) b = Add(s, c)", d=(6,), opset=6)
chain("Add-constant", "b = Add(a, d)", d=(6, 1, 1))
chain("Add-scalar", "b = Add(a, d)", d=0.5)
chain("Div-constant", "b = Div(a, d)", d=positive(1, 6, 1, 1))
chain("Add-stretched", "c = Conv(a, u) b = Add(a, c)", u=(1, 6, 1, 1))
chain("PRelu", "b = PRelu(a, d)", d=(6, 1, 1))
chain("PRelu-shared", "b = PRelu(a, d)", d=(1,))
chain("Where-constant", "m = Greater(a, d) b = Where(m, a, d)", d=(6, 1, 1))

# --- normalisation ---------------------------------------------------------------------------------------------------

NORM: dict[str, Weight] = {"s": positive(6), "t": (6,), "m": (6,), "q": positive(6)}
chain("BatchNormalization", "b = BatchNormalization(a, s, t, m, q)", **NORM)
chain(
    "BatchNormalization-7",
    "b = BatchNormalization(a, s, t, m, q)",
    opset=8,
    lacks="its BatchNormalization 7 returns a tuple in a tuple",
    **NORM,
)
dense("BatchNormalization-matrix", "b = BatchNormalization(a, s, t, m, q)", **NORM)
chain("InstanceNormalization", "b = InstanceNormalization(a, s, t)", s=(6,), t=(6,))
chain(
    "LayerNormalization",
    "c = Conv(a, u) b = LayerNormalization <axis=1> (c, s, t)",
    u=(6, 6, 1, 1),
    s=(6, 4, 4),
    t=(6, 4, 4),
)
dense(
    "LayerNormalization-last", "r = Relu(a) c = MatMul(r, u) b = LayerNormalization(c, s, t)", u=(6, 6), s=(6,), t=(6,)
)
chain("LayerNormalization-spatial", "b = LayerNormalization <axis=2> (a, s, t)", s=(4, 4), t=(4, 4))
dense("RMSNormalization", "r = Relu(a) c = MatMul(r, u) b = RMSNormalization(c, s)", u=(6, 6), s=(6,), opset=23, ir=10)
chain("LpNormalization", "c = Conv(a, u) b = LpNormalization <axis=1> (c)", u=(6, 6, 1, 1))
chain("LpNormalization-spatial", "b = LpNormalization <axis=3> (a)")
chain(
    "GroupNormalization",
    "c = Conv(a, u) b = GroupNormalization <num_groups=2> (c, s, t)",
    u=(6, 6, 1, 1),
    s=(6,),
    t=(6,),
    opset=21,
    ir=10,
)
chain("LRN", "c = Conv(a, u) b = LRN <size=3> (c)", u=(6, 6, 1, 1))
chain(
    "GroupNormalization-by-reshape",
    "d = Conv(a, u) e = Reshape(d, g) f = InstanceNormalization(e, s, t) h = Reshape(f, i) b = Mul(h, k)",
    u=(6, 6, 1, 1), g=[0, 2, -1], i=[-1, 6, 4, 4], s=(2,), t=(2,), k=(6, 1, 1),
)  # fmt: skip
chain("Softmax", "c = Conv(a, u) b = Softmax <axis=1> (c)", u=(6, 6, 1, 1))
chain("Softmax-spatial", "b = Softmax <axis=-1> (a)")
chain("Softmax-12", "b = Softmax <axis=3> (a)", opset=12)
chain("Softmax-12-flattens", "c = Conv(a, u) b = Softmax (c)", u=(6, 6, 1, 1), opset=12)
chain("LogSoftmax", "c = Conv(a, u) b = LogSoftmax <axis=1> (c)", u=(6, 6, 1, 1))
chain("Hardmax", "c = Conv(a, u) b = Hardmax <axis=1> (c)", u=(6, 6, 1, 1))
case(
    "Softmax-over-heads",
    "x[N,7] -> y[N,5]",
    "a = MatMul(x, w) b = Reshape(a, s) c = Softmax <axis=1> (b) d = Reshape(c, t) y = MatMul(d, v)",
    w=(7, 12), v=(12, 5), s=[0, 3, 4], t=[0, 12],
)  # fmt: skip
chain("CumSum", "b = CumSum(a, k)", k=np.array(2))
chain("CumSum-channels", "c = Conv(a, u) b = CumSum(c, k)", u=(6, 6, 1, 1), k=np.array(1))

# --- quantisation ----------------------------------------------------------------------------------------------------

QDQ = "q = QuantizeLinear(a, {0}) b = DequantizeLinear(q, {0})"
chain("QuantizeLinear", QDQ.format("s, z"), s=0.1, z=np.array(3, np.uint8), opset=13, lacks=SINGLE)
chain("QuantizeLinear-scale-of-one", QDQ.format("s, z"), s=[0.1], z=np.array([3], np.uint8), opset=13, lacks=SINGLE)
chain(
    "QuantizeLinear-per-axis", QDQ.format("s, z"), s=positive(6), z=np.arange(6, dtype=np.int8), opset=13, lacks=SINGLE
)
QUANTISED = (
    "f = DequantizeLinear {0} (q, s, z) a = Conv(x, f) g = DequantizeLinear {1} (p, r, k) b = Relu(a) y = Conv(b, g)"
)
WHOLE_NUMBERS = np.random.default_rng(7).integers(0, 255, 66)
case(
    "DequantizeLinear",
    "x[N,3,4,4] -> y[N,5,4,4]",
    QUANTISED.format("", ""),
    q=WHOLE_NUMBERS[:18].astype(np.uint8).reshape(6, 3, 1, 1), s=0.1, z=np.array(128, np.uint8),
    p=WHOLE_NUMBERS[:30].astype(np.uint8).reshape(5, 6, 1, 1), r=0.1, k=np.array(100, np.uint8), lacks=SINGLE,
)  # fmt: skip
case(
    "DequantizeLinear-per-axis",
    "x[N,3,4,4] -> y[N,5,4,4]",
    QUANTISED.format("<axis=0>", "<axis=0>"),
    q=WHOLE_NUMBERS[:18].astype(np.uint8).reshape(6, 3, 1, 1), s=positive(6), z=np.arange(6, dtype=np.uint8),
    p=WHOLE_NUMBERS[:30].astype(np.uint8).reshape(5, 6, 1, 1), r=positive(5), k=np.arange(3, 8, dtype=np.uint8),
    lacks=SINGLE,
)  # fmt: skip
case(
    "DequantizeLinear-contracted-axis",
    "x[N,3,4,4] -> y[N,5,4,4]",
    QUANTISED.format("<axis=0>", "<axis=1>"),
    q=WHOLE_NUMBERS[:18].astype(np.uint8).reshape(6, 3, 1, 1), s=positive(6), z=np.arange(6, dtype=np.uint8),
    p=WHOLE_NUMBERS[:30].astype(np.uint8).reshape(5, 6, 1, 1), r=positive(6), k=np.arange(3, 9, dtype=np.uint8),
    lacks=SINGLE,
)  # fmt: skip
case(
    "ConvInteger",
    "x:uint8[N,3,4,4] -> y[N,5,4,4]",
    "a = ConvInteger(x, w, z) b = Cast <to=FLOAT> (a) y = Conv(b, v)",
    w=(WHOLE_NUMBERS[:18] - 128).astype(np.int8).reshape(6, 3, 1, 1), z=np.array(1, np.uint8), v=(5, 6, 1, 1),
)  # fmt: skip
case(
    "ConvInteger-consumes",
    "x[N,3,4,4] -> y[N,5,4,4]",
    "a = Conv(x, u) c = QuantizeLinear(a, s, z) b = ConvInteger(c, w, z, k) f = Cast <to=FLOAT> (b) y = Conv(f, v)",
    u=(6, 3, 1, 1), s=0.1, z=np.array(9, np.uint8), k=np.array(77, np.uint8),
    w=WHOLE_NUMBERS[:24].astype(np.uint8).reshape(4, 6, 1, 1), v=(5, 4, 1, 1), lacks=SINGLE,
)  # fmt: skip
case(
    "MatMulInteger",
    "x[N,7] -> y[N,5]",
    "a = MatMul(x, u) c = QuantizeLinear(a, s, z) b = MatMulInteger(c, w, z, k) f = Cast <to=FLOAT> (b) "
    "y = MatMul(f, v)",
    u=(7, 6), s=0.1, z=np.array(9, np.uint8), w=WHOLE_NUMBERS[:24].astype(np.uint8).reshape(6, 4),
    k=np.array(77, np.uint8), v=(4, 5), lacks=SINGLE,
)  # fmt: skip
case(
    "MatMulInteger-per-column",
    "x[N,7] -> y[N,5]",
    "a = MatMul(x, u) c = QuantizeLinear(a, s, z) b = MatMulInteger(c, w, z, k) f = Cast <to=FLOAT> (b) "
    "y = MatMul(f, v)",
    u=(7, 6), s=0.1, z=np.array(9, np.uint8), w=WHOLE_NUMBERS[:24].astype(np.uint8).reshape(6, 4),
    k=np.arange(70, 74, dtype=np.uint8), v=(4, 5), lacks=SINGLE,
)  # fmt: skip

# --- convolutions ----------------------------------------------------------------------------------------------------

chain("Conv", "b = Conv <pads=[1, 1, 1, 1]> (a, u, d)", u=(6, 6, 3, 3), d=(6,))
chain("Conv-grouped", "b = Conv <group=2> (a, u, d)", w=(8, 3, 1, 1), u=(6, 4, 1, 1), d=(6,))
chain("Conv-grouped-wide", "b = Conv <group=3> (a, u)", w=(12, 3, 1, 1), u=(12, 4, 1, 1), v=(5, 12, 1, 1))
chain("Conv-depthwise", "b = Conv <group=6, pads=[1, 1, 1, 1]> (a, u, d)", u=(6, 1, 3, 3), d=(6,))
chain("Conv-depthwise-multiplier", "b = Conv <group=6> (a, u)", u=(12, 1, 1, 1), v=(5, 12, 1, 1))
chain("Conv-groups-narrowed", "b = Conv <group=3> (a, u)", u=(3, 2, 1, 1), v=(5, 3, 1, 1))
case("Conv-1d", "x[N,3,8] -> y[N,5,6]", "a = Conv(x, w, b) y = Conv(a, v)", w=(6, 3, 3), b=(6,), v=(5, 6, 1))
case("Conv-3d", "x[N,3,3,3,3] -> y[N,5,2,2,2]", "a = Conv(x, w) y = Conv(a, v)", w=(6, 3, 2, 2, 2), v=(5, 6, 1, 1, 1))
chain("Conv-dynamic-weight", "r = Relu(u) b = Conv(a, r)", u=(6, 6, 1, 1))
chain(
    "ConvTranspose", "b = ConvTranspose <strides=[2, 2]> (a, u, d)", u=(6, 4, 2, 2), d=(4,), v=(5, 4, 1, 1), out="8,8"
)
chain(
    "ConvTranspose-grouped",
    "b = ConvTranspose <group=2> (a, u, d)",
    w=(8, 3, 1, 1),
    u=(8, 3, 1, 1),
    d=(6,),
    lacks="its grouped ConvTranspose writes one channel for each group",
)
chain("ConvTranspose-depthwise", "b = ConvTranspose <group=6> (a, u)", u=(6, 1, 1, 1))
chain(
    "FusedConv",
    'b = com.microsoft.FusedConv <activation="Relu"> (a, u, d)',
    u=(6, 6, 1, 1), d=(6,), lacks=RUNTIME,
)  # fmt: skip
chain(
    "FusedConv-sum",
    'c = Conv(a, t) b = com.microsoft.FusedConv <activation="Relu"> (a, u, d, c)',
    u=(6, 6, 1, 1), t=(6, 6, 1, 1), d=(6,), lacks=RUNTIME,
)  # fmt: skip

# --- matrix products -------------------------------------------------------------------------------------------------

GEMM = {"w": (7, 6), "v": (6, 5)}
dense("Gemm", "b = Gemm(a, u, d)", u=(6, 6), d=(6,))
dense("Gemm-transB", "b = Gemm <transB=1, alpha=0.5, beta=2.0> (a, u, d)", u=(4, 6), d=(1, 4), v=(4, 5))
dense("Gemm-transB-square", "b = Gemm <transB=1> (a, u)", u=(6, 6))
dense("Gemm-scalar-bias", "b = Gemm(a, u, d)", u=(6, 6), d=0.5)
dense("Gemm-bias-of-one", "b = Gemm(a, u, d)", u=(6, 6), d=(1,))
dense("Gemm-no-bias", "b = Gemm(a, u)", u=(6, 6))
case(
    "Gemm-transA",
    "x[7,4] -> y[4,5]",
    "a = Gemm <transA=1> (w, x) b = Gemm <transA=1> (a, v) y = Relu(b)",
    w=(7, 6),
    v=(6, 5),
)
case("Gemm-bias-column", "x[7,4] -> y[5,4]", "a = Gemm(w, x, d) y = MatMul(v, a)", w=(6, 7), d=(6, 1), v=(5, 6))
dense("MatMul", "b = MatMul(a, u)", u=(6, 6))
case("MatMul-batched", "x[N,3,7] -> y[N,3,5]", "a = MatMul(x, w) y = MatMul(a, v)", w=(7, 6), v=(6, 5))
case(
    "MatMul-batched-weights", "x[N,3,2,7] -> y[N,3,2,5]", "a = MatMul(x, w) y = MatMul(a, v)", w=(3, 7, 6), v=(3, 6, 5)
)
case("MatMul-stretched-batch", "x[1,2,7] -> y[3,2,5]", "a = MatMul(x, w) y = MatMul(a, v)", w=(3, 7, 6), v=(1, 6, 5))
case("MatMul-vector-first", "x[7] -> y[5]", "a = MatMul(x, w) y = MatMul(a, v)", w=(7, 6), v=(6, 5))
case("MatMul-vector-second", "x[N,7] -> y[N]", "a = MatMul(x, w) y = MatMul(a, v)", w=(7, 6), v=(6,))
case("MatMul-weight-first", "x[N,7,3] -> y[N,5,3]", "a = MatMul(w, x) y = MatMul(v, a)", w=(6, 7), v=(5, 6))
case(
    "MatMul-activations",
    "x[N,4,7] -> y[N,4,5]",
    "q = MatMul(x, w) k = MatMul(x, u) t = Transpose <perm=[0, 2, 1]> (k) s = MatMul(q, t) p = Softmax <axis=-1> (s) "
    "a = MatMul(x, z) c = MatMul(p, a) y = MatMul(c, v)",
    w=(7, 6), u=(7, 6), z=(7, 8), v=(8, 5),
)  # fmt: skip
ATTENTION = (
    "{0} q0 = Reshape(q, s) k0 = Reshape(k, s) a0 = Reshape(a, s) q1 = Transpose <perm=[0, 2, 1, 3]> (q0) "
    "k1 = Transpose <perm=[0, 2, 3, 1]> (k0) a1 = Transpose <perm=[0, 2, 1, 3]> (a0) m = MatMul(q1, k1) n = Mul(m, c) "
    "p = Softmax <axis=-1> (n) o = MatMul(p, a1) o1 = Transpose <perm=[0, 2, 1, 3]> (o) o2 = Reshape(o1, t) "
    "y = MatMul(o2, v)"
)
case(
    "attention",
    "x[N,4,7] -> y[N,4,5]",
    ATTENTION.format("q = MatMul(x, w) k = MatMul(x, u) a = MatMul(x, z)"),
    w=(7, 12), u=(7, 12), z=(7, 12), v=(12, 5), s=[0, 0, 3, 4], t=[0, 0, 12], c=0.5,
)  # fmt: skip
case(
    "attention-fused-projection",
    "x[N,4,7] -> y[N,4,5]",
    "p0 = MatMul(x, w) p1 = Add(p0, d) p2 = Reshape(p1, s) p3 = Transpose <perm=[2, 0, 3, 1, 4]> (p2) "
    "q = Gather <axis=0> (p3, i0) k = Gather <axis=0> (p3, i1) a = Gather <axis=0> (p3, i2) "
    "kt = Transpose <perm=[0, 1, 3, 2]> (k) m = MatMul(q, kt) p = Softmax <axis=-1> (m) o = MatMul(p, a) "
    "o1 = Transpose <perm=[0, 2, 1, 3]> (o) o2 = Reshape(o1, t) y = MatMul(o2, v)",
    w=(7, 24), d=(24,), v=(8, 5), s=[0, 0, 3, 2, 4], t=[0, 0, 8],
    i0=np.array(0), i1=np.array(1), i2=np.array(2),
)  # fmt: skip
case(
    "attention-split-projection",
    "x[N,4,7] -> y[N,4,5]",
    ATTENTION.format("qka = MatMul(x, w) q, k, a = Split <axis=2> (qka)"),
    w=(7, 36), v=(12, 5), s=[0, 0, 3, 4], t=[0, 0, 12], c=0.5, opset=13,
)  # fmt: skip

case(
    "attention-fused-projection-unbound",  # the dynamo exporter writes unbind as Slice and Squeeze
    "x[N,4,7] -> y[N,4,5]",
    "p0 = MatMul(x, w) p1 = Add(p0, d) p2 = Reshape(p1, s) p3 = Transpose <perm=[2, 0, 3, 1, 4]> (p2) "
    "q1 = Slice(p3, i0, i1, i0) q = Squeeze(q1, i0) k1 = Slice(p3, i1, i2, i0) k = Squeeze(k1, i0) "
    "a1 = Slice(p3, i2, i3, i0) a = Squeeze(a1, i0) "
    "kt = Transpose <perm=[0, 1, 3, 2]> (k) m = MatMul(q, kt) p = Softmax <axis=-1> (m) o = MatMul(p, a) "
    "o1 = Transpose <perm=[0, 2, 1, 3]> (o) o2 = Reshape(o1, t) y = MatMul(o2, v)",
    w=(7, 24), d=(24,), v=(8, 5), s=[0, 0, 3, 2, 4], t=[0, 0, 8], i0=[0], i1=[1], i2=[2], i3=[3],
)  # fmt: skip
case(
    "attention-linear",  # a shifted feature map is not zero where its weights are: the features stay
    "x[N,4,7] -> y[N,4,5]",
    "q0 = MatMul(x, w) q1 = Elu(q0) q = Add(q1, c) k0 = MatMul(x, u) k1 = Elu(k0) k = Add(k1, c) a = MatMul(x, z) "
    "kt = Transpose <perm=[0, 2, 1]> (k) m = MatMul(kt, a) o = MatMul(q, m) y = MatMul(o, v)",
    w=(7, 6), u=(7, 6), z=(7, 8), v=(8, 5), c=1.0,
)  # fmt: skip
case(
    "attention-heads-merged-with-the-batch",  # torch.nn.MultiheadAttention
    "x[3,2,7] -> y[6,5]",
    "q0 = MatMul(x, w) q1 = Reshape(q0, s) q2 = Transpose <perm=[1, 0, 2]> (q1) q = Reshape(q2, r) "
    "k0 = MatMul(x, u) k1 = Reshape(k0, s) k2 = Transpose <perm=[1, 2, 0]> (k1) k = Reshape(k2, l) "
    "a0 = MatMul(x, z) a1 = Reshape(a0, s) a2 = Transpose <perm=[1, 0, 2]> (a1) a = Reshape(a2, r) "
    "m = MatMul(q, k) p = Softmax <axis=-1> (m) o = MatMul(p, a) "
    "o1 = Transpose <perm=[2, 0, 1, 3]> (o) o2 = Reshape(o1, t) y = MatMul(o2, v)",
    w=(7, 12), u=(7, 12), z=(7, 12), v=(12, 5),
    s=[3, 6, 4], r=[2, 3, 3, 4], l=[2, 3, 4, 3], t=[6, 12],
)  # fmt: skip

case(
    "attention-halves-turned",
    "x[N,4,7] -> y[N,4,5]",
    "q = MatMul(x, w) r = Reshape(q, s) h = Slice(r, i, j, k) l = Slice(r, j, e, k) n = Neg(l) "
    "t = Concat <axis=3> (n, h) m = Mul(t, c) o = Reshape(m, g) y = MatMul(o, v)",
    w=(7, 12), v=(12, 5), s=[0, 0, 3, 4], g=[0, 0, 12], i=[0], j=[2], e=[2**62], k=[3], c=0.5,
)  # fmt: skip
case(
    "Conv-over-rows",
    "x[2,7] -> y[2,5,5]",
    "a = MatMul(x, w) b = Reshape(a, s) c = Transpose(b) d = Conv(c, u) e = Transpose(d) y = MatMul(e, v)",
    w=(7, 12), u=(5, 3, 1), v=(4, 5), s=[2, 3, 4],
)  # fmt: skip
case(
    "Split-of-rows",
    "x[N,7] -> y[N,5]",
    "a = MatMul(x, w) b = Reshape(a, s) c, d, e = Split <axis=2> (b, p) f = Reshape(d, t) y = MatMul(f, v)",
    w=(7, 16), v=(6, 5), s=[0, 2, 8], t=[0, 6], p=[1, 3, 4],
)  # fmt: skip

# --- movement --------------------------------------------------------------------------------------------------------

chain("Transpose", "c = Transpose <perm=[2, 0, 3, 1]> (a) b = Transpose <perm=[1, 3, 0, 2]> (c)")
chain("Transpose-reversed", "c = Transpose(a) b = Transpose(c)")
case(
    "Transpose-last",
    "x[N,3,4,4] -> y[N,4,4,5]",
    "a = Conv(x, w) b = Transpose <perm=[0, 2, 3, 1]> (a) y = MatMul(b, v)",
    w=(6, 3, 1, 1),
    v=(6, 5),
)
join("Concat", "b = Concat <axis=1> (a, c)", u=(4, 3, 1, 1), v=(5, 10, 1, 1))
join("Concat-spatial", "d = Concat <axis=2> (a, c) b = MaxPool <kernel_shape=[2, 1], strides=[2, 1]> (d)")
chain("Concat-with-input", "b = Concat <axis=1> (x, a)", v=(5, 9, 1, 1))
chain("Concat-twice", "b = Concat <axis=1> (a, a)", v=(5, 12, 1, 1))
chain("Split", "c, d = Split <axis=1> (a) b = Mul(c, d)", v=(5, 3, 1, 1), opset=13)
chain("Split-uneven", "c, d = Split <axis=1> (a, s) b = Concat <axis=1> (d, c)", s=[4, 2])
chain("Split-attribute", "c, d = Split <axis=1, split=[2, 4]> (a) b = Concat <axis=1> (d, c)", opset=11)
chain(
    "Split-num-outputs",
    "c, d = Split <axis=1, num_outputs=2> (a) b = Concat <axis=1> (d, c)",
    w=(7, 3, 1, 1),
    v=(5, 7, 1, 1),
    opset=18,
)
chain("Split-spatial", "c, d = Split <axis=2> (a) b = Add(c, d)", out="2,4", opset=13)
SLICED: dict[str, Weight] = {"w": (8, 3, 1, 1), "v": (5, 4, 1, 1)}
chain("Slice", "b = Slice(a, i, j, k)", i=[2], j=[6], k=[1], **SLICED)
chain("Slice-negative", "b = Slice(a, i, j, k)", i=[-5], j=[-1], k=[-3], **SLICED)
chain("Slice-attributes", "b = Slice <starts=[2], ends=[6], axes=[1]> (a)", opset=9, **SLICED)
chain("Slice-strided", "b = Slice(a, i, j, k, s)", i=[0], j=[2**31], k=[1], s=[2], **SLICED)
chain(
    "Slice-backwards", "b = Slice(a, i, j, k, s)", i=[-1], j=[-(2**62)], k=[1], s=[-1], w=(8, 3, 1, 1), v=(5, 8, 1, 1)
)
chain(
    "Slice-strided-and-spatial", "b = Slice(a, i, j, k, s)", i=[1, 0], j=[8, 4], k=[1, 3], s=[2, 2], out="4,2", **SLICED
)
chain(
    "Slice-halves",
    "c = Slice(a, i, j, k) d = Slice(a, j, e, k) b = Mul(c, d)",
    i=[0],
    j=[4],
    e=[2**62],
    k=[1],
    **SLICED,
)
chain("Slice-spatial", "b = Slice(a, i, j)", i=[0, 0, 1], j=[9, 9, 3], out="2,4", v=(5, 6, 1, 1))
case(
    "Slice-of-rows",
    "x[N,7] -> y[N,5]",
    "a = MatMul(x, w) b = Reshape(a, s) c = Slice(b, i, j, k) d = Reshape(c, t) y = MatMul(d, v)",
    w=(7, 16), v=(8, 5), s=[0, 2, 8], t=[0, 8], i=[2], j=[6], k=[2],
)  # fmt: skip
chain("Pad", "b = Pad(a, p)", p=[0, 2, 0, 0, 0, 1, 0, 0], v=(5, 9, 1, 1))
chain("Pad-attributes", "b = Pad <pads=[0, 2, 0, 0, 0, 1, 0, 0]> (a)", v=(5, 9, 1, 1), opset=9)
chain("Pad-axes", "b = Pad(a, p, z, k)", p=[2, 1, 1, 1], z=0.5, k=[1, -1], v=(5, 9, 1, 1), out="4,6", opset=18)
chain("Pad-reflect", 'b = Pad <mode="reflect"> (a, p)', p=[0, 0, 1, 1, 0, 0, 1, 1], out="6,6")
chain(
    "Pad-reflect-channels",
    'c = Conv(a, u) b = Pad <mode="reflect"> (c, p)',
    p=[0, 2, 0, 0, 0, 0, 0, 0],
    u=(6, 6, 1, 1),
    v=(5, 8, 1, 1),
)
chain(
    "Pad-negative",
    "c = Conv(a, u) b = Pad(c, p)",
    p=[0, -2, 0, 0, 0, 0, 0, 0],
    u=(6, 6, 1, 1),
    v=(5, 4, 1, 1),
    lacks="it pads with numpy, which cannot cut",
)
chain("Squeeze", "c = GlobalAveragePool(a) d = Squeeze(c, k) b = Unsqueeze(d, k)", k=[2, 3], out="1,1")
chain(
    "Squeeze-attribute",
    "c = GlobalAveragePool(a) d = Squeeze <axes=[2, 3]> (c) b = Unsqueeze <axes=[2, 3]> (d)",
    opset=11,
    out="1,1",
)
chain("Unsqueeze", "c = Unsqueeze(a, i) b = Squeeze(c, j)", i=[-4, 0], j=[0, 2])
case(
    "Reshape-flattens",
    "x[N,3,2,2] -> y[N,5]",
    "a = Conv(x, w) b = Reshape(a, s) y = Gemm(b, v, d)",
    w=(6, 3, 1, 1),
    s=[0, -1],
    v=(24, 5),
    d=(5,),
)
case(
    "Reshape-fixed",
    "x[2,3,2,2] -> y[2,5]",
    "a = Conv(x, w) b = Reshape(a, s) y = MatMul(b, v)",
    w=(6, 3, 1, 1),
    s=[2, 24],
    v=(24, 5),
)
case(
    "Reshape-batch-unknown",
    "x[N,3,2,2] -> y[N,5]",
    "a = Conv(x, w) b = Reshape(a, s) y = MatMul(b, v)",
    w=(6, 3, 1, 1),
    s=[-1, 24],
    v=(24, 5),
)
case(
    "Reshape-old",
    "x[2,3,2,2] -> y[2,5]",
    "a = Conv(x, w) b = Reshape <shape=[2, 24]> (a) y = MatMul(b, v)",
    w=(6, 3, 1, 1),
    v=(24, 5),
    opset=4,
    lacks="its Reshape reads the target from an input only",
    ir=3,
    listed=True,
)
case(
    "Reshape-computed",
    "x[N,3,2,2] -> y[N,5]",
    "a = Conv(x, w) s = Shape(a) n = Gather(s, i) m = Unsqueeze(n, j) t = Concat <axis=0> (m, k) b = Reshape(a, t) "
    "y = MatMul(b, v)",
    w=(6, 3, 1, 1), i=np.array(0), j=[0], k=[24], v=(24, 5),
)  # fmt: skip
case(
    "Reshape-sizes-of-channels",
    "x[N,3,H,2] -> y[N,5]",
    "a = Conv(x, w) s = Shape(a) n = Gather(s, i) c = Gather(s, e) m = Unsqueeze(n, j) f = Unsqueeze(c, j) "
    "t = Concat <axis=0> (m, f, k) b = Reshape(a, t) r = ReduceMean <axes=[2], keepdims=0> (b) y = MatMul(r, v)",
    w=(6, 3, 1, 1), i=np.array(0), e=np.array(1), j=[0], k=[-1], v=(6, 5),
)  # fmt: skip
chain(
    "Reshape-groups",
    "c = Reshape(a, s) d = Relu(c) b = Reshape(d, t)",
    w=(8, 3, 1, 1),
    v=(5, 8, 1, 1),
    s=[0, 2, 4, 4, 4],
    t=[0, 8, 4, 4],
)
chain(
    "Reshape-groups-normalised",
    "c = Reshape(a, s) d = Softmax <axis=2> (c) b = Reshape(d, t)",
    w=(8, 3, 1, 1),
    v=(5, 8, 1, 1),
    s=[0, 4, 2, 4, 4],
    t=[0, 8, 4, 4],
)
chain(
    "channel-shuffle",
    "c = Reshape(a, s) d = Transpose <perm=[0, 2, 1, 3, 4]> (c) b = Reshape(d, t)",
    w=(8, 3, 1, 1),
    v=(5, 8, 1, 1),
    s=[0, 2, 4, 4, 4],
    t=[0, -1, 4, 4],
)
chain(
    "ShuffleNet-unit",
    "e = Conv <group=2> (a, u) c = Reshape(e, s) d = Transpose <perm=[0, 2, 1, 3, 4]> (c) f = Reshape(d, t) "
    "g = Conv <group=8> (f, h) b = Conv <group=2> (g, k)",
    w=(8, 3, 1, 1), u=(8, 4, 1, 1), h=(8, 1, 1, 1), k=(6, 4, 1, 1), s=[0, 2, 4, 4, 4], t=[0, -1, 4, 4],
)  # fmt: skip
case(
    "Flatten",
    "x[N,3,2,2] -> y[N,5]",
    "a = Conv(x, w) b = Flatten(a) y = Gemm <transB=1> (b, v)",
    w=(6, 3, 1, 1),
    v=(5, 24),
)
case(
    "Flatten-channels-last",
    "x[N,3,2,2] -> y[N,5]",
    "a = Conv(x, w) c = Transpose <perm=[0, 2, 3, 1]> (a) b = Flatten(c) y = Gemm <transB=1> (b, v)",
    w=(6, 3, 1, 1),
    v=(5, 24),
)
case(
    "Flatten-axis-2",
    "x[2,3,2,2] -> y[12,5]",
    "a = Conv(x, w) b = Flatten <axis=2> (a) y = MatMul(b, v)",
    w=(6, 3, 1, 1),
    v=(4, 5),
    whole=True,
)
chain("Gather", "b = Gather <axis=1> (a, i)", i=[5, 0, -3, 0], v=(5, 4, 1, 1))
chain(
    "Gather-scalar", "c = Gather <axis=1> (a, i) d = Unsqueeze(c, k) b = Add(a, d)", i=np.array(-2), k=[1], whole=True
)
chain(
    "Gather-matrix",
    "c = Conv(a, u) d = Gather <axis=1> (c, i) b = Reshape(d, s)",
    u=(6, 6, 1, 1),
    i=[[5, 0], [2, 1]],
    s=[0, -1, 4, 4],
    v=(5, 4, 1, 1),
)
chain("Gather-spatial", "b = Gather <axis=3> (a, i)", i=[3, 1], out="4,2")
case(
    "Gather-embedding",
    "x:int64[N,3] -> y[N,3,5]",
    "a = Gather <axis=0> (w, x) y = MatMul(a, v)",
    w=(9, 6),
    v=(6, 5),
    whole=True,
)
case(
    "Gather-embedding-projected",
    "x:int64[N,3] -> y[N,3,5]",
    "a = Gather <axis=0> (w, x) b = MatMul(a, u) y = MatMul(b, v)",
    w=(9, 6),
    u=(6, 8),
    v=(8, 5),
)
case(
    "Gather-of-rows",
    "x[N,7] -> y[N,5]",
    "a = MatMul(x, w) b = Reshape(a, s) c = Gather <axis=2> (b, i) d = Reshape(c, t) y = MatMul(d, v)",
    w=(7, 16), v=(8, 5), s=[0, 2, 8], t=[0, 8], i=[7, 1, 2, 4],
)  # fmt: skip
case(
    "Gather-one-of-each-row",
    "x[N,7] -> y[N,5]",
    "a = MatMul(x, w) b = Reshape(a, s) c = Gather <axis=2> (b, i) y = MatMul(c, v)",
    w=(7, 16), v=(4, 5), s=[0, 4, 4], i=np.array(3),
)  # fmt: skip
chain("Expand", "c = GlobalAveragePool(a) b = Expand(c, s)", s=[1, 6, 4, 4])
chain("Expand-channels", "c = Expand(d, s) b = Add(a, c)", d=(1, 1, 1), s=[6, 4, 4])
chain("Expand-computed", "s = Shape(a) c = GlobalAveragePool(a) b = Expand(c, s)")
chain("Tile", "b = Tile(a, r)", r=[1, 2, 1, 3], v=(5, 12, 1, 1), out="4,12")
chain("DepthToSpace", "b = DepthToSpace <blocksize=2> (a)", w=(12, 3, 1, 1), v=(5, 3, 1, 1), out="8,8")
chain("DepthToSpace-CRD", 'b = DepthToSpace <blocksize=2, mode="CRD"> (a)', w=(12, 3, 1, 1), v=(5, 3, 1, 1), out="8,8")
chain("SpaceToDepth", "b = SpaceToDepth <blocksize=2> (a)", v=(5, 24, 1, 1), out="2,2")

# --- pooling, resampling, reductions ---------------------------------------------------------------------------------

for _op in ("MaxPool", "AveragePool", "LpPool"):
    chain(_op, f"b = {_op} <kernel_shape=[2, 2], strides=[2, 2]> (a)", out="2,2")
for _op in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"):
    chain(_op, f"b = {_op}(a)", out="1,1", lacks="it has no GlobalLpPool" if _op == "GlobalLpPool" else "")
for _op in REDUCE.split():
    _inside = "e = Exp(a) b = " if _op == "ReduceLogSum" else "b = "
    _from = "e" if _op == "ReduceLogSum" else "a"
    _old, _at = f"{_op} <axes=[2, 3]> ({_from})", {"k": [-1, 2]}
    if _op == "ReduceSum":
        chain("ReduceSum-attribute", f"b = {_old}", out="1,1", opset=11)
        chain("ReduceSum", "b = ReduceSum(a, k)", out="1,1", **_at)
    else:
        chain(_op, _inside + _old, out="1,1")
        chain(f"{_op}-input", f"{_inside}{_op}({_from}, k)", out="1,1", opset=18, **_at)
case(
    "ReduceMean-dropped",
    "x[N,3,4,4] -> y[N,5]",
    "a = Conv(x, w) b = ReduceMean <axes=[2, 3], keepdims=0> (a) y = MatMul(b, v)",
    w=(6, 3, 1, 1),
    v=(6, 5),
)
chain("ReduceMean-channels", "c = Conv(a, u) d = ReduceMean <axes=[1]> (c) b = Mul(a, d)", u=(6, 6, 1, 1))
chain("ReduceSum-everything", "c = Conv(a, u) d = ReduceSum(c) b = Mul(a, d)", u=(6, 6, 1, 1))
chain("ReduceSum-nothing", "b = ReduceSum <noop_with_empty_axes=1> (a)")
chain("ReduceMean-batch", "c = ReduceMean <axes=[0]> (a) b = Sub(a, c)")
for _op in ("ArgMax", "ArgMin"):
    chain(_op, f"c = {_op} <axis=3> (a) b = Cast <to=FLOAT> (c)", out="4,1")
chain("ArgMax-channels", "c = Conv(a, u) d = ArgMax <axis=1> (c) e = Cast <to=FLOAT> (d) b = Mul(a, e)", u=(6, 6, 1, 1))
chain("Resize", 'b = Resize <mode="nearest"> (a, "", s)', s=np.array([1.0, 1.0, 2.0, 2.0], np.float32), out="8,8")
chain("Resize-sizes", 'b = Resize <mode="nearest"> (a, "", "", s)', s=[BATCH, 6, 8, 8], out="8,8")
chain(
    "Resize-computed",
    's = Shape(a) t = Slice(s, i, j) u = Concat <axis=0> (t, k) b = Resize <mode="nearest"> (a, "", "", u)',
    i=[0], j=[2], k=[8, 8], out="8,8",
)  # fmt: skip
chain("Resize-axes", 'b = Resize <mode="nearest", axes=[2, 3]> (a, "", "", s)', s=[8, 8], out="8,8", opset=18)
chain(
    "Resize-axes-with-channels",
    'b = Resize <mode="nearest", axes=[1, 3]> (a, "", "", s)',
    s=[6, 8],
    out="4,8",
    opset=18,
)
chain(
    "Resize-10",
    'b = Resize <mode="nearest"> (a, s)',
    s=np.array([1.0, 1.0, 2.0, 2.0], np.float32),
    out="8,8",
    opset=10,
    lacks="its Resize 10 does not read scales from input 1",
)
chain(
    "Resize-channels",
    'c = Conv(a, u) b = Resize <mode="nearest"> (c, "", s)',
    s=np.array([1.0, 2.0, 1.0, 1.0], np.float32),
    u=(3, 6, 1, 1),
)
chain(
    "Upsample",
    'b = Upsample <mode="nearest"> (a, s)',
    s=np.array([1.0, 1.0, 2.0, 2.0], np.float32),
    out="8,8",
    opset=9,
    lacks="it has no Upsample",
)

# --- sizes, generators -----------------------------------------------------------------------------------------------

chain("Shape", "s = Shape(a) f = Cast <to=FLOAT> (s) m = ReduceProd(f) b = Div(a, m)")
chain("Shape-part", "s = Shape <start=1, end=3> (a) f = Cast <to=FLOAT> (s) m = ReduceSum(f) b = Div(a, m)")
chain("ConstantOfShape", "s = Shape(a) c = ConstantOfShape <value=float[1] {0.5}> (s) b = Add(a, c)")
chain(
    "ConstantOfShape-concatenated",
    "s = Shape(a) c = ConstantOfShape <value=float[1] {0.5}> (s) b = Concat <axis=1> (c, a)",
    v=(5, 12, 1, 1),
)
chain("Range", "r = Range(i, j, d) b = Add(a, r)", i=0.0, j=4.0, d=1.0)
chain("RandomNormal", "r = RandomNormal <shape=[4, 4], seed=1.0, dtype=FLOAT> () b = Add(a, r)")
chain("RandomUniform", "r = RandomUniform <shape=[4, 4], seed=1.0, dtype=FLOAT> () b = Mul(a, r)")
chain("EyeLike", "e = EyeLike(d) b = MatMul(a, e)", d=(4, 4))
case(
    "Constant",
    "x[N,3,4,4] -> y[N,5,4,4], z:string[1]",
    'a = Conv(x, w) s = Constant <value_float=2.0> () t = CastLike(s, a) b = Mul(a, t) y = Conv(b, v) '
    'z = Constant <value_strings=["text"]> ()',
    w=(6, 3, 1, 1), v=(5, 6, 1, 1),
)  # fmt: skip

# --- structures ------------------------------------------------------------------------------------------------------

chain("residual", "c = Conv(a, u) d = Relu(c) e = Conv(d, t) b = Add(e, a)", u=(4, 6, 1, 1), t=(6, 4, 1, 1))
chain(
    "option-A-shortcut",
    "c = Slice(a, i, j, k, s) d = Pad(c, p) e = Conv <strides=[2, 2]> (a, u) b = Add(d, e)",
    u=(12, 6, 1, 1), i=[0, 0], j=[9, 9], k=[2, 3], s=[2, 2], p=[0, 3, 0, 0, 0, 3, 0, 0], v=(5, 12, 1, 1), out="2,2",
)  # fmt: skip
case(
    "sums-of-concatenations",
    "x[N,3,4,4] -> y[N,5,4,4]",
    "a = Conv(x, w) b = Conv(x, u) c = Conv(x, t) d = Conv(x, s) e = Concat <axis=1> (a, b) f = Concat <axis=1> (c, d) "
    "g = Add(e, f) y = Conv(g, v)",
    w=(2, 3, 1, 1), u=(6, 3, 1, 1), t=(5, 3, 1, 1), s=(3, 3, 1, 1), v=(5, 8, 1, 1),
)  # fmt: skip
chain(
    "squeeze-excite",
    "c = GlobalAveragePool(a) d = Conv(c, u) e = Relu(d) f = Conv(e, t) g = Sigmoid(f) b = Mul(a, g)",
    u=(4, 6, 1, 1), t=(6, 4, 1, 1),
)  # fmt: skip
chain("shared-weight", "c = Conv(a, u) d = Relu(c) b = Conv(d, u)", u=(6, 6, 1, 1))
chain(
    "shared-grouped-weight",
    "c = Conv <group=2> (a, u) d = Relu(c) b = Conv <group=2> (d, u)",
    w=(8, 3, 1, 1),
    u=(8, 4, 1, 1),
    v=(5, 8, 1, 1),
)
dense("weight-transposed", "t = Transpose(u) b = MatMul(a, t)", u=(4, 6), v=(4, 5))
chain("weight-through-identity", "t = Identity(u) b = Conv(a, t)", u=(6, 6, 1, 1))
chain(
    "initializers-listed-as-inputs",
    "c = BatchNormalization(a, s, t, m, q) d = Reshape(c, k) b = Relu(d)",
    k=[0, 6, 4, 4],
    listed=True,
    ir=3,
    opset=9,
    **NORM,
)
chain("dense-block",
      "c = Conv(a, u) d = Concat <axis=1> (a, c) e = BatchNormalization(d, s, t, m, q) f = Relu(e) b = Conv(f, g)",
      u=(4, 6, 1, 1), s=positive(10), t=(10,), m=(10,), q=positive(10), g=(6, 10, 1, 1))  # fmt: skip
chain("inverted-residual",
      "c = Conv(a, u) d = Clip(c, low, high) e = Conv <group=12> (d, t) f = Conv(e, g) b = Add(a, f)",
      u=(12, 6, 1, 1), t=(12, 1, 1, 1), g=(6, 12, 1, 1), low=0.0, high=6.0)  # fmt: skip
chain("split-and-merge", "c, d = Split <axis=1> (a) e = Conv(d, u) f = Concat <axis=1> (c, d, e) b = Conv(f, g)",
      u=(3, 3, 1, 1), g=(6, 9, 1, 1), opset=13)  # fmt: skip
chain("two-products", "c = Conv(a, u) d = Conv(a, t) e = Mul(c, d) b = Add(a, e)", u=(6, 6, 1, 1), t=(1, 6, 1, 1))
chain("unknown-operator", "c = Conv(a, u) d, i = TopK <axis=1> (c, n) b = Add(a, d)", u=(6, 6, 1, 1), n=[6], whole=True)
