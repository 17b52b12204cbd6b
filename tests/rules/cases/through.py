"""Operators that mix an axis with itself, traced through: what is left must be what they compute of what stays."""

from __future__ import annotations

import numpy as np

from tests.rules.cases.case import Weight, case, chain, dense, positive


def images(name: str, body: str, *, u: Weight = (6, 6, 1, 1), **rest: object) -> None:
    """`x -> Conv w -> Relu -> Conv u -> a -> body -> b -> Conv v -> y`, traced through."""
    chain(f"through-{name}", f"q = Relu(a) e = Conv(q, u) {body}", u=u, through=True, **rest)


def matrices(name: str, body: str, **rest: object) -> None:
    """`x -> MatMul w -> a -> body -> b -> MatMul v -> y`, traced through."""
    dense(f"through-{name}", body, through=True, **rest)


S: dict[str, Weight] = {"s": positive(6), "t": (6,)}
matrices("LayerNormalization", "b = LayerNormalization(a, s, t)", **S)
matrices("LayerNormalization-scale-alone", "b = LayerNormalization(a, s)", s=positive(6))
matrices("LayerNormalization-statistics", "b, m, d = LayerNormalization(a, s, t)", **S)
matrices("RMSNormalization", "b = RMSNormalization(a, s)", s=positive(6), opset=23, ir=10)
matrices("Softmax", "b = Softmax(a)")
matrices("Softmax-12", "b = Softmax(a)", opset=12)
matrices("LogSoftmax", "b = LogSoftmax(a)")
matrices("Hardmax", "b = Hardmax(a)")
matrices("LpNormalization", "b = LpNormalization(a)")
images("LayerNormalization-images", "b = LayerNormalization <axis=1> (e, s, t)", s=(6, 4, 4), t=(6, 4, 4))
images("LayerNormalization-one-scale", "b = LayerNormalization <axis=1> (e, s)", s=(6, 1, 1))
images("LRN", "b = LRN <size=3> (e)", lacks="its LRN reads past the channels where the window is wider")
images("MeanVarianceNormalization", "b = MeanVarianceNormalization <axes=[1, 2, 3]> (e)")
images("GroupNormalization", "b = GroupNormalization <num_groups=2> (e, s, t)", opset=21, ir=10, **S)
images("GroupNormalization-of-one-group", "b = GroupNormalization <num_groups=1> (e, s, t)", opset=21, ir=10, **S)
images(
    "GroupNormalization-by-reshape",
    "f = Reshape(e, g) h = InstanceNormalization(f, s, t) i = Reshape(h, j) b = Mul(i, k)",
    g=[0, 2, -1], j=[-1, 6, 4, 4], s=positive(2), t=(2,), k=(6, 1, 1),
)  # fmt: skip
images(
    "GroupNormalization-by-reductions",
    "f = Reshape(e, g) m = ReduceMean <axes=[2]> (f) d = Sub(f, m) p = Mul(d, d) r = ReduceMean <axes=[2]> (p) "
    "o = Add(r, eps) z = Sqrt(o) i = Div(d, z) b = Reshape(i, j)",
    g=[0, 2, -1], j=[-1, 6, 4, 4], eps=1e-5,
)  # fmt: skip
matrices(
    "LayerNormalization-by-reductions",
    "m = ReduceMean <axes=[-1]> (a) d = Sub(a, m) p = Pow(d, two) r = ReduceMean <axes=[-1]> (p) o = Add(r, eps) "
    "z = Sqrt(o) i = Div(d, z) k = Mul(i, s) b = Add(k, t)",
    two=2.0, eps=1e-5, **S,
)  # fmt: skip
matrices(
    "RMSNormalization-by-reductions",
    "p = Mul(a, a) r = ReduceMean(p, k) o = Add(r, eps) z = Sqrt(o) i = Reciprocal(z) j = Mul(a, i) b = Mul(j, s)",
    k=[-1], eps=1e-5, s=positive(6), opset=18,
)  # fmt: skip
matrices(
    "unit-length",
    "r = ReduceL2 <axes=[1]> (a) o = Clip(r, eps) h = Shape(a) z = Expand(o, h) b = Div(a, z)",
    eps=1e-5,
)
matrices(
    "unit-length-of-squares",
    "p = Mul(a, a) r = ReduceSum <keepdims=0> (p, k) o = Sqrt(r) z = Unsqueeze(o, k) b = Div(a, z)",
    k=[1],
)
images("ReduceMax-channels", "m = ReduceMax <axes=[1]> (e) g = Sigmoid(m) b = Mul(e, g)")
images("ReduceMean-everything", "m = ReduceMean(e) b = Sub(e, m)")
case(
    "through-normalised-queries",
    "x[N,5,7] -> y[N,5,3]",
    "a = MatMul(x, w) b = Reshape(a, s) q = Transpose <perm=[0, 2, 1, 3]> (b) r = LayerNormalization(q, sq, tq) "
    "c = MatMul(x, u) d = Reshape(c, s) k = Transpose <perm=[0, 2, 3, 1]> (d) "
    "e = MatMul(r, k) f = Softmax(e) "
    "g = MatMul(x, v) h = Reshape(g, s) i = Transpose <perm=[0, 2, 1, 3]> (h) "
    "j = MatMul(f, i) l = Transpose <perm=[0, 2, 1, 3]> (j) m = Reshape(l, t) y = MatMul(m, o)",
    w=(7, 12), u=(7, 12), v=(7, 12), o=(12, 3), s=[0, 5, 3, 4], t=[0, 5, 12], sq=positive(4), tq=(4,), through=True,
)  # fmt: skip
case(
    "through-unscaled-queries",
    "x[N,5,7] -> y[N,5,3]",
    "a = MatMul(x, w) b = Reshape(a, s) q = Transpose <perm=[0, 2, 1, 3]> (b) r = LpNormalization(q) "
    "c = MatMul(x, u) d = Reshape(c, s) n = LpNormalization(d) k = Transpose <perm=[0, 2, 3, 1]> (n) "
    "e = MatMul(r, k) f = Softmax(e) "
    "g = MatMul(x, v) h = Reshape(g, s) i = Transpose <perm=[0, 2, 1, 3]> (h) "
    "j = MatMul(f, i) l = Transpose <perm=[0, 2, 1, 3]> (j) m = Reshape(l, t) y = MatMul(m, o)",
    w=(7, 12), u=(7, 12), v=(7, 12), o=(12, 3), s=[0, 5, 3, 4], t=[0, 5, 12], through=True,
)  # fmt: skip
case(
    "through-centred-queries",
    "x[N,5,7] -> y[N,5,3]",
    "a = MatMul(x, w) b = ReduceMean <axes=[-1]> (a) q = Sub(a, b) c = MatMul(x, u) d = ReduceMean <axes=[-1]> (c) "
    "p = Sub(c, d) k = Transpose <perm=[0, 2, 1]> (p) e = MatMul(q, k) f = Softmax(e) "
    "g = MatMul(x, v) h = MatMul(f, g) y = MatMul(h, o)",
    w=(7, 6), u=(7, 6), v=(7, 6), o=(6, 3), through=True,
)  # fmt: skip
case(
    "through-Softmax-over-heads",
    "x[N,7] -> y[N,5]",
    "a = MatMul(x, w) b = Reshape(a, s) c = Softmax <axis=1> (b) d = Reshape(c, t) y = MatMul(d, v)",
    w=(7, 12), v=(12, 5), s=[0, 3, 4], t=[0, 12], through=True,
)  # fmt: skip
case(
    "through-residual-stream",
    "x[N,7] -> y[N,5]",
    "a = MatMul(x, w) n = LayerNormalization(a, s, t) h = MatMul(n, p) r = Relu(h) q = MatMul(r, o) c = Add(a, q) "
    "m = LayerNormalization(c, s2, t2) y = MatMul(m, v)",
    w=(7, 6), p=(6, 8), o=(8, 6), v=(6, 5), s2=positive(6), t2=(6,), through=True, **S,
)  # fmt: skip
images("ArgMax-stays", "m = ArgMax <axis=1> (e) f = Cast <to=FLOAT> (m) b = Mul(q, f)")
chain("through-CumSum-stays", "e = Conv(a, u) b = CumSum(e, k)", u=(6, 6, 1, 1), k=np.array(1), through=True)
