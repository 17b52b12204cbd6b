"""Normalisations."""

from __future__ import annotations

import numpy as np

from tests.rules.cases.case import NORM, case, chain, dense

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
MVN = "the reference implementation adds a float32"
GRAIN = {"p": (4, 4), "lacks": MVN}  # onnxruntime divides by the deviation alone, so no channel may be all zeros
chain("MeanVarianceNormalization", "c = Add(a, p) b = MeanVarianceNormalization <axes=[2, 3]> (c)", **GRAIN)
chain("MeanVarianceNormalization-batch", "c = Add(a, p) b = MeanVarianceNormalization (c)", **GRAIN)
chain(
    "MeanVarianceNormalization-channels",
    "d = Conv(a, u) c = Add(d, p) b = MeanVarianceNormalization <axes=[1, 2]> (c)",
    u=(6, 6, 1, 1),
    **GRAIN,
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
chain(
    "BatchNormalization-training",
    "b, p, r = BatchNormalization <training_mode=1> (a, s, t, m, q)",
    opset=15,
    **NORM,
)
LABELS = np.arange(32).reshape(2, 4, 4) % 6
for _op in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"):
    case(
        _op,
        "x[2,3,4,4] -> y[2,5,4,4]",
        f"a = Conv(x, w) c = Conv(a, u) e = {_op} (c, l) b = Mul(a, e) y = Conv(b, v)",
        w=(6, 3, 1, 1), u=(6, 6, 1, 1), v=(5, 6, 1, 1), l=LABELS,
    )  # fmt: skip
