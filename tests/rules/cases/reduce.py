"""Pooling, resampling, reductions."""

from __future__ import annotations

import numpy as np

from onnxprune.rules.reduce import REDUCE
from tests.rules.cases.case import BATCH, GONE, case, chain

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
UP = np.array([1.0, 1.0, 2.0, 2.0], np.float32)
chain("Upsample-7", 'b = Upsample <mode="nearest", scales=[1.0, 1.0, 2.0, 2.0]> (a)', out="8,8", opset=7, lacks=GONE)
for _mode in ("align_corners", "asymmetric", "pytorch_half_pixel"):
    chain(
        f"Resize-{_mode}",
        f'b = Resize <mode="linear", coordinate_transformation_mode="{_mode}"> (a, "", s)',
        s=UP,
        out="8,8",
    )
chain("Resize-cubic", 'b = Resize <mode="cubic", antialias=1> (a, "", s)', s=1 / UP, out="2,2", opset=19)
chain("Resize-11", 'b = Resize <mode="nearest"> (a, r, s)', s=UP, r=np.zeros(0, np.float32), out="8,8", opset=11)
chain(
    "Resize-crops",
    'b = Resize <mode="linear", coordinate_transformation_mode="tf_crop_and_resize"> (a, r, s)',
    s=UP, r=np.array([0, 0, 0.2, 0.2, 1, 1, 0.8, 0.8], np.float32), out="8,8",
)  # fmt: skip
chain(
    "Resize-crops-channels",
    'c = Conv(a, u) b = Resize <mode="nearest", coordinate_transformation_mode="tf_crop_and_resize"> (c, r, s)',
    s=UP, r=np.array([0, 0.3, 0, 0, 1, 1, 1, 1], np.float32), u=(6, 6, 1, 1), out="8,8",
)  # fmt: skip
chain(
    "Resize-barely",
    'c = Conv(a, u) b = Resize <mode="linear", coordinate_transformation_mode="asymmetric"> (c, "", s)',
    s=np.array([1.0, 1.1, 1.0, 1.0], np.float32), u=(6, 6, 1, 1),
)  # fmt: skip
case(
    "Resize-channels-last",
    "x[N,3,4,4] -> y[N,8,8,5]",
    "a = Conv(x, w) b = Transpose <perm=[0, 2, 3, 1]> (a) c = Resize <mode=\"nearest\"> (b, \"\", s) y = MatMul(c, v)",
    w=(6, 3, 1, 1), v=(6, 5), s=np.array([1.0, 2.0, 2.0, 1.0], np.float32),
)  # fmt: skip
chain(
    "MaxPool-indices",
    "c = Conv(a, u) d, i = MaxPool <kernel_shape=[2, 2], strides=[2, 2]> (c) e = Cast <to=FLOAT> (i) b = Mul(d, e)",
    u=(6, 6, 1, 1), out="2,2",
)  # fmt: skip
chain("CumProd", "b = CumProd(a, k)", k=np.array(2), opset=26, ir=10)
chain("CumProd-channels", "c = Conv(a, u) b = CumProd(c, k)", u=(6, 6, 1, 1), k=np.array(1), opset=26, ir=10)
chain("TopK", "b, i = TopK(a, k)", k=[2], out="4,2")
chain("TopK-1", "b, i = TopK <k=2, axis=2> (a)", out="2,4", opset=9)
chain("TopK-channels", "c = Conv(a, u) b, i = TopK <axis=1> (c, k)", u=(6, 6, 1, 1), v=(5, 2, 1, 1), k=[2])
chain("Trilu", "b = Trilu <upper=0> (a, k)", k=np.array(1))
chain("Det", "c = Det(a) d = Unsqueeze(c, k) b = Mul(a, d)", k=[2, 3])
case(
    "ReverseSequence",
    "x[4,2,7] -> y[4,2,5]",
    "a = MatMul(x, w) b = ReverseSequence(a, n) y = MatMul(b, v)",
    w=(7, 6), v=(6, 5), n=[3, 4],
)  # fmt: skip
chain("ReverseSequence-channels", "b = ReverseSequence <batch_axis=1, time_axis=2> (a, n)", n=[1, 2, 3, 4, 3, 2])
