"""Indices held in a tensor: gathering, scattering, selecting."""

from __future__ import annotations

import numpy as np

from tests.rules.cases.case import case, chain

PICKED = np.arange(72).reshape(6, 4, 3) % 4
chain("GatherElements", "i = Expand(p, e) b = GatherElements <axis=3> (a, i)", p=PICKED, e=[2, 6, 4, 3], out="4,3")
chain("GatherElements-found", "t, i = TopK(a, k) r = Neg(a) b = GatherElements <axis=3> (r, i)", k=[2], out="4,2")
case(
    "GatherElements-channels",
    "x[2,3,4,4] -> y[2,5,4,4]",
    "a = Conv(x, w) c = Conv(a, u) b = GatherElements <axis=1> (c, i) y = Conv(b, v)",
    w=(6, 3, 1, 1), u=(6, 6, 1, 1), v=(5, 2, 1, 1), i=np.arange(64).reshape(2, 2, 4, 4) % 6,
)  # fmt: skip
for _op, _opset in (("ScatterElements", 16), ("Scatter", 9)):
    case(
        _op,
        "x[2,3,4,4] -> y[2,5,4,4]",
        f"a = Conv(x, w) c = Conv(x, u) d = MaxPool <kernel_shape=[1, 3]> (c) b = {_op} <axis=3> (a, i, d) "
        "y = Conv(b, v)",
        w=(6, 3, 1, 1), u=(6, 3, 1, 1), v=(5, 6, 1, 1), i=np.arange(96).reshape(2, 6, 4, 2) // 2 % 2 + [0, 2],
        opset=_opset, lacks="it has no Scatter" if _op == "Scatter" else "",
    )  # fmt: skip
case(
    "ScatterElements-channels",
    "x[2,3,4,4] -> y[2,5,4,4]",
    "a = Conv(x, w) c = Conv(a, u) d = Slice(a, o, e, k) b = ScatterElements <axis=1> (c, i, d) y = Conv(b, v)",
    w=(6, 3, 1, 1), u=(6, 6, 1, 1), v=(5, 6, 1, 1), i=np.arange(64).reshape(2, 2, 4, 4) // 4 % 6,
    o=[0], e=[2], k=[1],
)  # fmt: skip
case(
    "TensorScatter",
    "x[2,3,7] -> y[2,8,5]",
    "a = MatMul(x, w) b = TensorScatter(c, a, i) y = MatMul(b, v)",
    w=(7, 6), c=(2, 8, 6), v=(6, 5), i=[1, 4], opset=24, ir=10,
)  # fmt: skip
case(
    "GatherND",
    "x[2,3,4,4] -> y[2,3,5]",
    "a = Conv(x, w) c = Transpose <perm=[0, 2, 3, 1]> (a) b = GatherND <batch_dims=1> (c, i) y = MatMul(b, v)",
    w=(6, 3, 1, 1), v=(6, 5), i=np.arange(12).reshape(2, 3, 2) // 3,
)  # fmt: skip
case(
    "GatherND-channels",
    "x[2,3,4,4] -> y[2,5,4,4]",
    "a = Conv(x, w) c = Conv(a, u) d = Transpose <perm=[1, 0, 2, 3]> (c) e = GatherND(d, i) "
    "b = Transpose <perm=[1, 0, 2, 3]> (e) y = Conv(b, v)",
    w=(6, 3, 1, 1), u=(6, 6, 1, 1), v=(5, 2, 1, 1), i=[[3], [0]],
)  # fmt: skip
case(
    "ScatterND",
    "x[2,3,7] -> y[2,3,5]",
    "a = MatMul(x, w) c = MatMul(x, u) d = Gather <axis=1> (c, z) b = ScatterND(a, i, d) y = MatMul(b, v)",
    w=(7, 6), u=(7, 6), v=(6, 5), i=[[0, 1], [1, 2]], z=np.array(0),
)  # fmt: skip
case(
    "ScatterND-channels",
    "x[2,3,4,4] -> y[2,5,4,4]",
    "a = Conv(x, w) c = Conv(x, u) d = Transpose <perm=[1, 0, 2, 3]> (a) e = Transpose <perm=[1, 0, 2, 3]> (c) "
    "f = ScatterND(d, i, e) b = Transpose <perm=[1, 0, 2, 3]> (f) y = Conv(b, v)",
    w=(8, 3, 1, 1), u=(3, 3, 1, 1), v=(5, 8, 1, 1), i=[[5], [0], [-2]],
)  # fmt: skip
case(
    "OneHot",
    "x[N,3,4,4] -> y[N,5,4,3]",
    "a = Conv(x, w) m = ArgMax <axis=3, keepdims=0> (a) b = OneHot <axis=-1> (m, n, o) y = Conv(b, v)",
    w=(6, 3, 1, 1), v=(5, 6, 1, 1), n=np.array(3), o=np.array([-0.5, 1.5]),
)  # fmt: skip
chain("NonZero", "r = Relu(p) n = NonZero(r) z = Size(n) f = Cast <to=FLOAT> (z) b = Mul(a, f)", p=(4, 4))
chain("Unique", "u = Unique(p) m = ReduceMax(u) b = Mul(a, m)", p=(4, 4))
chain("Unique-axis", "c = Conv(a, u) d = Unique <axis=1> (c) m = ReduceMax(d) b = Mul(a, m)", u=(6, 6, 1, 1))
KEPT = np.array([True, False, True, True, True])
chain("Compress", "b = Compress <axis=1> (a, m)", m=KEPT, v=(5, 4, 1, 1))
chain("Compress-positions", "b = Compress <axis=-1> (a, m)", m=KEPT[:4], out="4,3")
chain("Compress-flat", "c = Conv(a, u) d = Compress(c, m) e = ReduceMax(d) b = Mul(a, e)", m=KEPT, u=(6, 6, 1, 1))
chain(
    "Compress-computed",
    "c = Conv(a, u) g = ReduceMax <axes=[0, 2, 3], keepdims=0> (c) m = Less(g, top) d = Compress <axis=1> (c, m) "
    "e = ReduceMax(d) b = Mul(a, e)",
    u=(6, 6, 1, 1), top=9.0,
)  # fmt: skip
