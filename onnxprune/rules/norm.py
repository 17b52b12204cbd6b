"""Normalisations and poolings. Law: an axis that statistics are taken over keeps its size.

It may shrink where the trace goes through normalisations; what they compute is then approximate (see `Op.mixes`).
"""

from __future__ import annotations

from collections.abc import Sequence

from onnxprune.labels import Axes, Axis
from onnxprune.rules.op import Op
from onnxprune.rules.reduce import mixing
from onnxprune.rules.registry import rule
from onnxprune.rules.signature import axes

axes("InstanceNormalization", "n c ~, c, c -> n c ~", family="norm")
axes("LRN", "n ~ -> n ~", family="norm")
axes("NegativeLogLikelihoodLoss", "*, *, * -> *", family="norm")
axes("SoftmaxCrossEntropyLoss", "*, *, * -> *, *", family="norm")

for _pool in ("AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"):
    axes(_pool, "n c * -> n c *", family="norm")


@rule("MaxPool")
def max_pool(op: Op) -> Sequence[Axes]:
    """n c * -> n c *; positions of maxima count the elements of all channels, so reading them freezes those."""
    x = op.input(0)
    graph = op.model.proto.graph
    named = op.node.output[1] if op.outputs > 1 else ""
    read = bool(named) and any(named in n.input for n in graph.node) | any(named == o.name for o in graph.output)
    reason = "MaxPool numbers the elements of all channels" if read else "MaxPool mixes this axis with itself"
    op.fix_rest(x, () if read else (0, 1), op.name_in(0), reason)
    y = tuple(Axis() if read or k > 1 else op.plain(x, k) for k in range(len(x)))
    return [y] * op.outputs


@rule("BatchNormalization")
def batch_normalization(op: Op) -> Sequence[Axes]:
    """n c ..., c, c, c, c -> n c ..., c, c, c, c; in training mode batch and positions are averaged over."""
    x = op.input(0)
    training = op.attr("training_mode", 0) or op.outputs > 1
    if training or not op.attr("spatial", 1):
        op.fix_rest(x, (1,), op.name_in(0), "BatchNormalization averages over this axis")
    c = op.plain(x, 1)
    for i in range(1, op.arity):
        c = op.join(c, op.plain(op.input(i), 0))
    y = tuple(c if k == 1 else op.plain(x, k) for k in range(len(x)))
    return [y, *([(c,)] * (op.outputs - 1))]


@rule("Softmax", "LogSoftmax", "Hardmax")
def softmax(op: Op) -> Sequence[Axes]:
    """Freezes the axes it normalises over (before operator set 13: all from `axis` on)."""
    x = op.input(0)
    first = op.attr("axis", -1 if op.opset >= 13 else 1) % max(len(x), 1)
    mixed = [first] if op.opset >= 13 else list(range(first, len(x)))
    return [mixing(op, 0, mixed, f"{op.kind} normalises over this axis", through=True)]


@rule("LayerNormalization", "RMSNormalization", "LpNormalization", "MeanVarianceNormalization")
def trailing_norm(op: Op) -> Sequence[Axes]:
    """Freezes the axes it normalises over: all from `axis` on (LpNormalization: `axis` alone; others: `axes`)."""
    x, reason = op.input(0), f"{op.kind} normalises over this axis"
    mixed = normalised_axes(op, len(x))
    passed = {k: axis for k in reversed(mixed) if (axis := op.mixes(x, k, op.name_in(0), reason)).ids is not None}
    rest = {k: op.without_rows(x, k, mixed) for k in range(len(x)) if k not in mixed}
    statistics = tuple(rest.get(k, Axis()) for k in range(len(x)))
    y = tuple(passed.get(k, statistics[k]) for k in range(len(x)))
    for i in filter(op.has, range(1, op.arity)):
        y = scaled(op, y, i, len(x) - len(op.input(i)), reason)
    return [y, *([statistics] * (op.outputs - 1))]


def normalised_axes(op: Op, rank: int) -> list[int]:
    """The axes that a normalisation without groups takes its statistics over, ascending."""
    if op.kind == "MeanVarianceNormalization":
        return sorted(k % rank for k in op.attr("axes", [0, 2, 3]))
    first = op.attr("axis", -1) % rank
    return [first] if op.kind == "LpNormalization" else list(range(first, rank))


def scaled(op: Op, y: Axes, i: int, start: int, reason: str) -> Axes:
    """A normalisation's output axes, with those of its parameter `i` tied to them from axis `start` on.

    Where the output's axis is fixed, or the parameter has one value for all of it, the parameter is fixed.
    """
    parameter, out = op.input(i), list(y)
    for j in reversed(range(len(parameter))):
        k = start + j
        if out[k].ids is None or op.shape(i)[j] == 1:
            op.fix(parameter, j, op.name_in(i), reason)
        else:
            out[k] = op.join(out[k], parameter[j])
    return tuple(out)
