"""Moves that change where things lie: shapes, axes, indices. The law is that of `moves`."""

from __future__ import annotations

import numpy as np

from tests.property.builder import FLOAT, Builder, Tensor, Unusable
from tests.property.moves import ANY, move


def sizes(b: Builder, *dims: int) -> Tensor:
    """The target of a Reshape that keeps the batch."""
    return b.constant([b.pick([0, -1]) if -1 not in dims else 0, *dims])


# --- parts and wholes ------------------------------------------------------------------------------------------------


@move("Concat", ANY, 4)
def concat(b: Builder, x: Tensor, kind: str) -> Tensor:
    axis = b.size(1, x.rank - 1)
    fits = [
        t
        for t in b.pool
        if t.rank == x.rank and all(m == n or k == axis for k, (m, n) in enumerate(zip(t.shape, x.shape, strict=True)))
    ]
    parts = [x, *(b.pick(fits) for _ in range(b.size(1, 2)))]
    return b.op(kind, *parts, axis=axis)


@move("Split", ANY, 3)
def split(b: Builder, x: Tensor, kind: str) -> Tensor:
    axis = b.size(1, x.rank - 1)
    if x.shape[axis] < 2:
        raise Unusable
    first = b.size(1, x.shape[axis] - 1)
    halves = b.node(kind, [x, b.constant([first, x.shape[axis] - first])], 2, axis=axis)
    b.pool.append(halves[1])
    return halves[0]


@move("Slice", ANY, 3)
def slice_(b: Builder, x: Tensor, kind: str) -> Tensor:
    axis = b.size(1, x.rank - 1)
    n = x.shape[axis]
    start, end, step = b.pick([(0, n, 2), (-1, -n - 1, -1), (1, n, 1), (0, -1, 1), (0, 2**31, 1), (-2, 2**31, 1)])
    given = [b.constant([v]) for v in (start, end, axis - b.pick([0, x.rank]), step)]
    return b.op(kind, x, *given)


@move("Gather", ANY, 3)
def gather(b: Builder, x: Tensor, kind: str) -> Tensor:
    axis = b.size(1, x.rank - 1)
    n = x.shape[axis]
    if x.rank > 2 and b.below(3) == 0:
        return b.op(kind, x, b.constant(b.below(n)), axis=axis)
    index = [b.below(n) - b.pick([0, n]) for _ in range(b.size(1, n))]
    return b.op(kind, x, b.constant(index), axis=axis)


@move("Pad", ANY, 2)
def pad(b: Builder, x: Tensor, kind: str) -> Tensor:
    axis = b.size(1, x.rank - 1)
    pads = [0] * 2 * x.rank
    pads[axis], pads[axis + x.rank] = b.below(3), b.below(3)
    modes = ["constant", "constant", "edge", *(["reflect"] if x.shape[axis] > 2 else [])]
    return b.op(kind, x, b.constant(pads), mode=b.pick(modes))


@move("Tile", ANY, 1)
def tile(b: Builder, x: Tensor, kind: str) -> Tensor:
    axis = b.size(1, x.rank - 1)
    return b.op(kind, x, b.constant([2 if k == axis else 1 for k in range(x.rank)]))


@move("Expand", ANY, 2)
def expand(b: Builder, x: Tensor, kind: str) -> Tensor:
    """Stretch a new axis; sometimes sum over it again."""
    k = b.size(1, x.rank)
    thin = b.op("Unsqueeze", x, b.constant([k]))
    wide = b.op(kind, thin, b.constant([b.size(2, 3) if j == k else 1 for j in range(thin.rank)]))
    return wide if wide.rank <= 4 and b.flip() else b.op("ReduceSum", wide, b.constant([k]), keepdims=0)


# --- axes ------------------------------------------------------------------------------------------------------------


@move("Transpose", [3, 4], 3)
def transpose(b: Builder, x: Tensor, kind: str) -> Tensor:
    rest = list(range(1, x.rank))
    order = [0, *(rest.pop(b.below(len(rest))) for _ in range(x.rank - 1))]
    return b.op(kind, x, perm=order)


@move("Transpose", [3], 1)
def batch_second(b: Builder, x: Tensor, kind: str) -> Tensor:
    """(N, L, C) -> (L, N, C), a projection there, and back, as torch's attention does."""
    turned = b.op(kind, x, perm=[1, 0, 2])
    return b.op(kind, b.op("MatMul", turned, b.weight(x.shape[2], 4, fan_in=x.shape[2])), perm=[1, 0, 2])


@move("Unsqueeze Squeeze", ANY, 2)
def squeeze(b: Builder, x: Tensor, kind: str) -> Tensor:
    k = b.size(1, x.rank)
    wide = b.op("Unsqueeze", x, b.constant([k]))
    return wide if wide.rank <= 4 and b.flip() else b.op("Squeeze", b.op("Relu", wide), b.constant([k]))


@move("Reshape", [4], 2)
def shuffle(b: Builder, x: Tensor, kind: str) -> Tensor:
    _, c, *space = x.shape
    g = b.divisor(c)
    rows = b.op(kind, x, b.constant([0, g, c // g, *space]))
    return b.op(kind, b.op("Transpose", rows, perm=[0, 2, 1, 3, 4]), sizes(b, c, *space))


@move("Flatten Reshape", [3, 4], 3)
def flatten(b: Builder, x: Tensor, kind: str) -> Tensor:
    size = int(np.prod(x.shape[1:]))
    if size > 96:
        raise Unusable
    return b.op("Flatten", x) if kind == "Flatten" else b.op(kind, x, sizes(b, size))


@move("Reshape", [4], 3)
def to_sequence(b: Builder, x: Tensor, kind: str) -> Tensor:
    _, c, h, w = x.shape
    return b.op("Transpose", b.op(kind, x, sizes(b, c, h * w)), perm=[0, 2, 1])


@move("Reshape", [3], 2)
def to_image(b: Builder, x: Tensor, kind: str) -> Tensor:
    _, length, c = x.shape
    h = b.pick([d for d in range(1, length + 1) if length % d == 0])
    return b.op(kind, b.op("Transpose", x, perm=[0, 2, 1]), sizes(b, c, h, length // h))


@move("Reshape", [2, 3], 3)
def to_rows(b: Builder, x: Tensor, kind: str) -> Tensor:
    """Cut the last axis into rows and act on them; sometimes flatten them again."""
    *front, c = x.shape
    g = b.divisor(c)
    y = b.op(kind, x, b.constant([0, *front[1:], g, c // g]))
    if b.flip():
        y = b.op(b.pick(["Relu", "Sigmoid", "Softmax"]), y)
    return y if b.flip() else b.op(kind, y, sizes(b, *front[1:], c))


@move("MatMul", [3], 4)
def attention(b: Builder, x: Tensor, kind: str) -> Tensor:
    """Multi-head attention with projections, as exporters write it."""
    _, length, c = x.shape
    heads, width = b.pick([1, 2, 3]), b.size(1, 3)
    order = [0, 2, 1, 3]

    def project() -> Tensor:
        wide = b.op("MatMul", x, b.weight(c, heads * width, fan_in=c))
        wide = b.op("Add", wide, b.weight(heads * width)) if b.flip() else wide
        return b.op("Transpose", b.op("Reshape", wide, b.constant([0, length, heads, width])), perm=order)

    q, k, v = project(), b.op("Transpose", project(), perm=[0, 1, 3, 2]), project()
    scores = b.op("Softmax", b.op("MatMul", q, k), axis=-1)
    mixed = b.op("Transpose", b.op("MatMul", scores, v), perm=order)
    flat = b.op("Reshape", mixed, b.constant([0, length, heads * width]))
    return b.op("MatMul", flat, b.weight(heads * width, c, fan_in=heads * width))


@move("DepthToSpace SpaceToDepth", [4], 2)
def blocks(b: Builder, x: Tensor, kind: str) -> Tensor:
    mode = {"mode": b.pick(["DCR", "CRD"])} if kind[0] == "D" else {}
    return b.op(kind, x, blocksize=2, **mode)


@move("Resize", [4], 2)
def resize(b: Builder, x: Tensor, kind: str) -> Tensor:
    if b.flip():
        return b.op(kind, x, None, b.constant(np.array([1, 1, 2, 1], np.float32)), mode="nearest")
    if b.symbolic:
        raise Unusable
    return b.op(kind, x, None, None, b.constant([*x.shape[:2], 3, 4]), mode="nearest")


# --- reductions ------------------------------------------------------------------------------------------------------


@move(
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum "
    "ReduceSumSquare",
    [3, 4],
    4,
)
def reduce(b: Builder, x: Tensor, kind: str) -> Tensor:
    if kind == "ReduceLogSum":
        x = b.op("Add", b.op("Sigmoid", x), b.constant(0.1))
    axes, keep = b.pick([[1], [2], [-1], list(range(2, x.rank))]), b.below(2)
    if b.opset >= 18 or kind == "ReduceSum":
        y = b.op(kind, x, b.constant(axes), keepdims=keep)
    else:
        y = b.op(kind, x, axes=axes, keepdims=keep)
    return b.op("Add", x, y) if keep and b.flip() else y


@move("ArgMax ArgMin", [3, 4], 1)
def search(b: Builder, x: Tensor, kind: str) -> Tensor:
    found = b.op(kind, x, axis=b.size(1, x.rank - 1), keepdims=1)
    return b.op("Mul", x, b.op("Cast", found, to=FLOAT))


@move("CumSum", ANY, 1)
def cumulative(b: Builder, x: Tensor, kind: str) -> Tensor:
    return b.op(kind, x, b.constant(b.size(1, x.rank - 1)))


# --- sizes read while the model runs ---------------------------------------------------------------------------------


@move("Shape", [3, 4], 3)
def flatten_by_shape(b: Builder, x: Tensor, kind: str) -> Tensor:
    """`x.view(x.shape[0], -1)` as torch writes it."""
    if np.prod(x.shape[1:]) > 96:
        raise Unusable
    batch = b.op("Unsqueeze", b.op("Gather", b.op(kind, x), b.constant(0), axis=0), b.constant([0]))
    return b.op("Reshape", x, b.op("Concat", batch, b.constant([-1]), axis=0))


@move("Shape", [3], 2)
def rows_by_shape(b: Builder, x: Tensor, kind: str) -> Tensor:
    """`x.view(B, L, heads, -1)`, all sizes read from x."""
    shape, c = b.op(kind, x), x.shape[2]
    parts = [b.op("Unsqueeze", b.op("Gather", shape, b.constant(k), axis=0), b.constant([0])) for k in (0, 1)]
    y = b.op("Reshape", x, b.op("Concat", *parts, b.constant([b.divisor(c), -1]), axis=0))
    return b.op("Reshape", b.op("Relu", y), shape) if b.flip() else y


@move("ConstantOfShape Expand", ANY, 2)
def filled(b: Builder, x: Tensor, kind: str) -> Tensor:
    shape = b.op("Shape", x)
    if kind == "Expand":
        return b.op("Mul", x, b.op(kind, b.weight(1), shape))
    return b.op("Add", x, b.op("Cast", b.op(kind, shape), to=FLOAT))


@move("Range", [3], 1)
def positions(b: Builder, x: Tensor, kind: str) -> Tensor:
    """The index of each element of the last axis, counted to a size that is read."""
    end = b.op("Gather", b.op("Shape", x), b.constant(2), axis=0)
    return b.op("Add", x, b.op("Cast", b.op(kind, b.constant(0), end, b.constant(1)), to=FLOAT))


@move("EyeLike", [2], 1)
def identity_matrix(b: Builder, x: Tensor, kind: str) -> Tensor:
    return b.op("Add", x, b.op(kind, x))


@move("Constant", ANY, 1)
def constant_node(b: Builder, x: Tensor, kind: str) -> Tensor:
    return b.op("Add", x, b.op("Cast", b.op(kind, value_float=0.25), to=FLOAT))


@move("Trilu TopK ReverseSequence GatherElements", ANY, 2)
def reordered(b: Builder, x: Tensor, kind: str) -> Tensor:
    """Along an axis: a triangle, the largest, the other way round, by an index for each element."""
    if kind == "Trilu":
        return b.op(kind, x, upper=b.below(2))
    if kind == "ReverseSequence":
        ends = b.constant(b.rng.integers(1, x.shape[1] + 1, x.shape[0]))
        return b.op(kind, x, ends, batch_axis=0, time_axis=1)
    axis = b.size(1, x.rank - 1)
    if kind == "TopK":
        return b.node(kind, [x, b.constant([b.size(1, x.shape[axis])])], 2, axis=axis)[0]
    return b.op(kind, x, b.constant(b.rng.integers(0, x.shape[axis], x.shape)), axis=axis)
