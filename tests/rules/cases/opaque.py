"""Operators whose tensors are packed: they freeze."""

from __future__ import annotations

import numpy as np

from tests.rules.cases.case import RUNTIME, case, positive

MS = "com.microsoft"
BYTES = np.random.default_rng(5)
case(
    "MatMulNBits",
    "x[N,32] -> y[N,5]",
    f"a = MatMul(x, w) b = {MS}.MatMulNBits <K=32, N=8, bits=4, block_size=16> (a, q, s) y = MatMul(b, v)",
    w=(32, 32), q=BYTES.integers(0, 255, (8, 2, 8)).astype(np.uint8), s=positive(8, 2), v=(8, 5),
    lacks=RUNTIME, whole=True,
)  # fmt: skip
case(
    "MatMulBnb4",
    "x[N,32] -> y[N,5]",
    f"a = MatMul(x, w) b = {MS}.MatMulBnb4 <K=32, N=8, block_size=16, quant_type=1> (a, q, s) y = MatMul(b, v)",
    w=(32, 32), q=BYTES.integers(0, 255, 128).astype(np.uint8), s=positive(16), v=(8, 5),
    lacks=RUNTIME, whole=True,
)  # fmt: skip
case(
    "DynamicQuantizeLSTM",
    "x[N,4,7] -> y[N,1,4,5]",
    f"a = MatMul(x, w) h = {MS}.DynamicQuantizeLSTM <hidden_size=6> (a, q, r, , , , , , s, z, s, z) y = MatMul(h, v)",
    w=(7, 8), q=BYTES.integers(0, 255, (1, 8, 24)).astype(np.uint8), s=[0.02], z=np.array([128], np.uint8),
    r=BYTES.integers(0, 255, (1, 6, 24)).astype(np.uint8), v=(6, 5), lacks=RUNTIME, whole=True,
)  # fmt: skip
case(
    "blocked-layout",
    "x[N,16,4,4] -> y[N,16,4,4]",
    "a = Conv(x, w) i = com.microsoft.nchwc.ReorderInput <channels_last=0> (a) "
    "c = com.microsoft.nchwc.Conv(i, u) m = com.microsoft.nchwc.MaxPool <kernel_shape=[1, 1]> (c) "
    "p = com.microsoft.nchwc.AveragePool <kernel_shape=[1, 1]> (m) g = com.microsoft.nchwc.GlobalAveragePool(p) "
    "e = com.microsoft.nchwc.GlobalMaxPool(p) t = com.microsoft.nchwc.Upsample <scales=[1, 1, 1, 1]> (p) "
    "r = com.microsoft.nchwc.ReorderOutput <channels=16> (t) q = com.microsoft.nchwc.ReorderOutput <channels=16> (g) "
    "k = com.microsoft.nchwc.ReorderOutput <channels=16> (e) y = Sum(r, q, k)",
    w=(16, 16, 1, 1), u=(16, 16, 1, 1), lacks=RUNTIME, whole=True,
)  # fmt: skip
