"""Attention as onnxruntime fuses it."""

from __future__ import annotations

import numpy as np

from tests.rules.cases.case import RUNTIME, Weight, case, positive

MS = "com.microsoft"
TOKENS = "x[N,4,7] -> y[N,4,5]"
HEADS = "a = {}.{} <num_heads=3{}> ({}) y = MatMul(a, v)"


def attended(name: str, kind: str, attributes: str, inputs: str, before: str = "", **weights: Weight) -> None:
    """Add a case of attention with three heads; standard operators of the same name have theirs in `attention`."""
    case(f"fused-{name}", TOKENS, before + HEADS.format(MS, kind, attributes, inputs), lacks=RUNTIME, **weights)


MERGED: dict[str, Weight] = {"w": (7, 36), "d": (36,), "v": (12, 5)}
attended("Attention", "Attention", "", "x, w, d", **MERGED)
attended("Attention-scaled", "Attention", ", scale=0.7, unidirectional=1", "x, w, d", **MERGED)
attended("Attention-no-bias", "Attention", "", "x, w", w=(7, 36), v=(12, 5))
attended(
    "Attention-values-narrower",
    "Attention",
    ", qkv_hidden_sizes=[12, 12, 6]",
    "x, w, d",
    w=(7, 30), d=(30,), v=(6, 5),
)  # fmt: skip
attended("Attention-masked", "Attention", "", "x, w, d, m", m=np.ones((2, 4), np.int32), **MERGED)
attended("Attention-biased", "Attention", "", "x, w, d, , , b", b=(1, 3, 4, 4), **MERGED)
attended("Attention-biased-alike", "Attention", "", "x, w, d, , , b", b=(1, 1, 4, 4), **MERGED)
attended("Attention-reads", "Attention", "", "e, w, d", "e = MatMul(x, u) ", u=(7, 6), **MERGED | {"w": (6, 36)})
case(
    "fused-Attention-with-cache",
    "x[N,4,7], p[2,N,3,2,4] -> y[N,4,5]",
    HEADS.replace("a =", "a, c =").format(MS, "Attention", "", "x, w, d, , p"),
    **MERGED, lacks=RUNTIME, whole=True,
)  # fmt: skip
PROJECTED = "q = MatMul(x, w) k = MatMul(x, u) z = MatMul(x, r) "
THREE: dict[str, Weight] = {"w": (7, 12), "u": (7, 12), "r": (7, 6), "v": (6, 5)}
attended("MultiHeadAttention", "MultiHeadAttention", "", "q, k, z", PROJECTED, **THREE)
attended("MultiHeadAttention-bias", "MultiHeadAttention", "", "q, k, z, d", PROJECTED, d=(30,), **THREE)
attended(
    "MultiHeadAttention-scores",
    "MultiHeadAttention",
    ", scale=0.4",
    "q, k, z, , , b",
    PROJECTED,
    b=(1, 3, 4, 4), **THREE,
)  # fmt: skip
attended(
    "MultiHeadAttention-values-alone",  # the keys are not zero where their weights are
    "MultiHeadAttention",
    "",
    "q0, k0, z",
    PROJECTED + "q0 = Exp(q) m = ReduceMean <axes=[2]> (x) k0 = Add(k, m) ",
    **THREE,
)
ANGLES = np.linspace(0, 3, 20).reshape(10, 2)
ROTATED = (
    "q = MatMul(x, w) k = MatMul(x, u) z = MatMul(x, r) "
    "q1 = com.microsoft.RotaryEmbedding {0} (q, i, c, s) k1 = com.microsoft.RotaryEmbedding {0} (k, i, c, s) "
)
ANGULAR: dict[str, Weight] = {"i": np.array([0]), "c": np.cos(ANGLES), "s": np.sin(ANGLES)}
attended("RotaryEmbedding", "MultiHeadAttention", "", "q1, k1, z", ROTATED.format(""), **THREE, **ANGULAR)
attended(
    "RotaryEmbedding-interleaved",
    "MultiHeadAttention",
    "",
    "q1, k1, z",
    ROTATED.format("<interleaved=1>"),
    **THREE,
    **ANGULAR,
)
attended(
    "RotaryEmbedding-of-a-part",
    "MultiHeadAttention",
    "",
    "q1, k1, z",
    ROTATED.format("<num_heads=3, rotary_embedding_dim=4>"),
    **THREE | ANGULAR | {"w": (7, 18), "u": (7, 18)},
)
BYTES = np.random.default_rng(3)
attended(
    "QAttention",
    "QAttention",
    "",
    "i, w, d, s, r, , z, k",
    "i = QuantizeLinear(x, s, z) ",
    w=BYTES.integers(0, 255, (7, 36)).astype(np.uint8), d=(36,), s=0.05, z=np.array(120, np.uint8),
    r=0.02, k=np.array(130, np.uint8), v=(12, 5),
)  # fmt: skip
attended(
    "QAttention-per-column",
    "QAttention",
    "",
    "i, w, d, s, r, , z, k",
    "i = QuantizeLinear(x, s, z) ",
    w=BYTES.integers(-99, 99, (7, 36)).astype(np.int8), d=(36,), s=0.05, z=np.array(120, np.uint8),
    r=positive(36) / 50, k=np.zeros(36, np.int8), v=(12, 5),
)  # fmt: skip
CACHED = "q = MatMul(x, w) k = MatMul(x, u) z = MatMul(x, r) a, f, g = {} y = MatMul(a, v)"
case(
    "GroupQueryAttention",
    "x[N,1,7], p[N,1,1,8], t[N,1,1,8] -> y[N,1,5]",
    CACHED.format(f"{MS}.GroupQueryAttention <num_heads=2, kv_num_heads=1> (q, k, z, p, t, l, n)"),
    w=(7, 16), u=(7, 8), r=(7, 8), v=(16, 5), l=np.array([1, 1], np.int32), n=np.array(2, np.int32),
    lacks=RUNTIME, whole=True,
)  # fmt: skip
case(
    "DecoderMaskedMultiHeadAttention",
    "x[N,1,7] -> y[N,1,5]",
    CACHED.replace(", f, g", "").format(f"{MS}.DecoderMaskedMultiHeadAttention <num_heads=2> (q, k, z)"),
    w=(7, 16), u=(7, 16), r=(7, 16), v=(16, 5), lacks=RUNTIME, whole=True,
)  # fmt: skip
