"""Attention as one operator."""

from __future__ import annotations

import numpy as np

from tests.rules.cases.case import case

PROJECT = "q = MatMul(x, w) k = MatMul(x, u) a = MatMul(x, z) "
W = {"w": (7, 12), "u": (7, 12), "z": (7, 12), "v": (12, 5)}
HEADS = "q_num_heads=3, kv_num_heads=3"
OP = {"opset": 23, "ir": 10}
SCALE = {**OP, "lacks": "the reference implementation takes the root of a stored scale in float32"}
SHARED = {"w": (7, 16), "u": (7, 8), "z": (7, 6), "v": (12, 5)}

case("Attention", "x[N,4,7] -> y[N,4,5]", f"{PROJECT} o = Attention <{HEADS}> (q, k, a) y = MatMul(o, v)", **W, **SCALE)
case(
    "Attention-mask-for-each-head",
    "x[N,4,7] -> y[N,4,5]",
    f"{PROJECT} o = Attention <{HEADS}, scale=0.3, softcap=2.0> (q, k, a, m) y = MatMul(o, v)",
    m=(1, 3, 4, 4), **W, **OP,
)  # fmt: skip
case(
    "Attention-causal-mask",
    "x[N,4,7] -> y[N,4,5]",
    f"{PROJECT} o = Attention <{HEADS}, is_causal=1> (q, k, a, m) y = MatMul(o, v)",
    m=(4, 4), **W, **SCALE,
)  # fmt: skip
case(
    "Attention-shared-keys",
    "x[N,4,7] -> y[N,4,5]",
    f"{PROJECT} o = Attention <q_num_heads=4, kv_num_heads=2> (q, k, a) y = MatMul(o, v)",
    **SHARED, **SCALE,
)  # fmt: skip
case(
    "Attention-past",
    "x[2,4,7] -> y[2,4,5], e[2,3,6,4]",
    f"{PROJECT} o, f, g, h = Attention <{HEADS}> (q, k, a, , i, j) y = MatMul(o, v) e0 = MatMul(f, l) "
    "e1 = MatMul(g, l) n = ReduceSum(h) e2 = Add(e0, e1) e = Mul(e2, n)",
    i=(2, 3, 2, 4), j=(2, 3, 2, 4), l=(4, 4), **W, **SCALE,
)  # fmt: skip
FOUR = (
    "q0 = Reshape(q, s) k0 = Reshape(k, s) a0 = Reshape(a, s) q1 = Transpose <perm=[0, 2, 1, 3]> (q0) "
    "k1 = Transpose <perm=[0, 2, 1, 3]> (k0) a1 = Transpose <perm=[0, 2, 1, 3]> (a0) {} "
    "o1 = Transpose <perm=[0, 2, 1, 3]> (o) o2 = Reshape(o1, t) y = MatMul(o2, v)"
)
SIZES = {"s": [0, 0, 3, 4], "t": [0, 0, 12]}
case(
    "Attention-heads-apart",
    "x[N,4,7] -> y[N,4,5]",
    PROJECT + FOUR.format("o = Attention (q1, k1, a1)"),
    **W, **SIZES, **SCALE,
)  # fmt: skip
case(
    "Attention-heads-apart-shared-keys",
    "x[N,4,7] -> y[N,4,5]",
    f"{PROJECT} q0 = Reshape(q, s) k0 = Reshape(k, g) a0 = Reshape(a, g) q1 = Transpose <perm=[0, 2, 1, 3]> (q0) "
    "k1 = Transpose <perm=[0, 2, 1, 3]> (k0) a1 = Transpose <perm=[0, 2, 1, 3]> (a0) o = Attention (q1, k1, a1) "
    "o1 = Transpose <perm=[0, 2, 1, 3]> (o) o2 = Reshape(o1, t) y = MatMul(o2, v)",
    s=[0, 0, 4, 4], g=[0, 0, 2, -1], t=[0, 0, 12], **SHARED, **SCALE,
)  # fmt: skip
case(
    "Attention-heads-in-the-weight",
    "x[N,4,7] -> y[N,4,5]",
    'q = Einsum <equation="bic,hcd->bhid"> (x, w) k = Einsum <equation="bic,hcd->bhid"> (x, u) '
    'a = Einsum <equation="bic,hcd->bhid"> (x, z) o = Attention (q, k, a) y = Einsum <equation="bhid,hdo->bio"> (o, v)',
    w=(3, 7, 4), u=(3, 7, 4), z=(3, 7, 4), v=(3, 4, 5), **SCALE,
)  # fmt: skip
case(
    "Attention-unsound-keys",  # without the cap, softmax would forgive what is the same for all keys
    "x[N,4,7] -> y[N,4,5]",
    f"{PROJECT} q1 = Exp(q) k1 = Exp(k) o = Attention <{HEADS}, scale=0.3, softcap=1.0> (q1, k1, a) y = MatMul(o, v)",
    **W, **SCALE,
)  # fmt: skip
TURN = "qr = RotaryEmbedding <{0}> (q, cos, sin, ids) kr = RotaryEmbedding <{0}> (k, cos, sin, ids) "
ANGLES = {"cos": (8, 2), "sin": (8, 2), "ids": np.arange(8).reshape(2, 4)}
case(
    "RotaryEmbedding",
    "x[2,4,7] -> y[2,4,5]",
    PROJECT + TURN.format("num_heads=3") + f"o = Attention <{HEADS}> (qr, kr, a) y = MatMul(o, v)",
    **W, **ANGLES, **SCALE,
)  # fmt: skip
case(
    "RotaryEmbedding-part-interleaved",
    "x[2,4,7] -> y[2,4,5]",
    PROJECT + TURN.format("num_heads=2, interleaved=1, rotary_embedding_dim=4")
    + "o = Attention <q_num_heads=2, kv_num_heads=2> (qr, kr, a) y = MatMul(o, v)",
    **W, **ANGLES, **SCALE,
)  # fmt: skip
case(
    "RotaryEmbedding-heads-apart",
    "x[2,4,7] -> y[2,4,5]",
    PROJECT + FOUR.format(
        "qr = RotaryEmbedding <rotary_embedding_dim=4> (q1, cos, sin) "
        "kr = RotaryEmbedding <rotary_embedding_dim=4> (k1, cos, sin) o = Attention (qr, kr, a1)"
    ),
    cos=(2, 4, 2), sin=(2, 4, 2), **W, **{**SIZES, "s": [0, 0, 2, 6]}, **SCALE,
)  # fmt: skip
