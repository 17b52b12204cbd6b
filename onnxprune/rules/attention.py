"""Attention as one operator. Law: a head dimension goes with its products, in equal numbers from every head.

Queries and keys are contracted over the head's dimensions, values flow to the output. Three-dimensional operands keep
(heads, dimensions) on one axis, four-dimensional ones on two; both are looked at as axes in rows over the heads. With
fewer heads of keys and values than of queries, neighbouring heads of queries share one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onnxprune.labels import Axes, Axis, Ids
from onnxprune.model import Dim
from onnxprune.rules.edit import Edit
from onnxprune.rules.op import Op
from onnxprune.rules.records import CannotTrace
from onnxprune.rules.registry import resize, rule
from onnxprune.rules.zeros import contracted, keeps_zero

QUERY, KEY, VALUE, MASK, PAST_KEY, PAST_VALUE = range(6)


@rule("Attention")
def attention(op: Op) -> Sequence[Axes]:
    """softmax(Q K^T) V for each head: dimensions of Q and K are tied, those of V pass to the output."""
    flat = len(op.input(QUERY)) == 3
    q_heads, kv_heads = count_heads(op, QUERY, "q_num_heads"), count_heads(op, KEY, "kv_num_heads")
    times = q_heads // kv_heads
    keys, values = (with_past(op, i, past, kv_heads) for i, past in ((KEY, PAST_KEY), (VALUE, PAST_VALUE)))
    inner = contracted(op, per_head(op, QUERY, q_heads), repeated(keys, times))
    outer = repeated(values, times)
    heads = tie_heads(op, kv_heads, times)
    if flat:
        heads = note_rows(op, heads, [axis.ids for axis in (keys, values) if axis.ids is not None])
    fix_others(op, flat)
    query_heads = join_mask(op, repeated_heads(heads, times), q_heads)
    note_cost(op, query_heads, q_heads, inner, outer)
    op.records.zero[op.node.output[0]] = keeps_zero(op, op.name_in(VALUE))
    whole = Axis(), query_heads, Axis(), Axis()
    y = (Axis(), Axis(), flattened(outer)) if flat else (Axis(), query_heads, Axis(), narrowed(outer))
    present = [(Axis(), heads, Axis(), narrowed(axis)) for axis in (keys, values)]
    return [y, *present, whole][: op.outputs]


def count_heads(op: Op, i: int, attribute: str) -> int:
    """The number of heads of an operand: an attribute, or the size of its second axis.

    Raises:
        CannotTrace: It is unknown.
    """
    shape = op.shape(i)
    heads = op.attr(attribute, 0) if len(shape) == 3 else shape[1]
    if not isinstance(heads, int) or heads < 1 or not isinstance(shape[-1], int):
        raise CannotTrace(f"the number of heads or dimensions of '{op.name_in(i)}' is unknown")
    return heads


def per_head(op: Op, i: int, heads: int) -> Axis:
    """The dimensions of an operand in rows over its heads, ids of shape (heads, dimensions); or a frozen axis."""
    x = op.input(i)
    own = len(x) - 1
    axis = x[own]
    if axis.ids is not None and len(x) == 4 and axis.by == (1,) and axis.ids.shape[0] == heads:
        return axis
    axis = op.plain(x, own)
    if axis.ids is None:
        return axis
    if len(x) == 3:
        return Axis(axis.ids.reshape(heads, -1), (1,))
    return Axis(np.broadcast_to(axis.ids, (heads, axis.ids.size)), (1,))


def with_past(op: Op, i: int, past: int, heads: int) -> Axis:
    """The dimensions of keys or values, joined with those that were kept from earlier steps."""
    axis = per_head(op, i, heads)
    return op.join(axis, per_head(op, past, heads)) if op.has(past) else axis


def repeated(axis: Axis, times: int) -> Axis:
    """Dimensions of the heads of keys or values, for each head of queries."""
    return axis if axis.ids is None or times == 1 else Axis(np.repeat(axis.ids, times, axis=0), axis.by)


def repeated_heads(axis: Axis, times: int) -> Axis:
    """Heads of keys or values, for each head of queries."""
    return axis if axis.ids is None or times == 1 else Axis(np.repeat(axis.ids, times))


def flattened(axis: Axis) -> Axis:
    """Dimensions in rows over heads, as one axis."""
    return axis if axis.ids is None else Axis(axis.ids.ravel())


def narrowed(axis: Axis) -> Axis:
    """Dimensions in rows over heads, or plain ones where every head has the same."""
    alike = axis.ids is not None and bool((axis.ids == axis.ids[0]).all())
    return Axis(axis.ids[0]) if alike and axis.ids is not None else axis


def tie_heads(op: Op, heads: int, times: int) -> Axis:
    """The heads of keys and values, tied with those of queries and of the past where they are axes of their own."""
    joined = Axis(op.ties.fresh(heads))
    for i in (QUERY, KEY, VALUE, PAST_KEY, PAST_VALUE):
        if op.has(i) and len(op.shape(i)) == 4:
            own = op.plain(op.input(i), 1)
            wide = repeated_heads(joined, times if i == QUERY else 1)
            frozen = op.join(wide, own)
            joined = frozen if frozen.ids is None else joined
    return joined


def note_rows(op: Op, heads: Axis, dims: Sequence[Ids]) -> Axis:
    """Note that heads lose equal numbers, or go whole where no two of them share a dimension; the heads, then."""
    if heads.ids is not None and not all(apart(ids) for ids in dims):
        heads = op.freeze_ids(heads.ids, "heads share dimensions, so none goes whole", op.name_in(KEY), -1)
    for ids in dims:
        op.rows(ids, heads.ids)
    return heads


def apart(ids: Ids) -> bool:
    """Whether no two heads share a dimension, as they do behind a rotation by common angles. Shape (heads, width)."""
    return sum(np.unique(row).size for row in ids) == np.unique(ids).size


def join_mask(op: Op, heads: Axis, count: int) -> Axis:
    """Heads of queries, joined with the mask's where it has one for each."""
    if not op.has(MASK) or len(op.shape(MASK)) < 3:
        return heads
    mask, k = op.input(MASK), len(op.shape(MASK)) - 3
    if op.shape(MASK)[k] == 1 or count == 1:
        op.fix(mask, k, op.name_in(MASK), "Attention stretches this single index")
        return heads
    return op.join(heads, op.plain(mask, k))


def fix_others(op: Op, flat: bool) -> None:
    """The batch and the steps stay."""
    free = dict.fromkeys((QUERY, KEY, VALUE), (2,) if flat else (1, 3)) | dict.fromkeys((PAST_KEY, PAST_VALUE), (1, 3))
    if op.has(MASK):
        free[MASK] = (len(op.shape(MASK)) - 3,)
    for i in range(op.arity):
        if op.has(i):
            op.fix_rest(op.input(i), free.get(i, ()), op.name_in(i), "Attention runs along this axis")


def note_cost(op: Op, heads: Axis, count: int, inner: Axis, outer: Axis) -> None:
    """Note the two products of every head, as if they were written with MatMul."""
    at = len(op.shape(QUERY)) - 2
    past = op.shape(PAST_KEY)[2] if op.has(PAST_KEY) else 0
    given = op.shape(KEY)[at]
    steps = given + past if isinstance(given, int) and isinstance(past, int) else None
    for i, axis in ((QUERY, inner), (VALUE, outer)):
        common: list[Axis | Dim] = [op.shape(QUERY)[0], op.shape(QUERY)[at], steps]
        dims = narrowed(axis) if at == 2 else axis
        if dims.ids is not None and dims.by:
            op.cost(1.0, [*common, dims])
            continue
        last = op.shape(i)[-1]
        assert isinstance(last, int)
        own = count if i == QUERY else count_heads(op, KEY, "kv_num_heads")
        op.cost(1.0, [*common, op.extent(heads, count), op.extent(dims, last if at == 2 else last // own)])


@resize("Attention")
def resize_heads(edit: Edit) -> None:
    """Head counts follow the heads still alive; a scale derived from the head size keeps the size it had."""
    name = edit.node.input[QUERY]
    axis, dense = edit.axes(name)[-1], edit.shape(name)[-1]
    flat = len(edit.shape(name)) == 3
    heads = edit.attr("q_num_heads", 1) if flat else 1
    if axis.ids is None or not isinstance(dense, int):
        return
    left = edit.kept(axis).reshape(heads, -1).sum(axis=1)
    if edit.attr("scale") is None and left.max() < dense // heads:
        edit.set_attr("scale", 1 / math.sqrt(dense // heads))
    if flat:
        shared = heads // edit.attr("kv_num_heads", heads)
        edit.set_attr("q_num_heads", int((left > 0).sum()))
        edit.set_attr("kv_num_heads", int((left > 0).sum()) // shared)


@rule("RotaryEmbedding")
def rotary_embedding(op: Op) -> Sequence[Axes]:
    """Turns pairs of dimensions by angles that all heads share: a pair goes from every head, the angle with it."""
    x = op.input(0)
    own = len(x) - 1
    heads = count_heads(op, 0, "num_heads")
    op.fix_rest(x, (own,), op.name_in(0), "RotaryEmbedding runs along this axis")
    angles = op.join(*(op.plain(op.input(i), len(op.shape(i)) - 1) for i in (1, 2)))
    for i in range(1, op.arity):
        if op.has(i):
            free = (len(op.shape(i)) - 1,) if i < 3 else ()
            op.fix_rest(op.input(i), free, op.name_in(i), "RotaryEmbedding looks angles up along this axis")
    out = turned(op, per_head(op, 0, heads), angles)
    op.records.zero[op.node.output[0]] = keeps_zero(op, op.name_in(0))
    if own == 2:
        return [(Axis(), Axis(), flattened(out))]
    return [(Axis(), Axis(), Axis(), narrowed(out))]


def turned(op: Op, dims: Axis, angles: Axis) -> Axis:
    """Dimensions of a rotated tensor, in rows over heads: the rotated ones are those of its angles, the rest pass."""
    if dims.ids is None:
        return op.join_frozen(dims, angles) if angles.ids is not None else dims
    size = op.attr("rotary_embedding_dim", 0) or dims.ids.shape[1]
    pairs, rest = pairs_of(dims.ids[:, :size], op.attr("interleaved", 0)), dims.ids[:, size:]
    if angles.ids is None:
        op.join_frozen(Axis(pairs), angles)
    else:
        op.ties.tie(pairs, angles.ids[:, None])
    if rest.shape[1] and len(op.input(0)) == 3:
        op.rows(rest)
    common = np.broadcast_to(dims.ids[0, :size], dims.ids[:, :size].shape)
    return dims if angles.ids is None else Axis(np.concatenate([common, rest], axis=1), dims.by)


def pairs_of(ids: Ids, interleaved: int) -> Ids:
    """Rotated dimensions in pairs. Shape (heads, pairs, 2)."""
    heads = ids.shape[0]
    return ids.reshape(heads, -1, 2) if interleaved else np.moveaxis(ids.reshape(heads, 2, -1), 1, 2)


@resize("RotaryEmbedding")
def resize_rotary(edit: Edit) -> None:
    """Where only a part of the dimensions is rotated, its size becomes twice the number of angles kept."""
    angles = edit.node.input[1]
    if edit.attr("rotary_embedding_dim", 0):
        kept = edit.size(edit.axes(angles)[-1], edit.shape(angles)[-1])
        assert isinstance(kept, int)
        edit.set_attr("rotary_embedding_dim", 2 * kept)
