"""Fourier transforms and windows."""

from __future__ import annotations

import numpy as np

from tests.rules.cases.case import case, chain

for _op in ("HammingWindow", "HannWindow"):
    chain(_op, f"h = {_op} <output_datatype=FLOAT> (n) b = Mul(a, h)", n=np.array(4))
chain(
    "MelWeightMatrix",
    "h = MelWeightMatrix <output_datatype=FLOAT> (k, n, r, l, u) b = MatMul(a, h)",
    k=np.array(4),
    n=np.array(6),
    r=np.array(8000),
    l=np.array(0.0, np.float32),
    u=np.array(4000.0, np.float32),
)
case(
    "DFT",
    "x[N,3,4,1] -> y[N,5,4,2]",
    "a = Conv(x, w) b = DFT <axis=2> (a) y = Conv(b, v)",
    w=(6, 3, 1, 1), v=(5, 6, 1, 1),
)  # fmt: skip
case(
    "DFT-20",
    "x[N,3,4,1] -> y[N,5,4,2]",
    'a = Conv(x, w) b = DFT(a, "", k) y = Conv(b, v)',
    w=(6, 3, 1, 1), v=(5, 6, 1, 1), k=np.array(-2), opset=20, ir=10,
)  # fmt: skip
case(
    "STFT",
    "x[2,7] -> y[2,5]",
    "a = MatMul(x, w) c = MatMul(a, u) d = Unsqueeze(c, k) f = STFT <onesided=1> (d, s, h) m = ReduceMax(f) "
    "b = Mul(a, m) y = MatMul(b, v)",
    w=(7, 6), u=(6, 16), v=(6, 5), k=[2], s=np.array(4), h=np.ones(8),
)  # fmt: skip
