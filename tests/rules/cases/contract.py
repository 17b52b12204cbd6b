"""Convolutions and matrix products."""

from __future__ import annotations

import numpy as np

from tests.rules.cases.case import case, chain, dense

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
    "attention-heads-merged-with-an-open-batch",  # the same, exported with a batch axis of unknown size
    "x[3,N,7] -> y[N,3,5]",
    "q0 = MatMul(x, w) q1 = Reshape(q0, s) q2 = Transpose <perm=[1, 0, 2]> (q1) q = Reshape(q2, r) "
    "k0 = MatMul(x, u) k1 = Reshape(k0, s) k2 = Transpose <perm=[1, 2, 0]> (k1) k = Reshape(k2, l) "
    "a0 = MatMul(x, z) a1 = Reshape(a0, s) a2 = Transpose <perm=[1, 0, 2]> (a1) a = Reshape(a2, r) "
    "m = MatMul(q, k) p = Softmax <axis=-1> (m) o = MatMul(p, a) "
    "o1 = Transpose <perm=[2, 0, 1, 3]> (o) o2 = Reshape(o1, t) o3 = MatMul(o2, v) o4 = Reshape(o3, f) "
    "y = Transpose <perm=[1, 0, 2]> (o4)",
    w=(7, 12), u=(7, 12), z=(7, 12), v=(12, 5),
    s=[3, -1, 4], r=[-1, 3, 3, 4], l=[-1, 3, 4, 3], t=[-1, 12], f=[3, -1, 5],
)  # fmt: skip
case(
    "attention-grouped-queries",  # two key and value heads for four query heads
    "x[N,3,7] -> y[N,3,5]",
    "q0 = MatMul(x, w) q1 = Reshape(q0, s) q = Transpose <perm=[0, 2, 3, 1, 4]> (q1) "
    "k0 = MatMul(x, u) k1 = Reshape(k0, g) k = Transpose <perm=[0, 2, 3, 4, 1]> (k1) "
    "a0 = MatMul(x, z) a1 = Reshape(a0, g) a = Transpose <perm=[0, 2, 3, 1, 4]> (a1) "
    "m = MatMul(q, k) p = Softmax <axis=-1> (m) o = MatMul(p, a) "
    "o1 = Transpose <perm=[0, 3, 1, 2, 4]> (o) o2 = Reshape(o1, t) y = MatMul(o2, v)",
    w=(7, 16), u=(7, 8), z=(7, 8), v=(16, 5), s=[0, 3, 2, 2, 4], g=[0, 3, 2, 1, 4], t=[0, 3, 16],
)  # fmt: skip

case(
    "attention-cosine",  # queries and keys of length one: their heads go whole, and the values' with them
    "x[N,3,7] -> y[N,3,5]",
    "p = MatMul(x, w) p1 = Reshape(p, s) p2 = Transpose <perm=[2, 0, 3, 1, 4]> (p1) "
    "q0 = Gather <axis=0> (p2, zero) k0 = Gather <axis=0> (p2, one) a = Gather <axis=0> (p2, two) "
    "q = LpNormalization <axis=-1> (q0) k = LpNormalization <axis=-1> (k0) kt = Transpose <perm=[0, 1, 3, 2]> (k) "
    "m = MatMul(q, kt) e = Softmax <axis=-1> (m) o = MatMul(e, a) o1 = Transpose <perm=[0, 2, 1, 3]> (o) "
    "o2 = Reshape(o1, t) y = MatMul(o2, v)",
    w=(7, 24), v=(8, 5), s=[0, 3, 3, 2, 4], t=[0, 3, 8],
    zero=np.array(0), one=np.array(1), two=np.array(2),
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
case(
    "CausalConvWithState",
    "x[2,3,4] -> y[2,5,4]",
    'a = Conv(x, w) b, q = CausalConvWithState <activation="silu"> (a, t, d, p) y = Conv(b, v)',
    w=(6, 3, 1), t=(6, 1, 3), d=(6,), p=(2, 6, 2), v=(5, 6, 1), opset=27, ir=10,
)  # fmt: skip
for _slack in ("output_padding=[1, 1]", "output_shape=[8, 8]"):
    chain(
        f"ConvTranspose-{_slack.split('=')[0]}",
        f"b = ConvTranspose <strides=[2, 2], {_slack}> (a, u, t)",
        u=(6, 8, 1, 1), t=(8,), v=(5, 8, 1, 1), out="8,8",
    )  # fmt: skip
chain("Conv-same", 'b = Conv <auto_pad="SAME_LOWER", dilations=[2, 2]> (a, u)', u=(8, 6, 3, 3), v=(5, 8, 1, 1))
for _form, _bias in (("vector", (6,)), ("scalar", 0.5), ("row", (1, 6)), ("matrix", (4, 6)), ("one", (1,))):
    case(
        f"Gemm-{_form}",
        "x[7,4] -> y[4,5]",
        "a = Gemm <transA=1, alpha=0.5, beta=2.0> (x, w, d) y = MatMul(a, v)",
        w=(7, 6), d=_bias, v=(6, 5),
    )  # fmt: skip
