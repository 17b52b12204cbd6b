"""Pooling, resampling, reductions."""

from __future__ import annotations

import numpy as np

from onnxprune.rules.reduce import REDUCE
from tests.rules.cases.case import BATCH, case, chain

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
