"""Who reads a unit. Law: what is neither carried on index by index nor multiplied with known weights is needed.

Removing a unit commutes with every operator of the families `CARRIED`, whatever it holds: they only hand it on, with
all that carries its labels. A contraction ends it. There it does no harm to lose a unit whose term is zero in all
outputs that stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.dead.bias import Bias, bias_of
from onnxprune.dead.contraction import CONTRACTIONS, Linear, linear
from onnxprune.dead.ranges import Floats, Mask
from onnxprune.dead.site import Site, understood
from onnxprune.dead.walk import Walk
from onnxprune.errors import debugging
from onnxprune.graph import canonical, captured, every_node, reads, subgraphs
from onnxprune.labels import Axes, Axis, Ids
from onnxprune.rules import find
from onnxprune.trace import Dependencies

CARRIED = frozenset("control layout norm pointwise reduce reshape select".split())
ALSO = frozenset({"DequantizeLinear", "QuantizeLinear"})


@dataclass(frozen=True, eq=False)
class Read:
    """A contraction that ends units.

    Attributes:
        node: The node.
        inputs: Unit of each index it sums over; -1 where that stays. Shape (groups, inputs).
        outputs: Unit of each index it makes. Shape (groups, outputs).
        matters: Whether an input's term may be other than zero in an output. Broadcasts to (groups, outputs, inputs).
        zero: Which inputs are zero for every input of the model. Shape (groups, inputs).
        constant: What an input holds for every input of the model, NaN where that depends. Shape (groups, inputs).
        linear: The weights, where they are known.
        bias: Where its constant terms can go, if anywhere.
    """

    node: onnx.NodeProto
    inputs: Ids
    outputs: Ids
    matters: Mask
    zero: Mask
    constant: Floats
    linear: Linear | None = None
    bias: Bias | None = None


@dataclass(frozen=True, eq=False)
class Readers:
    """All that ends units.

    Attributes:
        reads: The contractions.
        needed: Whether something else looks at a unit. Shape (units + rows + 1,), as of `Dependencies.gone`.
    """

    reads: tuple[Read, ...]
    needed: Mask


def readers(walk: Walk) -> Readers:
    """Who reads the units of a model."""
    dependencies = walk.dependencies
    needed = np.zeros(dependencies.unit_count + len(dependencies.whole) + 1, dtype=bool)
    found_reads: list[Read] = []
    count = Counter(reads(dependencies.model.proto.graph))
    for node in dependencies.model.proto.graph.node:
        if carries(dependencies, node):
            continue
        found = attempted(walk, node, count) if contracts(node) else None
        if found is None:
            needed[np.concatenate(list(touched(dependencies, node)))] = True
        else:
            found_reads.append(found)
    needed[-1] = True  # what stays is needed
    return Readers(tuple(found_reads), needed)


def attempted(walk: Walk, node: onnx.NodeProto, count: Counter[str]) -> Read | None:
    """A contraction as a reader; None, too, where its sizes do not fit together: a damaged file may hold anything."""
    try:
        return read(walk, node, count)
    except Exception:
        if debugging():
            raise
        return None


def carries(dependencies: Dependencies, node: onnx.NodeProto) -> bool:
    """Whether a node only hands units on, index by index."""
    rule = find(node)
    if rule is None or any(subgraphs(node)) or (node.output and node.output[0] in dependencies.mixed):
        return False
    standard = canonical(node.domain) == ""
    return standard and (rule.family in CARRIED or node.op_type in ALSO)


def contracts(node: onnx.NodeProto) -> bool:
    """Whether a node is a contraction whose terms are looked at."""
    return understood(node) and node.op_type in CONTRACTIONS


def touched(dependencies: Dependencies, node: onnx.NodeProto) -> Iterator[Ids]:
    """The units on all that a node reads or writes, in its bodies too."""
    yield np.array([-1], dtype=np.int64)
    inner = [n for body in subgraphs(node) for n in every_node(body)]
    names = {name for n in (node, *inner) for name in (*n.input, *n.output)} | captured(node)
    names |= {info.name for body in subgraphs(node) for info in (*body.input, *body.output)}
    for name in names:
        for axis in dependencies.labels.get(name, ()):
            if axis.ids is not None:
                yield dependencies.unit[axis.ids].ravel()


def read(walk: Walk, node: onnx.NodeProto, count: Counter[str]) -> Read | None:
    """A contraction as a reader; None where what it reads has no labels that can be told apart."""
    site, labels = walk.site(node), walk.dependencies.labels
    x, y = labels.get(node.input[0]), labels.get(node.output[0])
    if x is None or y is None or any(p.low.ndim < 2 for p in site.present[:2]):
        return None
    found = linear(site)
    if found is None:
        return between_activations(walk, site, y) if node.op_type == "MatMul" else None
    source = labels.get(node.input[found.operand])
    if source is None:
        return None
    inputs = units_of(walk.dependencies, source[found.axes[0]], found.weight.shape[0], found.weight.shape[2])
    outputs = units_of(walk.dependencies, y[found.axes[1]], found.weight.shape[0], found.weight.shape[1])
    constant = np.where(found.x.constant, found.x.value, np.nan)
    bias = bias_of(walk.dependencies.model, count, node, found)
    return Read(node, inputs, outputs, found.matters(), found.x.zero, constant, found, bias)


def units_of(dependencies: Dependencies, axis: Axis, groups: int, width: int) -> Ids:
    """Units along an axis that a contraction sums over or makes. Its rows, if any, are tied. Shape (groups, width)."""
    if axis.ids is None:
        return np.full((groups, width), -1, dtype=np.int64)
    return np.asarray(dependencies.unit[axis.ids.reshape(-1, axis.ids.shape[-1])[0]]).reshape(groups, width)


def between_activations(walk: Walk, site: Site, y: Axes) -> Read | None:
    """A product of two tensors that both depend on the input: a term is nothing where either is zero.

    Where the axis lies in rows over one axis of the batch (the features of attention heads), a row only matters to
    what that axis' index stands for in the output.
    """
    a, b = site.input(0), site.input(1)
    axes = [walk.dependencies.labels.get(name) for name in site.op.node.input[:2]]
    if axes[0] is None or axes[1] is None:
        return None
    owner = axes[0][-1] if axes[0][-1].ids is not None else axes[1][-2]
    if owner.ids is None:
        stays = np.full((1, 1), -1, dtype=np.int64)
        return Read(site.op.node, stays, stays, stays[None] < 0, stays > 0, np.full((1, 1), np.nan))
    ids, width = owner.ids.reshape(-1, owner.ids.shape[-1]), owner.ids.shape[-1]
    finite = a.finite.all() and b.finite.all()
    still = [
        p.zero.all(axis=tuple(k for k in range(p.low.ndim) if k != p.low.ndim + at)) for p, at in ((a, -1), (b, -2))
    ]
    zero = np.broadcast_to(still[0] | still[1], (width,)) & finite
    rows = row_units(walk.dependencies, owner, axes[0], y)
    inputs = walk.dependencies.unit[ids]
    matters = np.broadcast_to(~zero, (len(ids), 1, width))
    dead = np.broadcast_to(zero, inputs.shape)
    return Read(site.op.node, inputs, rows.reshape(len(ids), 1), matters, dead, np.where(dead, 0.0, np.nan))


def row_units(dependencies: Dependencies, owner: Axis, x: Axes, y: Axes) -> Ids:
    """The unit that each row of a contracted axis matters to: that of the row itself; -1 where rows have none."""
    assert owner.ids is not None
    count = int(np.prod(owner.ids.shape[:-1]))
    if len(owner.by) == 1 and owner.by[0] < len(x) - 2 and len(x) == len(y):
        axis = y[owner.by[0]]
        if axis.ids is not None and not axis.by and axis.ids.size == count:
            return np.asarray(dependencies.unit[axis.ids])
    return np.full(count, -1, dtype=np.int64)
