"""What a rule sees of one node: its labelled inputs, its attributes and sizes, and the ways to tie and freeze.

Law: whatever a method cannot express exactly, it freezes, and it records why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar, cast

import numpy as np
import onnx

from onnxprune.graph import node_name
from onnxprune.labels import LONGEST, Axes, Axis, Freeze, Ids, Ties, in_order, leaf_of, spread, varies
from onnxprune.model import Array, Dim, Model, Shape
from onnxprune.rules.records import CannotTrace, Product, Records, Rows
from onnxprune.shapes import attribute, standard

T = TypeVar("T")


class Op:
    """One node while it is traced."""

    def __init__(
        self, node: onnx.NodeProto, model: Model, ties: Ties, records: Records, labels: Callable[[str], Axes | None]
    ) -> None:
        self.node, self.model, self.ties, self.records, self._labels = node, model, ties, records, labels
        self.kind = node.op_type
        self.name = node_name(node)
        self.arity, self.outputs = len(node.input), len(node.output)

    def as_standard(self) -> Op:
        """The standard operator inside a fused or quantised one, with its own inputs; itself where there is none."""
        node = standard(self.node)
        return self if node is None else self.seen_as(node, {}, {})

    def seen_as(self, node: onnx.NodeProto, shapes: Mapping[str, Shape], labels: Mapping[str, Axes]) -> Op:
        """Another node in this one's place; some tensors may have other shapes and labels there."""
        model = replace(self.model, shapes={**self.model.shapes, **shapes}) if shapes else self.model
        seen = Op(node, model, self.ties, self.records, lambda name: labels.get(name) or self._labels(name))
        seen.name, seen.open_blocks = self.name, self.open_blocks
        return seen

    # ---- reading -------------------------------------------------------------------------------------------------
    def has(self, i: int) -> bool:
        """Whether the optional input `i` is given."""
        return i < self.arity and bool(self.node.input[i])

    def name_in(self, i: int) -> str:
        """The tensor name of input `i`."""
        return self.node.input[i]

    def attr(self, name: str, default: T) -> T:
        """An attribute, or `default`."""
        value = attribute(self.node, name, default)
        return cast(T, value.decode() if isinstance(value, bytes) else value)

    @property
    def opset(self) -> int:
        """Version of the operator set the node belongs to."""
        return self.model.opsets.get("" if self.node.domain == "ai.onnx" else self.node.domain, 1)

    def shape(self, i: int) -> Shape:
        """Dimensions of input `i`.

        Raises:
            CannotTrace: Its rank is unknown.
        """
        return self.known_shape(self.node.input[i])

    def out_shape(self, j: int = 0) -> Shape:
        """Dimensions of output `j`.

        Raises:
            CannotTrace: Its rank is unknown.
        """
        return self.known_shape(self.node.output[j])

    def known_shape(self, name: str) -> Shape:
        """Dimensions of a tensor.

        Raises:
            CannotTrace: Its rank is unknown.
        """
        shape = self.model.shapes.get(name)
        if shape is None:
            raise CannotTrace(f"the shape of '{name}' is unknown")
        return shape

    def value(self, i: int) -> Array | None:
        """The known or half-known value of an input, or None."""
        return self.model.known(self.node.input[i]) if self.has(i) else None

    def exact(self, i: int, what: str) -> list[int]:
        """The fully known integers of input `i`.

        Raises:
            CannotTrace: They are computed while the model runs.
        """
        value = self.value(i)
        if value is None or value.dtype == object:
            raise CannotTrace(f"{what} of {self.kind} is computed while the model runs")
        return [int(v) for v in value.ravel().tolist()]

    def input(self, i: int) -> Axes:
        """Labels of input `i`.

        Raises:
            CannotTrace: It has none, because its rank is unknown.
        """
        axes = self._labels(self.node.input[i])
        if axes is None:
            raise CannotTrace(f"'{self.node.input[i]}' has an unknown rank")
        return axes

    # ---- tying and freezing --------------------------------------------------------------------------------------
    def blocked(self, reason: str, j: int = 0, axis: int = -1) -> Axis:
        """A frozen axis of output `j`, with its reason."""
        self.ties.freezes.append(Freeze(reason, self.name, self.node.output[j], axis))
        return Axis(cause=len(self.ties.freezes) - 1)

    def freeze_ids(self, ids: Ids, reason: str, tensor: str, axis: int) -> Axis:
        """Freeze ids for a new reason; the frozen axis that stands for them."""
        self.ties.freezes.append(Freeze(reason, self.name, tensor, axis))
        self.ties.freeze(ids, len(self.ties.freezes) - 1)
        return Axis(cause=len(self.ties.freezes) - 1)

    def fix(self, axes: Axes, k: int, tensor: str, reason: str) -> Axis:
        """Keep axis `k` at its size. An axis in rows may still go with its whole row; others freeze."""
        axis = axes[k]
        if axis.ids is None:
            return axis
        parent = axes[axis.by[-1]] if axis.by else None
        if parent is None or parent.ids is None or parent.ids.shape != axis.ids.shape[:-1]:
            return self.freeze_ids(axis.ids, reason, tensor, k)
        self.ties.tie(axis.ids, parent.ids[..., None])
        return Axis()

    def mixes(self, axes: Axes, k: int, tensor: str, reason: str) -> Axis:
        """Axis `k`, whose indices the operator mixes with each other.

        Fixed, unless the trace goes through such operators: then it comes back as it is, and the node is noted, for
        from fewer indices it computes something else. An axis that another's rows run over stays as it is.
        """
        ids = axes[k].ids
        if ids is None or not self.records.through or any(k in axis.by for axis in axes):
            return self.fix(axes, k, tensor, reason)
        self.records.mixed.setdefault(self.node.output[0], []).append((k, ids))
        return axes[k]

    def fix_rest(self, axes: Axes, free: Sequence[int], tensor: str, reason: str) -> None:
        """Fix every axis but the `free` ones, innermost first."""
        for k in reversed(range(len(axes))):
            if k not in free:
                self.fix(axes, k, tensor, reason)

    def plain(self, axes: Axes, k: int) -> Axis:
        """Axis `k` with ids of its own: where they differed by row, the rows are tied position by position.

        Raises:
            CannotTrace: There is no such axis, which onnx's inference does not notice of every operator.
        """
        if k >= len(axes):
            raise CannotTrace(f"{self.kind} reads axis {k} of a tensor with {len(axes)} axes")
        axis = axes[k]
        return axis if axis.ids is None or not axis.by else Axis(self.collapse(axis.ids))

    def collapse(self, ids: Ids) -> Ids:
        """Tie all rows of `ids` position by position; the ids of one row."""
        rows = ids.reshape(-1, ids.shape[-1])
        first: Ids = rows[0]
        self.ties.tie(rows, first)
        return first

    def join(self, a: Axis, b: Axis) -> Axis:
        """Tie two axes of equal size that are combined element by element."""
        if a.ids is None or b.ids is None:
            return self.join_frozen(a, b)
        over = [axis for axis in a.by if axis in b.by]
        a, b = self.rows_over(a, over), self.rows_over(b, over)
        assert a.ids is not None and b.ids is not None
        if a.by == b.by and a.ids.shape == b.ids.shape:
            self.ties.tie(a.ids, b.ids)
            return a
        a, b = Axis(self.collapse(a.ids)), Axis(self.collapse(b.ids))
        assert a.ids is not None and b.ids is not None
        if a.ids.shape != b.ids.shape:
            raise CannotTrace(f"{self.kind} combines axes of sizes {a.ids.size} and {b.ids.size}")
        self.ties.tie(a.ids, b.ids)
        return a

    def rows_over(self, axis: Axis, over: Sequence[int]) -> Axis:
        """An axis in rows over some axes only: along the others, rows are tied position by position."""
        ids = axis.ids
        for depth in reversed(range(len(axis.by))):
            if ids is not None and axis.by[depth] not in over:
                self.ties.tie(ids, np.take(ids, [0], axis=depth))
                ids = np.take(ids, 0, axis=depth)
        return Axis(ids, tuple(b for b in axis.by if b in over), axis.cause)

    def join_frozen(self, a: Axis, b: Axis) -> Axis:
        """Freeze the live one of two axes because the other is frozen."""
        still, live = (a, b) if a.ids is None else (b, a)
        if live.ids is None:
            return a if a.cause >= 0 else b
        if still.cause < 0:
            still = self.blocked("combined with an axis of fixed size")
        self.ties.freeze(live.ids, still.cause)
        return still

    def filled(self, size: Dim) -> Axis:
        """Labels for an axis along which a tensor repeats one value: fresh where the size is known."""
        return Axis(self.ties.fresh(size)) if isinstance(size, int) and size > 1 else Axis()

    def rows(self, ids: Ids, parents: Ids | None = None, *, same: bool = False) -> None:
        """Note that the rows of `ids` (last dimension: one row) must lose equal numbers.

        Args:
            ids: Shape (..., width).
            parents: Ids that stand for whole rows, shape (...): a row may then also go whole, with its parent.
            same: Prefer that all rows keep the same positions, so that one list tells what they lost.
        """
        if ids.ndim > 1 and ids.shape[-1] >= 1:
            wide = ids.reshape(-1, ids.shape[-1])
            self.records.rows.append(Rows(wide, None if parents is None else parents.ravel(), self.name, same))

    def source(self, axis: Axis) -> Axis:
        """Note that this weight axis produces channels: filters are ranked along it."""
        if axis.ids is not None:
            self.records.sources.append((axis.ids, self.name))
        return axis

    def cost(self, factor: float, axes: Sequence[Axis | Dim], groups: Ids | None = None) -> None:
        """Note the multiplications of a contraction; unknown sizes count as 1 (the symbolic batch)."""
        live = []
        for axis in axes:
            if isinstance(axis, Axis):
                assert axis.ids is not None
                live.append(axis.ids.ravel())
            else:
                factor *= axis if isinstance(axis, int) else 1
        self.records.products.append(Product(self.name, factor, tuple(live), groups))

    def extent(self, axis: Axis, size: Dim) -> Axis | Dim:
        """What `cost` wants for an axis: its labels if it can shrink, else its size."""
        return size if axis.ids is None else axis

    def weight_blocks(self, i: int, k: int, blocks: int, own: int) -> Ids | None:
        """Open axis `k` of an initializer with ids for each of `blocks` equal blocks of its axis `own`.

        Only an initializer with this node as its single reader can be sliced so; None otherwise.
        """
        return self.open_blocks(self.node.input[i], k, blocks, own) if self.open_blocks else None

    open_blocks: Callable[[str, int, int, int], Ids | None] | None = None

    # ---- bodies --------------------------------------------------------------------------------------------------
    enter: Callable[[onnx.GraphProto, Sequence[Axes | None]], list[Axes | None]] | None = None

    def walk(self, body: onnx.GraphProto, given: Sequence[Axes | None]) -> list[Axes | None]:
        """Carry labels through a body of this node, from those of its inputs to those of its outputs."""
        assert self.enter is not None
        return self.enter(body, given)

    def labels(self, name: str) -> Axes | None:
        """Labels of any tensor the node can see, or None where its rank is unknown."""
        return self._labels(name)

    # ---- rearranging ---------------------------------------------------------------------------------------------
    def frozen_like(self, shape: Shape, reason: str, j: int = 0) -> Axes:
        """Frozen labels for an output of the given shape."""
        cause = self.blocked(reason, j)
        return tuple(cause for _ in shape)

    def permuted(self, axes: Axes, order: Sequence[int]) -> Axes:
        """Axes in a new order: output axis t is input axis `order[t]`."""
        where = {old: new for new, old in enumerate(order)}
        return tuple(axes[old].moved(where) for old in order)

    def dropped(self, axes: Axes, gone: Sequence[int], i: int) -> Axes:
        """Axes without the ones in `gone`, which must be of size 1 or reduced over."""
        for k in sorted(gone, reverse=True):
            self.fix(axes, k, self.name_in(i), f"{self.kind} removes this axis")
        return self.without(axes, gone)

    def without(self, axes: Axes, gone: Sequence[int]) -> Axes:
        """The other axes, once those in `gone` were fixed or mixed."""
        axes = tuple(self.without_rows(axes, k, gone) for k in range(len(axes)))
        left = [k for k in range(len(axes)) if k not in gone]
        return self.permuted(axes, left)

    def without_rows(self, axes: Axes, k: int, gone: Sequence[int]) -> Axis:
        """Axis `k` no longer in rows over axes that disappear: those rows are tied position by position."""
        axis = axes[k]
        return self.rows_over(axis, [b for b in axis.by if b not in gone]) if set(axis.by) & set(gone) else axis

    def inserted(self, axes: Axes, at: Sequence[int]) -> Axes:
        """Axes with fixed size-1 axes inserted at the output positions `at`."""
        rank = len(axes) + len(at)
        left = [k for k in range(rank) if k not in at]
        where = dict(enumerate(left))
        out: list[Axis] = [Axis()] * rank
        for old, new in where.items():
            out[new] = axes[old].moved(where)
        return tuple(out)

    def picked(self, axes: Axes, k: int, index: Ids) -> Axes:
        """Axes after taking `index` along axis `k` (rows over that axis are taken along)."""
        return tuple(self.pick_one(axes, j, k, index) for j in range(len(axes)))

    def pick_one(self, axes: Axes, j: int, k: int, index: Ids) -> Axis:
        """One axis after taking `index` along axis `k`."""
        axis = axes[j]
        if axis.ids is None:
            return axis
        if j == k:
            return Axis(axis.ids[..., index], axis.by)
        if k in axis.by:
            return Axis(np.take(axis.ids, index, axis=axis.by.index(k)), axis.by)
        return axis

    def merged(
        self, axes: Axes, members: Sequence[int], sizes: Sequence[int], tensor: str, *, dealt: bool = False
    ) -> Ids | None:
        """The ids of several neighbouring axes flattened into one; None when all are frozen.

        Two axes that could shrink independently would leave a pattern no single axis can lose, so all but one freeze.

        Args:
            axes: Labels of the tensor.
            members: The axes, in order.
            sizes: Their sizes; for an axis of unknown size, over how many indices its labels repeat.
            tensor: The tensor's name.
            dealt: Whether the node can deal out again what rows of other axes than the leading ones keep, as a channel
                shuffle does: each row may then keep positions of its own.
        """
        live = [k for k in members if axes[k].ids is not None]
        if not live:
            return None
        if math.prod(sizes) > LONGEST:
            for k in live:
                self.freeze_ids(cast(Ids, axes[k].ids), f"merged into more than {LONGEST} indices", tensor, k)
            return None
        leaf = leaf_of(axes, live)
        axis = axes[leaf]
        for k in live:
            if k != leaf and k not in axis.by:
                self.freeze_ids(cast(Ids, axes[k].ids), f"{self.kind} merges it with another axis", tensor, k)
        if axis.by and live == [leaf] and not set(axis.by) & set(members):
            self.fix(axes, leaf, tensor, f"{self.kind} merges it with another axis")
            return None
        if axis.by and not (in_order(axis, leaf) and set(axis.by) <= set(members)):
            for b in axis.by:  # interleaved: no row may go alone
                if axes[b].ids is not None:
                    self.freeze_ids(cast(Ids, axes[b].ids), f"{self.kind} interleaves it", tensor, b)
            if not (dealt and set(axis.by) <= set(members)):
                axis = self.plain(axes, leaf)  # and rows must keep the same positions
        return spread(axis, leaf, members, sizes).ravel()

    def row_ids(self, ids: Ids, depth: int) -> Ids:
        """Fresh ids for the rows of an array: one for each index of its first `depth` dimensions, equal for equal rows.

        Rows repeat where the axis was merged with a batch: what goes from one sample's rows goes from all.
        """
        rows = ids.reshape(int(np.prod(ids.shape[:depth])), -1)
        _, which = np.unique(rows, axis=0, return_inverse=True)
        return self.ties.fresh(int(which.max()) + 1)[which.ravel()].reshape(ids.shape[:depth])

    def split(self, flat: Ids, dims: Sequence[int], at: int) -> list[Axis]:
        """Cut one axis into several: rows get parent ids, and their members must lose equal numbers.

        Args:
            flat: Ids of the axis, of size prod(dims).
            dims: The sizes it is cut into.
            at: Number of the first of them in the output.
        """
        ids = flat.reshape(tuple(dims))
        moving = varies(ids)
        out = [Axis()] * len(dims)
        if not moving:
            self.freeze_ids(flat, "one unit fills the whole axis", self.node.output[0], at)
            return out
        still = [d for d in range(len(dims)) if d not in moving]
        core = ids[tuple(0 if d in still else slice(None) for d in range(len(dims)))]
        for depth, d in enumerate(moving):
            by = tuple(at + m for m in moving[:depth])
            if depth == len(moving) - 1:
                out[d] = Axis(core, by)
            else:
                out[d] = Axis(self.row_ids(core, depth + 1), by)
        for depth in range(1, len(moving)):
            upper, lower = out[moving[depth - 1]].ids, out[moving[depth]].ids
            self.rows(cast(Ids, lower), upper)
        return out
