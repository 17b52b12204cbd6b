"""Quantised tensors."""

from __future__ import annotations

import numpy as np

from tests.rules.cases.case import SINGLE, case, chain, positive

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
