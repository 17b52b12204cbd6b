"""Movement: operators that cut, merge, pick and reorder."""

from __future__ import annotations

import numpy as np

from tests.rules.cases.case import Weight, case, chain, join

chain("Transpose", "c = Transpose <perm=[2, 0, 3, 1]> (a) b = Transpose <perm=[1, 3, 0, 2]> (c)")
chain("Transpose-reversed", "c = Transpose(a) b = Transpose(c)")
case(
    "Transpose-last",
    "x[N,3,4,4] -> y[N,4,4,5]",
    "a = Conv(x, w) b = Transpose <perm=[0, 2, 3, 1]> (a) y = MatMul(b, v)",
    w=(6, 3, 1, 1),
    v=(6, 5),
)
join("Concat", "b = Concat <axis=1> (a, c)", u=(4, 3, 1, 1), v=(5, 10, 1, 1))
join("Concat-spatial", "d = Concat <axis=2> (a, c) b = MaxPool <kernel_shape=[2, 1], strides=[2, 1]> (d)")
chain("Concat-with-input", "b = Concat <axis=1> (x, a)", v=(5, 9, 1, 1))
chain("Concat-twice", "b = Concat <axis=1> (a, a)", v=(5, 12, 1, 1))
chain("Split", "c, d = Split <axis=1> (a) b = Mul(c, d)", v=(5, 3, 1, 1), opset=13)
chain("Split-uneven", "c, d = Split <axis=1> (a, s) b = Concat <axis=1> (d, c)", s=[4, 2])
chain("Split-attribute", "c, d = Split <axis=1, split=[2, 4]> (a) b = Concat <axis=1> (d, c)", opset=11)
chain(
    "Split-num-outputs",
    "c, d = Split <axis=1, num_outputs=2> (a) b = Concat <axis=1> (d, c)",
    w=(7, 3, 1, 1),
    v=(5, 7, 1, 1),
    opset=18,
)
chain("Split-spatial", "c, d = Split <axis=2> (a) b = Add(c, d)", out="2,4", opset=13)
SLICED: dict[str, Weight] = {"w": (8, 3, 1, 1), "v": (5, 4, 1, 1)}
chain("Slice", "b = Slice(a, i, j, k)", i=[2], j=[6], k=[1], **SLICED)
chain("Slice-negative", "b = Slice(a, i, j, k)", i=[-5], j=[-1], k=[-3], **SLICED)
chain("Slice-attributes", "b = Slice <starts=[2], ends=[6], axes=[1]> (a)", opset=9, **SLICED)
chain("Slice-strided", "b = Slice(a, i, j, k, s)", i=[0], j=[2**31], k=[1], s=[2], **SLICED)
chain(
    "Slice-backwards", "b = Slice(a, i, j, k, s)", i=[-1], j=[-(2**62)], k=[1], s=[-1], w=(8, 3, 1, 1), v=(5, 8, 1, 1)
)
chain(
    "Slice-strided-and-spatial", "b = Slice(a, i, j, k, s)", i=[1, 0], j=[8, 4], k=[1, 3], s=[2, 2], out="4,2", **SLICED
)
chain(
    "Slice-halves",
    "c = Slice(a, i, j, k) d = Slice(a, j, e, k) b = Mul(c, d)",
    i=[0],
    j=[4],
    e=[2**62],
    k=[1],
    **SLICED,
)
case(
    "Slice-computed",  # the bounds are read while the model runs, but the axis they belong to is known
    "x[N,3,4,4], e:int64[1] -> y[N,5,H,4]",
    "a = Conv(x, w) b = Slice(a, e, i, k) y = Conv(b, v)",
    w=(6, 3, 1, 1), v=(5, 6, 1, 1), i=[9], k=[2],
)  # fmt: skip
chain("Slice-spatial", "b = Slice(a, i, j)", i=[0, 0, 1], j=[9, 9, 3], out="2,4", v=(5, 6, 1, 1))
case(
    "Slice-of-rows",
    "x[N,7] -> y[N,5]",
    "a = MatMul(x, w) b = Reshape(a, s) c = Slice(b, i, j, k) d = Reshape(c, t) y = MatMul(d, v)",
    w=(7, 16), v=(8, 5), s=[0, 2, 8], t=[0, 8], i=[2], j=[6], k=[2],
)  # fmt: skip
chain("Pad", "b = Pad(a, p)", p=[0, 2, 0, 0, 0, 1, 0, 0], v=(5, 9, 1, 1))
chain("Pad-attributes", "b = Pad <pads=[0, 2, 0, 0, 0, 1, 0, 0]> (a)", v=(5, 9, 1, 1), opset=9)
chain("Pad-axes", "b = Pad(a, p, z, k)", p=[2, 1, 1, 1], z=0.5, k=[1, -1], v=(5, 9, 1, 1), out="4,6", opset=18)
chain("Pad-reflect", 'b = Pad <mode="reflect"> (a, p)', p=[0, 0, 1, 1, 0, 0, 1, 1], out="6,6")
chain(
    "Pad-reflect-channels",
    'c = Conv(a, u) b = Pad <mode="reflect"> (c, p)',
    p=[0, 2, 0, 0, 0, 0, 0, 0],
    u=(6, 6, 1, 1),
    v=(5, 8, 1, 1),
)
chain(
    "Pad-negative",
    "c = Conv(a, u) b = Pad(c, p)",
    p=[0, -2, 0, 0, 0, 0, 0, 0],
    u=(6, 6, 1, 1),
    v=(5, 4, 1, 1),
    lacks="it pads with numpy, which cannot cut",
)
chain("Squeeze", "c = GlobalAveragePool(a) d = Squeeze(c, k) b = Unsqueeze(d, k)", k=[2, 3], out="1,1")
chain(
    "Squeeze-attribute",
    "c = GlobalAveragePool(a) d = Squeeze <axes=[2, 3]> (c) b = Unsqueeze <axes=[2, 3]> (d)",
    opset=11,
    out="1,1",
)
chain("Unsqueeze", "c = Unsqueeze(a, i) b = Squeeze(c, j)", i=[-4, 0], j=[0, 2])
case(
    "Reshape-flattens",
    "x[N,3,2,2] -> y[N,5]",
    "a = Conv(x, w) b = Reshape(a, s) y = Gemm(b, v, d)",
    w=(6, 3, 1, 1),
    s=[0, -1],
    v=(24, 5),
    d=(5,),
)
case(
    "Reshape-fixed",
    "x[2,3,2,2] -> y[2,5]",
    "a = Conv(x, w) b = Reshape(a, s) y = MatMul(b, v)",
    w=(6, 3, 1, 1),
    s=[2, 24],
    v=(24, 5),
)
case(
    "Reshape-batch-unknown",
    "x[N,3,2,2] -> y[N,5]",
    "a = Conv(x, w) b = Reshape(a, s) y = MatMul(b, v)",
    w=(6, 3, 1, 1),
    s=[-1, 24],
    v=(24, 5),
)
case(
    "Reshape-old",
    "x[2,3,2,2] -> y[2,5]",
    "a = Conv(x, w) b = Reshape <shape=[2, 24]> (a) y = MatMul(b, v)",
    w=(6, 3, 1, 1),
    v=(24, 5),
    opset=4,
    lacks="its Reshape reads the target from an input only",
    ir=3,
    listed=True,
)
case(
    "Reshape-computed",
    "x[N,3,2,2] -> y[N,5]",
    "a = Conv(x, w) s = Shape(a) n = Gather(s, i) m = Unsqueeze(n, j) t = Concat <axis=0> (m, k) b = Reshape(a, t) "
    "y = MatMul(b, v)",
    w=(6, 3, 1, 1), i=np.array(0), j=[0], k=[24], v=(24, 5),
)  # fmt: skip
case(
    "Reshape-computed-and-split",  # the pruned model's corrected sizes are read as well as the dense model's
    "x[N,3,2,2] -> y[N,5]",
    "a = Conv(x, w) s = Shape(a) n = Gather(s, i) m = Unsqueeze(n, j) t = Concat <axis=0> (m, k) b = Reshape(a, t) "
    "c, d = Split <axis=1> (b, p) y = MatMul(d, v)",
    w=(6, 3, 1, 1), i=np.array(0), j=[0], k=[-1], p=[8, 16], v=(16, 5),
)  # fmt: skip
case(
    "Reshape-sizes-of-channels",
    "x[N,3,H,2] -> y[N,5]",
    "a = Conv(x, w) s = Shape(a) n = Gather(s, i) c = Gather(s, e) m = Unsqueeze(n, j) f = Unsqueeze(c, j) "
    "t = Concat <axis=0> (m, f, k) b = Reshape(a, t) r = ReduceMean <axes=[2], keepdims=0> (b) y = MatMul(r, v)",
    w=(6, 3, 1, 1), i=np.array(0), e=np.array(1), j=[0], k=[-1], v=(6, 5),
)  # fmt: skip
chain(
    "Reshape-groups",
    "c = Reshape(a, s) d = Relu(c) b = Reshape(d, t)",
    w=(8, 3, 1, 1),
    v=(5, 8, 1, 1),
    s=[0, 2, 4, 4, 4],
    t=[0, 8, 4, 4],
)
chain(
    "Reshape-groups-normalised",
    "c = Reshape(a, s) d = Softmax <axis=2> (c) b = Reshape(d, t)",
    w=(8, 3, 1, 1),
    v=(5, 8, 1, 1),
    s=[0, 4, 2, 4, 4],
    t=[0, 8, 4, 4],
)
chain(
    "channel-shuffle",
    "c = Reshape(a, s) d = Transpose <perm=[0, 2, 1, 3, 4]> (c) b = Reshape(d, t)",
    w=(8, 3, 1, 1),
    v=(5, 8, 1, 1),
    s=[0, 2, 4, 4, 4],
    t=[0, -1, 4, 4],
)
chain(
    "ShuffleNet-unit",
    "e = Conv <group=2> (a, u) c = Reshape(e, s) d = Transpose <perm=[0, 2, 1, 3, 4]> (c) f = Reshape(d, t) "
    "g = Conv <group=8> (f, h) b = Conv <group=2> (g, k)",
    w=(8, 3, 1, 1), u=(8, 4, 1, 1), h=(8, 1, 1, 1), k=(6, 4, 1, 1), s=[0, 2, 4, 4, 4], t=[0, -1, 4, 4],
)  # fmt: skip
case(
    "Flatten",
    "x[N,3,2,2] -> y[N,5]",
    "a = Conv(x, w) b = Flatten(a) y = Gemm <transB=1> (b, v)",
    w=(6, 3, 1, 1),
    v=(5, 24),
)
case(
    "Flatten-channels-last",
    "x[N,3,2,2] -> y[N,5]",
    "a = Conv(x, w) c = Transpose <perm=[0, 2, 3, 1]> (a) b = Flatten(c) y = Gemm <transB=1> (b, v)",
    w=(6, 3, 1, 1),
    v=(5, 24),
)
case(
    "Flatten-axis-2",
    "x[2,3,2,2] -> y[12,5]",
    "a = Conv(x, w) b = Flatten <axis=2> (a) y = MatMul(b, v)",
    w=(6, 3, 1, 1),
    v=(4, 5),
    whole=True,
)
chain("Gather", "b = Gather <axis=1> (a, i)", i=[5, 0, -3, 0], v=(5, 4, 1, 1))
chain("Gather-scalar", "c = Gather <axis=1> (a, i) d = Unsqueeze(c, k) b = Add(a, d)", i=np.array(-2), k=[1])
chain(
    "Gather-table",
    "c = Gather <axis=1> (a, i) d = Relu(c) b = Reshape(d, s)",
    w=(8, 3, 1, 1), i=[[5, 0, 1], [2, -1, 3]], s=[0, -1, 4, 4],
)  # fmt: skip
chain(
    "Gather-table-repeats",
    "c = Gather <axis=1> (a, i) b = ReduceMean <axes=[2], keepdims=0> (c)",
    i=[[0, 1], [1, 2], [3, 4]], v=(5, 3, 1, 1),
)  # fmt: skip
case(
    "Gather-long",
    "x[N,7] -> y[N,5]",
    "a = MatMul(x, w) b = Gather <axis=1> (a, i) y = MatMul(b, v)",
    w=(7, 1030), v=(1030, 5), i=np.roll(np.arange(1030), 7),
)  # fmt: skip
chain(
    "Gather-matrix",
    "c = Conv(a, u) d = Gather <axis=1> (c, i) b = Reshape(d, s)",
    u=(6, 6, 1, 1),
    i=[[5, 0], [2, 1]],
    s=[0, -1, 4, 4],
    v=(5, 4, 1, 1),
)
_HEADS = "s = Shape(a) n = Gather(s, i) p = Mul(n, h) m = Unsqueeze(p, j) t = Concat <axis=0> (r, m, q) "
case(
    "Reshape-heads-into-the-batch",
    "x[4,N,7] -> y[4,M,5]",
    f"a = MatMul(x, w) {_HEADS} b = Reshape(a, t) c = MatMul(b, v) y = Reshape(c, o)",
    w=(7, 12), v=(4, 5), i=np.array(1), h=np.array(3), j=[0], r=[4], q=[4], o=[4, -1, 5],
)  # fmt: skip
case(
    "Reshape-heads-out-of-the-batch",
    "x[4,N,7] -> y[4,N,5]",
    f"a = MatMul(x, w) {_HEADS} b = Reshape(a, t) c = Relu(b) d = Reshape(c, o) y = MatMul(d, v)",
    w=(7, 12), v=(12, 5), i=np.array(1), h=np.array(3), j=[0], r=[4], q=[4], o=[4, -1, 12],
)  # fmt: skip
chain("Gather-column", "c = Gather <axis=1> (a, i) b = Squeeze(c, k)", i=[[[5], [0], [3]]], k=[1, 3], v=(5, 3, 1, 1))
case(
    "Gather-strided-view",
    "x[1,3,4,4] -> y[1,5]",
    "a = Conv(x, w) b = ReduceMean <axes=[2, 3]> (a) c = Reshape(b, s) d = Gather <axis=0> (c, i) e = Reshape(d, t) "
    "y = MatMul(e, v)",
    w=(6, 3, 1, 1), v=(6, 5), s=[-1], i=np.arange(6).reshape(1, 6, 1, 1), t=[1, 6],
)  # fmt: skip
chain("Gather-spatial", "b = Gather <axis=3> (a, i)", i=[3, 1], out="4,2")
case(
    "Gather-embedding",
    "x:int64[N,3] -> y[N,3,5]",
    "a = Gather <axis=0> (w, x) y = MatMul(a, v)",
    w=(9, 6),
    v=(6, 5),
    whole=True,
)
case(
    "Gather-embedding-projected",
    "x:int64[N,3] -> y[N,3,5]",
    "a = Gather <axis=0> (w, x) b = MatMul(a, u) y = MatMul(b, v)",
    w=(9, 6),
    u=(6, 8),
    v=(8, 5),
)
case(
    "Gather-of-rows",
    "x[N,7] -> y[N,5]",
    "a = MatMul(x, w) b = Reshape(a, s) c = Gather <axis=2> (b, i) d = Reshape(c, t) y = MatMul(d, v)",
    w=(7, 16), v=(8, 5), s=[0, 2, 8], t=[0, 8], i=[7, 1, 2, 4],
)  # fmt: skip
case(
    "Gather-one-of-each-row",
    "x[N,7] -> y[N,5]",
    "a = MatMul(x, w) b = Reshape(a, s) c = Gather <axis=2> (b, i) y = MatMul(c, v)",
    w=(7, 16), v=(4, 5), s=[0, 4, 4], i=np.array(3),
)  # fmt: skip
chain("Expand", "c = GlobalAveragePool(a) b = Expand(c, s)", s=[1, 6, 4, 4])
chain("Expand-channels", "c = Expand(d, s) b = Add(a, c)", d=(1, 1, 1), s=[6, 4, 4])
chain("Expand-computed", "s = Shape(a) c = GlobalAveragePool(a) b = Expand(c, s)")
chain("Tile", "b = Tile(a, r)", r=[1, 2, 1, 3], v=(5, 12, 1, 1), out="4,12")
chain(
    "Tile-batch",  # one sample's worth of a vector, as often as the batch says
    "n = Shape <start=0, end=1> (x) r = Concat <axis=0> (n, o) c = Tile(d, r) e = Mul(a, c) b = Relu(e)",
    d=(1, 6, 1, 1), o=[1, 1, 1],
)  # fmt: skip
chain("DepthToSpace", "b = DepthToSpace <blocksize=2> (a)", w=(12, 3, 1, 1), v=(5, 3, 1, 1), out="8,8")
chain("DepthToSpace-CRD", 'b = DepthToSpace <blocksize=2, mode="CRD"> (a)', w=(12, 3, 1, 1), v=(5, 3, 1, 1), out="8,8")
chain("SpaceToDepth", "b = SpaceToDepth <blocksize=2> (a)", v=(5, 24, 1, 1), out="2,2")
chain("Pad-edge", 'b = Pad <mode="edge"> (a, p)', p=[0, 0, 1, 0, 0, 0, 0, 1], out="5,5")
chain("Pad-wrap", 'b = Pad <mode="wrap"> (a, p, "", k)', p=[1, 1], k=[3], out="4,6", opset=19)
case(
    "Pad-computed",
    "x[N,3,H,4] -> y[N,5,G,4]",
    "a = Conv(x, w) s = Shape <start=2, end=3> (x) d = Sub(t, s) p = Concat <axis=0> (z, z, d, z, z, c, z, z) "
    "b = Pad(a, p) y = Conv(b, v)",
    w=(6, 3, 1, 1), v=(5, 7, 1, 1), t=[5], z=[0], c=[1],
)  # fmt: skip
case(
    "Squeeze-everything",
    "x[2,3,1,1] -> y[2,5]",
    "a = Conv(x, w) b = Squeeze(a) y = MatMul(b, v)",
    w=(6, 3, 1, 1), v=(6, 5),
)  # fmt: skip
case(
    "Squeeze-everything-11",
    "x[2,3,1,1] -> y[2,5]",
    "a = Conv(x, w) b = Squeeze(a) y = MatMul(b, v)",
    w=(6, 3, 1, 1), v=(6, 5), opset=11,
)  # fmt: skip
chain(
    "pixel-shuffle",
    "c = Reshape(a, s) d = Transpose <perm=[0, 1, 4, 2, 5, 3]> (c) b = Reshape(d, t)",
    w=(12, 3, 1, 1), v=(5, 3, 1, 1), s=[0, 3, 2, 2, 4, 4], t=[0, 3, 8, 8], out="8,8",
)  # fmt: skip
chain(
    "pixel-shuffle-blocks-first",
    "c = Reshape(a, s) d = Transpose <perm=[0, 3, 4, 1, 5, 2]> (c) b = Reshape(d, t)",
    w=(12, 3, 1, 1), v=(5, 3, 1, 1), s=[0, 2, 2, 3, 4, 4], t=[0, 3, 8, 8], out="8,8",
)  # fmt: skip
chain(
    "pixel-unshuffle",
    "c = Reshape(a, s) d = Transpose <perm=[0, 1, 3, 5, 2, 4]> (c) b = Reshape(d, t)",
    v=(5, 24, 1, 1), s=[0, 6, 2, 2, 2, 2], t=[0, 24, 2, 2], out="2,2",
)  # fmt: skip
chain(
    "pixel-unshuffle-blocks-first",
    "c = Reshape(a, s) d = Transpose <perm=[0, 3, 5, 1, 2, 4]> (c) b = Reshape(d, t)",
    v=(5, 24, 1, 1), s=[0, 6, 2, 2, 2, 2], t=[0, -1, 2, 2], out="2,2",
)  # fmt: skip
chain(
    "patch-merging",
    "c = Slice(a, i, e, k, s) d = Slice(a, j, e, k, s) f = Slice(a, l, e, k, s) g = Slice(a, m, e, k, s) "
    "b = Concat <axis=1> (c, d, f, g)",
    i=[0, 0], j=[1, 0], l=[0, 1], m=[1, 1], e=[9, 9], k=[2, 3], s=[2, 2], v=(5, 24, 1, 1), out="2,2",
)  # fmt: skip
case(
    "Concat-stacks",  # torch.stack, read as it was laid
    "x[N,7] -> y[N,5]",
    "a = MatMul(x, w) c = MatMul(x, u) a1 = Unsqueeze(a, k) c1 = Unsqueeze(c, k) d = Concat <axis=1> (a1, c1) "
    "e = Flatten(d) y = MatMul(e, v)",
    w=(7, 4), u=(7, 4), v=(8, 5), k=[1],
)  # fmt: skip
case(
    "Concat-stacks-and-sums",
    "x[N,7] -> y[N,5]",
    "a = MatMul(x, w) c = MatMul(x, u) a1 = Unsqueeze(a, k) c1 = Unsqueeze(c, k) d = Concat <axis=1> (a1, c1) "
    "e = ReduceSum <keepdims=0> (d, k) y = MatMul(e, v)",
    w=(7, 4), u=(7, 4), v=(4, 5), k=[1],
)  # fmt: skip
