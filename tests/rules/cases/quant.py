"""Quantised tensors."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from tests.rules.cases.case import RUNTIME, SINGLE, Weight, case, chain, positive

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


def bytes_of(*shape: int, signed: bool = False) -> Weight:
    """Random integers of eight bits."""
    drawn = np.random.default_rng(sum(shape)).integers(-100 if signed else 0, 100 if signed else 255, shape)
    return drawn.astype(np.int8 if signed else np.uint8)


MS = "com.microsoft"
ONE: dict[str, Weight] = {"s": 0.05, "z": np.array(120, np.uint8)}  # one scale and zero point
TWO: dict[str, Weight] = {"r": 0.2, "k": np.array(130, np.uint8)}
WEIGHTS: dict[str, Weight] = {"m": 0.02, "c": np.array(101, np.uint8)}
ROWS: dict[str, Weight] = {"m": positive(6) / 50, "c": np.arange(97, 103, dtype=np.uint8)}
BYTES = "x[N,3,4,4] -> y[N,5,4,4]"


def integer(name: str, body: str, *, signature: str = BYTES, **weights: Weight) -> None:
    """Add a case of operators that take scales and zero points."""
    case(name, signature, body, lacks=RUNTIME, **(ONE | TWO | WEIGHTS | weights))


IN, OUT = "i = QuantizeLinear(x, s, z)", "y = DequantizeLinear(o, s, z)"
CONVOLVED = f"{IN} a = QLinearConv{{}}(i, s, z, w, m, c, r, k{{}}) {{}} o = QLinearConv(b, r, k, v, s, z, s, z) {OUT}"
CONVS: dict[str, Weight] = {"w": bytes_of(6, 3, 1, 1), "v": bytes_of(5, 6, 1, 1)}
integer(
    "QLinearConv",
    CONVOLVED.format("", ", d", "b = MaxPool <kernel_shape=[1, 1]> (a)"),
    d=np.arange(6, dtype=np.int32),
    **CONVS,
)
integer("QLinearConv-per-channel", CONVOLVED.format("", "", "b = Identity(a)"), **CONVS, **ROWS)
integer(
    "QLinearConv-depthwise",
    CONVOLVED.format("", "", "b = QLinearConv <group=6> (a, r, k, u, m, c, r, k)"),
    u=bytes_of(6, 1, 1, 1, signed=True), **CONVS | {"w": bytes_of(6, 3, 1, 1, signed=True)},
    m=positive(6) / 50, c=np.zeros(6, np.int8),
)  # fmt: skip
integer(
    "QLinearConv-grouped",
    CONVOLVED.format("", "", "b = QLinearConv <group=2> (a, r, k, u, m, c, r, k)"),
    u=bytes_of(8, 3, 1, 1), **CONVS | {"v": bytes_of(5, 8, 1, 1)},
)  # fmt: skip
for _kind in ("QLinearAveragePool <kernel_shape=[2, 2], strides=[1, 1], pads=[1, 1, 0, 0]>", "QLinearLeakyRelu"):
    integer(_kind.split()[0], CONVOLVED.format("", "", f"b = {MS}.{_kind}(a, r, k, r, k)"), **CONVS)
integer("QLinearSigmoid", CONVOLVED.format("", "", f"b = {MS}.QLinearSigmoid(a, r, k, r, k)"), **CONVS)
integer(
    "QLinearGlobalAveragePool",
    CONVOLVED.format("", "", f"b = {MS}.QLinearGlobalAveragePool(a, r, k, r, k)"),
    signature="x[N,3,4,4] -> y[N,5,1,1]",
    **CONVS,
)
JOINED = "e = QLinearConv(i, s, z, u, m, c, r, k)"
BOTH = CONVS | {"u": bytes_of(6, 3, 1, 1)}
for _kind in ("Add", "Mul"):
    integer(
        f"QLinear{_kind}", CONVOLVED.format("", "", f"{JOINED} b = {MS}.QLinear{_kind}(a, r, k, e, r, k, r, k)"), **BOTH
    )
integer(
    "QLinearMul-constant",
    CONVOLVED.format("", "", f"b = {MS}.QLinearMul(a, r, k, e, m, c, r, k)"),
    e=bytes_of(6, 1, 1), **CONVS,
)  # fmt: skip
integer(
    "QLinearConcat",
    CONVOLVED.format("", "", f"{JOINED} b = {MS}.QLinearConcat <axis=1> (r, k, a, r, k, e, r, k)"),
    **BOTH | {"v": bytes_of(5, 12, 1, 1)},
)
integer(
    "QLinearWhere",
    CONVOLVED.format("", "", f"{JOINED} b = {MS}.QLinearWhere(h, a, r, k, e, r, k, r, k)"),
    h=np.arange(4) > 1, **BOTH,
)  # fmt: skip
integer(
    "QLinearSoftmax",
    CONVOLVED.format("", "", f"b = {MS}.QLinearSoftmax <axis=-1, opset=13> (a, r, k, r, k)"),
    **CONVS,
)
integer(
    "QuantizeLinear-fused",
    f"a = Conv(x, w) q = {MS}.QuantizeLinear(a, s, z) b = {MS}.DequantizeLinear(q, s, z) y = Conv(b, v)",
    w=(6, 3, 1, 1), v=(5, 6, 1, 1),
)  # fmt: skip

MATRICES = "x[N,7] -> y[N,5]"
MULTIPLIED = f"{IN} a = QLinearMatMul(i, s, z, w, m, c, r, k) o = QLinearMatMul(a, r, k, v, s, z, s, z) {OUT}"
LINES: dict[str, Weight] = {"w": bytes_of(7, 6), "v": bytes_of(6, 5)}
integer("QLinearMatMul", MULTIPLIED, signature=MATRICES, **LINES)
integer("QLinearMatMul-per-column", MULTIPLIED, signature=MATRICES, **LINES, **ROWS)
integer(
    "QLinearMatMul-activations",
    f"{IN} q = QLinearMatMul(i, s, z, w, m, c, r, k) e = QLinearMatMul(i, s, z, u, m, c, r, k) "
    "t = Transpose <perm=[0, 2, 1]> (e) p = QLinearMatMul(q, r, k, t, r, k, s, z) y = DequantizeLinear(p, s, z)",
    signature="x[N,4,7] -> y[N,4,4]", w=bytes_of(7, 6), u=bytes_of(7, 6),
)  # fmt: skip
GEMMS = f"{IN} a = {MS}.QGemm <transB=1> (i, s, z, w, m, c, d, r, k) y = {MS}.QGemm(a, r, k, v, s, z)"
integer("QGemm", GEMMS, signature=MATRICES, w=bytes_of(6, 7), v=bytes_of(6, 5), d=np.arange(6, dtype=np.int32), **ROWS)
integer(
    "MatMulIntegerToFloat",
    f"{IN} a = {MS}.MatMulIntegerToFloat(i, w, s, m, z, c, d) y = MatMul(a, v)",
    signature=MATRICES, w=bytes_of(7, 6), v=(6, 5), d=(6,), **ROWS,
)  # fmt: skip
integer(
    "MatMulIntegerToFloat-consumes",
    f"a = MatMul(x, w) i = QuantizeLinear(a, s, z) y = {MS}.MatMulIntegerToFloat(i, v, s, m, z, c)",
    signature=MATRICES, w=(7, 6), v=bytes_of(6, 5),
)  # fmt: skip
integer(
    "DynamicQuantizeMatMul",
    f"a = {MS}.DynamicQuantizeMatMul(x, w, m, c, d) g = Tanh(a) y = {MS}.DynamicQuantizeMatMul(g, v, r, k)",
    signature=MATRICES, w=bytes_of(7, 6), v=bytes_of(6, 5), d=(6,), **ROWS,
)  # fmt: skip
RANGED = (
    "a = MatMul(x, w) g = {}(a) q, e, f = DynamicQuantizeLinear(g) h = MatMulInteger(q, v, f, c) y = Cast <to=1> (h)"
)
integer("DynamicQuantizeLinear", RANGED.format("Relu"), signature=MATRICES, w=(7, 6), v=bytes_of(6, 5))
case(
    "DynamicQuantizeLinear-of-what-is-not-zero",
    MATRICES,
    RANGED.format("Cos"),
    w=(7, 6), v=bytes_of(6, 5), **WEIGHTS, lacks=RUNTIME, whole=True,
)  # fmt: skip
BLOCKED = "e = DequantizeLinear <axis=0, block_size=2> (w, m, c) a = MatMul(x, e) y = MatMul(a, v)"
case(
    "DequantizeLinear-blocked",
    "x[N,4] -> y[N,5]",
    BLOCKED,
    w=bytes_of(4, 6), m=positive(2, 6), c=bytes_of(2, 6), v=(6, 5), opset=21, ir=10, lacks=SINGLE,
)  # fmt: skip
case(
    "DequantizeLinear-blocked-consumes",
    "x[N,4] -> y[N,5]",
    "a = MatMul(x, v) e = DequantizeLinear <axis=1, block_size=3> (w, m, c) "
    "f = Transpose(e) b = Relu(a) y = MatMul(b, f)",
    w=bytes_of(5, 6), m=positive(5, 2), c=bytes_of(5, 2), v=(4, 6), opset=21, ir=10, lacks=SINGLE, whole=True,
)  # fmt: skip
for _type in (ml_dtypes.int4, ml_dtypes.uint4):
    case(
        f"DequantizeLinear-{_type.__name__}",
        MATRICES,
        "e = DequantizeLinear <axis=1> (w, m, c) a = MatMul(x, e) y = MatMul(a, v)",
        w=np.arange(42).reshape(7, 6).astype(_type), m=positive(6), c=np.arange(6).astype(_type), v=(6, 5),
        opset=21, ir=10, lacks=SINGLE,
    )  # fmt: skip
case(
    "DequantizeLinear-moved",  # the integers are turned before they are read
    MATRICES,
    "t = Transpose(w) e = DequantizeLinear(t, m, c) a = MatMul(x, v) b = Relu(a) y = MatMul(b, e)",
    w=bytes_of(5, 6), v=(7, 6), **WEIGHTS, lacks=SINGLE,
)  # fmt: skip
integer(
    "QLinearConv-fused",
    CONVOLVED.replace("QLinearConv", f"{MS}.QLinearConv").format("", "", "b = Identity(a)"),
    **CONVS,
)
integer(
    "QLinearConv-channels-last",
    CONVOLVED.format("", "", f"t = Transpose <perm=[0, 2, 3, 1]> (a) h = {MS}.QLinearConv <channels_last=1> "
    "(t, r, k, u, m, c, r, k) b = Transpose <perm=[0, 3, 1, 2]> (h)"),
    **BOTH | {"u": bytes_of(6, 6, 1, 1)},
)  # fmt: skip
integer(
    "QLinearConv-channels-last-depthwise",
    CONVOLVED.format(
        "",
        "",
        f"t = Transpose <perm=[0, 2, 3, 1]> (a) h = {MS}.QLinearConv <channels_last=1, group=6> "
        f"(t, r, k, u, m, c, r, k) p = {MS}.QLinearAveragePool <channels_last=1, kernel_shape=[1, 1]> (h, r, k, r, k) "
        "b = Transpose <perm=[0, 3, 1, 2]> (p)",
    ),
    **BOTH | {"u": bytes_of(6, 1, 1, 1)},
)
integer(
    "NhwcMaxPool",
    CONVOLVED.format("", "", f"t = Transpose <perm=[0, 2, 3, 1]> (a) h = {MS}.NhwcMaxPool <kernel_shape=[1, 1]> (t) "
    "b = Transpose <perm=[0, 3, 1, 2]> (h)"),
    **CONVS,
)  # fmt: skip
case(
    "QEmbedLayerNormalization",
    "x:int32[N,4] -> y[N,4,5]",
    f"h, i = {MS}.QEmbedLayerNormalization(x, , p, q, , e, t, , s, s, , s, s, z, z, , z, z) "
    "a = MatMul(h, w) y = MatMul(a, v)",
    p=bytes_of(9, 6), q=bytes_of(5, 6), e=bytes_of(6), t=bytes_of(6), s=0.02, z=np.array(120, np.uint8),
    w=(6, 8), v=(8, 5), lacks=RUNTIME,
)  # fmt: skip
