"""What the resize half of a rule sees: a node of the pruned model, and how many indices each axis kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.errors import PlanError
from onnxprune.labels import Axes, Axis
from onnxprune.model import Array, Dim, Shape
from onnxprune.shapes import attribute

Mask = NDArray[np.bool_]


class Edit:
    """A node being corrected after pruning.

    Attributes:
        node: The node, changed in place.
        keep: Boolean array over ids: True = kept.
        before, after: Nodes to insert around this one.
        fresh: Gives a name that nothing in the graph has, like the one it is asked for.
    """

    def __init__(
        self,
        node: onnx.NodeProto,
        keep: Mask,
        labels: Callable[[str], Axes | None],
        shapes: Callable[[str], Shape | None],
        value: Callable[[str], Array | None],
        weights: dict[str, Array],
        fresh: Callable[[str], str],
        opset: int,
    ) -> None:
        self.node, self.keep, self.opset, self.fresh = node, keep, opset, fresh
        self._labels, self._shapes, self._value, self._weights = labels, shapes, value, weights
        self.before: list[onnx.NodeProto] = []
        self.after: list[onnx.NodeProto] = []

    def axes(self, name: str) -> Axes:
        """Dense labels of a tensor."""
        return self._labels(name) or ()

    def shape(self, name: str) -> Shape:
        """Dense dimensions of a tensor."""
        return self._shapes(name) or ()

    def value(self, i: int) -> Array | None:
        """The dense (half-)known value of input `i`."""
        return self._value(self.node.input[i]) if i < len(self.node.input) and self.node.input[i] else None

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute of the node."""
        return attribute(self.node, name, default)

    def set_attr(self, name: str, value: object) -> None:
        """Replace an attribute."""
        kept = [a for a in self.node.attribute if a.name != name]
        del self.node.attribute[:]
        self.node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])

    def constant(self, base: str, value: Array) -> str:
        """Store a new constant; its name, which begins with `base`."""
        name = self.fresh(f"{base}_pruned")
        self._weights[name] = value
        return name

    def set_input(self, i: int, value: Array) -> None:
        """Give input `i` a constant of its own; other readers of the old one are not touched."""
        while len(self.node.input) <= i:
            self.node.input.append("")
        self.node.input[i] = self.constant(self.node.input[i] or f"{self.node.output[0]}_{i}", value)

    def insert(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        """Put a node before this one."""
        self.before.append(onnx.helper.make_node(kind, inputs, [output], name=output, **attributes))

    def append(self, kind: str, inputs: Sequence[str], output: str) -> None:
        """Put a node after this one."""
        self.after.append(onnx.helper.make_node(kind, inputs, [output], name=self.fresh(f"{output}_{kind.lower()}")))

    def kept(self, axis: Axis) -> Mask:
        """Which indices of an axis stay, seen along its own dimension; rows must agree in number.

        For an axis in rows the answer is that of its first living row.
        """
        assert axis.ids is not None
        rows = self.keep[axis.ids].reshape(-1, axis.ids.shape[-1])
        first: Mask = rows[int(np.argmax(rows.any(axis=1)))]
        return first

    def size(self, axis: Axis, dense: Dim) -> Dim:
        """The size of an axis after pruning."""
        return dense if axis.ids is None else int(self.kept(axis).sum())

    def changed(self, name: str) -> bool:
        """Whether any axis of a tensor became smaller."""
        return any(a.ids is not None and not self.keep[a.ids].all() for a in self.axes(name))

    def pruned_shape(self, name: str) -> Shape:
        """Dimensions of a tensor after pruning."""
        return tuple(self.size(a, d) for a, d in zip(self.axes(name), self.shape(name), strict=True))

    def positions(self, axis: Axis, index: Sequence[int]) -> list[int]:
        """Where the kept ones among the dense indices `index` stand after pruning, in the same order."""
        kept = self.kept(axis)
        place = np.cumsum(kept) - 1
        return [int(place[i]) for i in index if kept[i]]

    def drop_attr(self, name: str) -> None:
        """Remove an attribute."""
        kept = [a for a in self.node.attribute if a.name != name]
        del self.node.attribute[:]
        self.node.attribute.extend(kept)

    def patch_sizes(self, i: int, dense: Shape, after: Shape, leave: Sequence[int] = (-1,)) -> None:
        """Write new sizes into input `i`, a vector of sizes whose last entry belongs to the last axis.

        Args:
            i: Number of the input.
            dense: The output's dimensions before pruning.
            after: Its dimensions now.
            leave: Entries that mean 'work it out' and stay.
        """
        known = self.value(i)
        length = known.size if known is not None else self.shape(self.node.input[i])[0]
        if not isinstance(length, int):
            raise PlanError(f"the number of sizes in '{self.node.input[i]}' is unknown", where=self.node.name)
        entries = [None] * length if known is None else known.tolist()
        dims = list(zip(entries, dense[len(dense) - length :], after[len(after) - length :], strict=True))
        change = np.array([entry not in leave and must_write(entry, d, a) for entry, d, a in dims])
        sizes = np.array([a if c else 0 for (_, _, a), c in zip(dims, change, strict=True)], dtype=np.int64)
        self.write_entries(i, change, sizes)

    def write_entries(self, i: int, change: Array, entries: Array) -> None:
        """Write new integers into input `i`, a vector, where `change`; what is computed there stays elsewhere."""
        known = self.value(i)
        if not change.any():
            return
        if known is not None and known.dtype != object:
            self.set_input(i, np.where(change, entries, known).astype(np.int64))
        else:
            self.node.input[i] = self.patched(self.node.input[i], change, entries, self.before)

    def patch_output(self, now: Shape, wanted: Shape) -> None:
        """Insert nodes after this one that put `wanted` where its output, a vector of sizes, shows `now`."""
        part = slice(self.attr("start", 0), self.attr("end"))
        change = np.array([a != b for a, b in zip(now[part], wanted[part], strict=True)])
        sizes = np.array([b if c else 0 for b, c in zip(wanted[part], change, strict=True)], dtype=np.int64)
        name = self.node.output[0]
        self.node.output[0] = self.fresh(f"{name}_pruned")
        patched = self.patched(self.node.output[0], change, sizes, self.after)
        self.after.append(onnx.helper.make_node("Identity", [patched], [name], name=self.fresh(f"{name}_dense")))

    def pick_output(self, index: Array, axis: int) -> None:
        """Insert a node after this one that takes `index` along an axis of its output."""
        name = self.node.output[0]
        self.node.output[0] = self.fresh(f"{name}_dealt")
        inputs = [self.node.output[0], self.constant(f"{name}_order", index.astype(np.int64))]
        self.after.append(onnx.helper.make_node("Gather", inputs, [name], name=self.fresh(f"{name}_order"), axis=axis))

    def patched(self, name: str, change: Array, sizes: Array, into: list[onnx.NodeProto]) -> str:
        """Nodes that compute `sizes` where `change`, else the vector `name`; the name of their output."""
        base = f"{self.node.output[0]}_sizes"
        keep = self.constant(base, (~change.astype(bool)).astype(np.int64))
        new = self.constant(base, sizes)
        kept, out = self.fresh(f"{base}_kept"), self.fresh(f"{base}_out")
        into.append(onnx.helper.make_node("Mul", [name, keep], [kept], name=kept))
        into.append(onnx.helper.make_node("Add", [kept, new], [out], name=out))
        return out


def must_write(entry: int | None, dense: Dim, after: Dim) -> bool:
    """Whether a stored size must be written anew: the axis shrank, or 0 copied an input axis that may have."""
    return isinstance(dense, int) and isinstance(after, int) and (dense != after or (entry == 0 and after != 0))
