"""Operators that onnxruntime's optimisers fuse."""

from __future__ import annotations

import numpy as np

from tests.rules.cases.case import RUNTIME, Weight, case, chain, dense, positive

MS = "com.microsoft"
chain(
    "FusedConv",
    'b = com.microsoft.FusedConv <activation="Relu"> (a, u, d)',
    u=(6, 6, 1, 1), d=(6,), lacks=RUNTIME,
)  # fmt: skip
chain(
    "FusedConv-sum",
    'c = Conv(a, t) b = com.microsoft.FusedConv <activation="Relu"> (a, u, d, c)',
    u=(6, 6, 1, 1), t=(6, 6, 1, 1), d=(6,), lacks=RUNTIME,
)  # fmt: skip
chain(
    "FusedConv-depthwise",
    'b = com.microsoft.FusedConv <activation="Clip", activation_params=[0.0, 6.0], group=6> (a, u, d)',
    u=(6, 1, 3, 3), d=(6,), out="2,2", lacks=RUNTIME,
)  # fmt: skip
for _kind in ("Gelu", "QuickGelu", "FastGelu"):
    dense(_kind + "-fused", f"b = {MS}.{_kind}(a)", lacks=RUNTIME)
for _kind in ("BiasGelu", "FastGelu"):
    dense(_kind + "-bias", f"b = {MS}.{_kind}(a, d)", d=(6,), lacks=RUNTIME)
dense(
    "FusedGemm",
    'b = com.microsoft.FusedGemm <activation="LeakyRelu", activation_alpha=0.1, transB=1> (a, u, d)',
    u=(4, 6), d=(4,), v=(4, 5), lacks=RUNTIME,
)  # fmt: skip
dense("FusedMatMul", f"b = {MS}.FusedMatMul <transB=1, alpha=0.5> (a, u)", u=(4, 6), v=(4, 5), lacks=RUNTIME)
dense("TransposeMatMul", f"b = {MS}.TransposeMatMul <transB=1, alpha=0.5> (a, u)", u=(6, 6), lacks=RUNTIME)
case(
    "FusedMatMul-transA",
    "x[7,4] -> y[4,5]",
    f"a = {MS}.FusedMatMul <transA=1> (w, x) b = {MS}.FusedMatMul <transA=1> (a, v) y = Relu(b)",
    w=(7, 6), v=(6, 5), lacks=RUNTIME,
)  # fmt: skip
case(
    "FusedMatMul-attention",  # queries times keys, as the transpose and the scale are fused
    "x[N,4,7] -> y[N,4,5]",
    f"q = MatMul(x, w) k = MatMul(x, u) s = {MS}.FusedMatMul <transB=1, alpha=0.5> (q, k) p = Softmax <axis=-1> (s) "
    "a = MatMul(x, z) c = MatMul(p, a) y = MatMul(c, v)",
    w=(7, 6), u=(7, 6), z=(7, 8), v=(8, 5), lacks=RUNTIME,
)  # fmt: skip
case(
    "FusedMatMul-heads",  # the batch axes stand between rows and columns, as (sequence, batch, heads, size) has them
    "x[4,7] -> y[3,4,5]",
    f"a = MatMul(x, w) a0 = Reshape(a, s) b = {MS}.FusedMatMul <transBatchA=1> (a0, v) y = Relu(b)",
    w=(7, 12), v=(3, 4, 5), s=[4, 3, 4], lacks=RUNTIME,
)  # fmt: skip

# A stream that is normalised keeps its width; what lies between two of its readers does not.
STREAM = "e = MatMul(x, w) {} f = Relu(h) g = MatMul(f, u) k = MatMul(g, v) y = Add(k, x)"
WIDE: dict[str, Weight] = {"w": (6, 6), "u": (6, 8), "v": (8, 6), "s": positive(6), "t": (6,)}


def stream(name: str, norm: str, **rest: Weight) -> None:
    """Add a case in which a normalised stream is read by two layers."""
    case(name, "x[N,4,6] -> y[N,4,6]", STREAM.format(norm), lacks=RUNTIME, **(WIDE | rest))


stream("SkipLayerNormalization", f"h = {MS}.SkipLayerNormalization(e, x, s, t, d)", d=(6,))
stream("SkipLayerNormalization-stretched", f"h = {MS}.SkipLayerNormalization(e, d, s, t)", d=(4, 6))
stream("SkipLayerNormalization-sum", f"h, m1, m2, z = {MS}.SkipLayerNormalization(e, x, s, t) i = Relu(z)")
stream("SkipSimplifiedLayerNormalization", f"h = {MS}.SkipSimplifiedLayerNormalization(e, x, s, d)", d=(6,))
stream("LayerNormalization-old", "h = LayerNormalization <axis=-1> (e, s, t)")
stream("SimplifiedLayerNormalization", "h = SimplifiedLayerNormalization <axis=-1> (e, s)")
case(
    "EmbedLayerNormalization",
    "x:int32[N,4], m:int32[N,4] -> y[N,4,5]",
    f"h, i = {MS}.EmbedLayerNormalization(x, , p, q, , s, t, m) a = MatMul(h, w) y = MatMul(a, v)",
    p=(9, 6), q=(5, 6), s=positive(6), t=(6,), w=(6, 8), v=(8, 5), lacks=RUNTIME,
)  # fmt: skip

THROUGH: dict[str, Weight] = {"s": positive(6), "t": (6,)}
dense(
    "SkipLayerNormalization-through",
    f"k = MatMul(x, u) c, m1, m2, z = {MS}.SkipLayerNormalization(a, k, s, t, d) b = Add(c, z)",
    u=(7, 6), d=(6,), lacks=RUNTIME, through=True, **THROUGH,
)  # fmt: skip
case(
    "SkipSimplifiedLayerNormalization-through",  # the skip is stretched over the batch
    "x[N,4,7] -> y[N,4,5]",
    f"a = MatMul(x, w) b = {MS}.SkipSimplifiedLayerNormalization(a, d, s) y = MatMul(b, v)",
    w=(7, 6), d=(4, 6), s=positive(6), v=(6, 5), lacks=RUNTIME, through=True,
)  # fmt: skip
case(
    "EmbedLayerNormalization-through",
    "x:int32[N,4], m:int32[N,4] -> y[N,4,5]",
    f"h, i, e = {MS}.EmbedLayerNormalization(x, , p, q, , s, t, m) a = MatMul(h, w) c = Add(a, e) "
    f"b = {MS}.SkipLayerNormalization(c, h, s, t) y = MatMul(b, v)",
    p=(9, 6), q=(5, 6), w=(6, 6), v=(6, 5), lacks=RUNTIME, through=True, **THROUGH,
)  # fmt: skip

chain("GridSample-fused", f"b = {MS}.GridSample(a, g)", g=np.zeros((2, 3, 3, 2)) + 0.3, out="3,3", lacks=RUNTIME)
chain(
    "CropAndResize",
    f"b = {MS}.CropAndResize(a, r, i, z)",
    r=np.array([[0.0, 0, 1, 1], [0.1, 0.2, 0.7, 0.9]]),
    i=np.array([0, 1], np.int32), z=np.array([3, 3], np.int32), out="3,3", lacks=RUNTIME,
)  # fmt: skip
chain("ExpandDims", f"c = {MS}.ExpandDims(a, k) b = Squeeze(c, j)", k=np.array(2, np.int32), j=[2], lacks=RUNTIME)
chain("Trilu-fused", f"b = {MS}.Trilu(a)", lacks=RUNTIME)
chain("Inverse", f"c = Add(a, e) b = {MS}.Inverse(c)", e=5 * np.eye(4), lacks=RUNTIME)
