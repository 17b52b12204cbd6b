"""Attention as onnxruntime fuses it. Law: heads go whole or lose equal numbers; queries and keys lose the same ones.

A hidden axis is (heads, size) in order. Head sizes are read off the tensors when the model runs, but not the number of
heads, nor the scale of the scores, whose default follows the head size: both are written down when they change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onnxprune.labels import Axes, Axis, Ids
from onnxprune.rules.attention import apart
from onnxprune.rules.edit import Edit, Mask
from onnxprune.rules.op import Op
from onnxprune.rules.quant import per_index
from onnxprune.rules.records import CannotTrace
from onnxprune.rules.registry import resize, rule
from onnxprune.rules.zeros import contracted, keeps_zero

RUNTIME = "com.microsoft"
CACHED = "keeps keys and values in a cache that the caller hands on, so its heads keep their size"


@rule("Attention", "QAttention", domain=RUNTIME)
def attention(op: Op) -> Sequence[Axes]:
    """b s i, i (q k v), (q k v) -> b s v: three projections in one weight, then attention over heads."""
    x, weight = op.input(0), op.input(1)
    merged = op.source(op.plain(weight, 1))
    refuse_cache(op, past={"Attention": 4, "QAttention": 8}[op.kind])
    into = contracted(op, op.plain(x, 2), op.plain(weight, 0))
    if op.has(2):
        merged = op.join(merged, op.plain(op.input(2), 0))
    if op.kind == "QAttention":
        merged = per_index(op, per_index_axes(op, merged, 4), 1, 7)
    positions = known(op.shape(0)[1])
    op.cost(positions, [op.extent(into, op.shape(0)[2]), op.extent(merged, op.shape(1)[1])])
    q, k, v = cut(merged, hidden_sizes(op))
    out = attend(op, op.join(q, k), v, positions**2, bias={"Attention": 5}.get(op.kind, op.arity))
    op.fix_rest(x, (0, 2), op.name_in(0), f"{op.kind} mixes this axis with itself")
    return [(op.plain(x, 0), Axis(), out)]


def per_index_axes(op: Op, merged: Axis, i: int) -> Axes:
    """The weight's axes once its scales, input `i`, are joined with the second."""
    return (Axis(), per_index(op, (Axis(), merged), 1, i))


@rule("MultiHeadAttention", domain=RUNTIME)
def multi_head_attention(op: Op) -> Sequence[Axes]:
    """b s q, b t q, b t v, (q q v) -> b s v: attention over heads of three projections, to which a bias is added."""
    refuse_cache(op, past=6)
    if not (op.has(1) and op.has(2)) or any(len(op.shape(i)) != 3 for i in range(3)):
        raise CannotTrace("MultiHeadAttention of packed projections")
    q, k, v = (op.plain(op.input(i), 2) for i in range(3))
    if op.has(3):
        sizes = [known(op.shape(i)[2]) for i in range(3)]
        q, k, v = (op.join(a, b) for a, b in zip((q, k, v), cut(op.plain(op.input(3), 0), sizes), strict=True))
        if not keeps_zero(op, op.name_in(3)):
            op.fix_rest(op.input(3), (), op.name_in(3), "a bias that does not vanish with its weights")
    for i in range(3):
        op.fix_rest(op.input(i), (0, 2), op.name_in(i), f"{op.kind} mixes this axis with itself")
    work = known(op.shape(0)[1]) * known(op.shape(1)[1])
    out = attend(op, contracted(op, q, k), v, work, bias=5)
    return [(op.plain(op.input(0), 0), Axis(), out)]


@rule("GroupQueryAttention", "DecoderMaskedMultiHeadAttention", domain=RUNTIME)
def cached_attention(op: Op) -> Sequence[Axes]:
    """Frozen: the shape of its cache belongs to the caller."""
    raise CannotTrace(f"{op.kind} {CACHED}")


def refuse_cache(op: Op, past: int) -> None:
    """Refuse nodes that read or write the keys and values of earlier positions.

    Raises:
        CannotTrace: It does.
    """
    if op.has(past) or any(op.node.output[1:]):
        raise CannotTrace(f"{op.kind} {CACHED}")


def known(size: object) -> int:
    """A size as a factor of cost; unknown ones count as 1."""
    return size if isinstance(size, int) else 1


def hidden_sizes(op: Op) -> list[int]:
    """The sizes of queries, keys and values in the merged weight.

    Raises:
        CannotTrace: They are unknown.
    """
    merged = op.shape(1)[1]
    if not isinstance(merged, int):
        raise CannotTrace("the merged weight's size is unknown")
    return list(op.attr("qkv_hidden_sizes", [merged // 3] * 3))


def cut(axis: Axis, sizes: Sequence[int]) -> list[Axis]:
    """Neighbouring parts of an axis."""
    if axis.ids is None:
        return [axis for _ in sizes]
    return [Axis(part) for part in np.split(axis.ids, np.cumsum(sizes)[:-1])]


def attend(op: Op, q: Axis, v: Axis, work: int, bias: int) -> Axis:
    """Put queries (tied to keys) and values in heads; the output's hidden axis, which is that of the values.

    Args:
        op: The node.
        q: Hidden axis of queries and keys.
        v: Hidden axis of the values.
        work: Pairs of positions, for the cost.
        bias: Number of the input that is added to the scores, one matrix for each head or one for all.
    """
    count = op.attr("num_heads", 0)
    sizes = [axis.ids.size for axis in (q, v) if axis.ids is not None]
    if count < 1 or any(size % count for size in sizes):
        raise CannotTrace(f"{op.kind} does not say how many heads there are")
    rows = [axis.ids.reshape(count, -1) for axis in (q, v) if axis.ids is not None]
    whole = len(rows) == 2 and all(apart(ids) for ids in rows)  # a head goes only with both of its halves
    parents = op.ties.fresh(count) if whole else None
    join_scores(op, bias, parents)
    if op.kind == "QAttention" and len(rows) == 2 and rows[0].shape == rows[1].shape:
        # Its kernel knows one size for all three, so queries lose as many as values.
        rows, parents = [np.concatenate(rows)], None if parents is None else np.concatenate([parents, parents])
    for ids in rows:
        op.rows(ids, parents)
    for axis, size in ((q, "queries"), (v, "values")):
        if axis.ids is not None:
            op.cost(work, [axis])
        elif op.kind == "QAttention" and rows:
            op.freeze_ids(rows[0], f"as many as {size}, which are fixed", op.name_in(1), 1)
    return v


def join_scores(op: Op, bias: int, parents: Ids | None) -> None:
    """Tie heads that may go to those of what is added to the scores; all its other axes stay."""
    if not op.has(bias):
        return
    scores, heads = op.input(bias), len(op.shape(bias)) - 3
    each = parents is not None and op.shape(bias)[heads] != 1
    if parents is not None and each:
        op.join(Axis(parents), op.plain(scores, heads))
    op.fix_rest(scores, (heads,) if each else (), op.name_in(bias), f"{op.kind} adds it to the scores")


@resize("Attention", "QAttention", domain=RUNTIME)
def resize_attention(edit: Edit) -> None:
    """Number of heads, sizes of the three parts, and scale."""
    axis = edit.axes(edit.node.input[1])[1]
    merged = edit.shape(edit.node.input[1])[1]
    if axis.ids is None or not isinstance(merged, int):
        return
    dense = list(edit.attr("qkv_hidden_sizes", [merged // 3] * 3))
    parts = [edit.keep[ids] for ids in np.split(axis.ids, np.cumsum(dense)[:-1])]
    sizes = [int(part.sum()) for part in parts]
    if edit.attr("qkv_hidden_sizes") or len(set(sizes)) > 1:
        edit.set_attr("qkv_hidden_sizes", sizes)
    resize_heads(edit, parts[0], parts[2])


@resize("MultiHeadAttention", domain=RUNTIME)
def resize_multi_head(edit: Edit) -> None:
    """Number of heads and scale."""
    q, v = (edit.axes(edit.node.input[i])[2] for i in (0, 2))
    sizes = [edit.shape(edit.node.input[i])[2] for i in (0, 2)]
    q_kept, v_kept = (
        np.ones(known(size), dtype=bool) if axis.ids is None else edit.kept(axis)
        for axis, size in zip((q, v), sizes, strict=True)
    )
    resize_heads(edit, q_kept, v_kept)


def resize_heads(edit: Edit, q: Mask, v: Mask) -> None:
    """Write down the number of heads still alive, and the scale of the dense head size where that has changed.

    Args:
        edit: The node.
        q: Which hidden indices of the queries stay.
        v: The same for the values.
    """
    heads = int(edit.attr("num_heads"))
    alive = int((q.reshape(heads, -1).any(axis=1) & v.reshape(heads, -1).any(axis=1)).sum())
    edit.set_attr("num_heads", alive)
    if q.sum() * heads != q.size * alive and not edit.attr("scale"):
        edit.set_attr("scale", 1 / math.sqrt(q.size // heads))


@rule("RotaryEmbedding", domain=RUNTIME)
def rotary_embedding(op: Op) -> Sequence[Axes]:
    """Rotates pairs of each head's indices by angles that all heads share: a pair goes whole, and from every head."""
    x, angles = op.input(0), op.shape(2)[1]
    if op.attr("is_packed_batching", 0) or not isinstance(angles, int):
        raise CannotTrace("RotaryEmbedding of packed positions or unknown width")
    hidden = len(x) - 1
    op.fix_rest(op.input(2), (1,), op.name_in(2), "positions")
    op.fix_rest(op.input(3), (1,), op.name_in(3), "positions")
    channels, width = op.plain(x, hidden), 2 * angles
    turned = op.join(op.plain(op.input(2), 1), op.plain(op.input(3), 1))
    if channels.ids is None or op.attr("rotary_embedding_dim", 0) not in (0, head_size(op, width)):
        op.fix(x, hidden, op.name_in(0), "RotaryEmbedding turns a part of each head")
        op.join(Axis(), turned)
        return [(*x[:-1], Axis())]
    rows = channels.ids.reshape(-1, width)
    interleaved = bool(op.attr("interleaved", 0))
    pairs = rows.reshape(-1, angles, 2) if interleaved else rows.reshape(-1, 2, angles).swapaxes(1, 2)
    first: Ids = op.collapse(op.collapse(pairs.reshape(pairs.shape[0], -1)).reshape(angles, 2).T)
    op.join(turned, Axis(first))
    head = np.repeat(first, 2) if interleaved else np.tile(first, 2)
    return [(*x[:-1], Axis(np.tile(head, rows.shape[0])))]


def head_size(op: Op, width: int) -> int:
    """The size of a head: all of a 4-dimensional input's last axis, a share of a 3-dimensional one's."""
    last = op.shape(0)[-1]
    whole = len(op.shape(0)) == 4 or not op.attr("num_heads", 0)
    return width if not isinstance(last, int) else width if whole else last // op.attr("num_heads", 1)


@resize("RotaryEmbedding", domain=RUNTIME)
def resize_rotary(edit: Edit) -> None:
    """The width of a head that is turned, where it is written down."""
    if edit.attr("rotary_embedding_dim", 0):
        axis = edit.axes(edit.node.input[2])[1]
        edit.set_attr("rotary_embedding_dim", 2 * int(str(edit.size(axis, edit.shape(edit.node.input[2])[1]))))
