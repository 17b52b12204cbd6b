"""Normalisations and poolings. Law: an axis that statistics are taken over keeps its size."""

from __future__ import annotations

from collections.abc import Sequence

from onnxprune.labels import Axes, Axis
from onnxprune.rules.op import Op
from onnxprune.rules.reduce import mixing
from onnxprune.rules.registry import rule
from onnxprune.rules.signature import axes

axes("InstanceNormalization", "n c *, c, c -> n c *", family="norm")
axes("GroupNormalization", "n *, *, * -> n *", family="norm")
axes("LRN", "n * -> n *", family="norm")
axes("NegativeLogLikelihoodLoss", "*, *, * -> *", family="norm")
axes("SoftmaxCrossEntropyLoss", "*, *, * -> *, *", family="norm")

for _pool in ("AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"):
    axes(_pool, "n c * -> n c *", family="norm")


@rule("MaxPool")
def max_pool(op: Op) -> Sequence[Axes]:
    """n c * -> n c *; positions of maxima count the elements of all channels, so reading them freezes those."""
    x = op.input(0)
    read = op.outputs > 1 and any(op.node.output[1] in n.input for n in op.model.proto.graph.node)
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
    return [mixing(op, 0, mixed, f"{op.kind} normalises over this axis")]


@rule("MeanVarianceNormalization")
def mean_variance(op: Op) -> Sequence[Axes]:
    """Freezes the axes it normalises over."""
    mixed = [k % len(op.input(0)) for k in op.attr("axes", [0, 2, 3])]
    return [mixing(op, 0, mixed, f"{op.kind} normalises over this axis")]


@rule("LayerNormalization", "RMSNormalization", "LpNormalization")
def trailing_norm(op: Op) -> Sequence[Axes]:
    """Freezes the axes it normalises over: all from `axis` on (LpNormalization: `axis` alone)."""
    x = op.input(0)
    first = op.attr("axis", -1) % len(x)
    mixed = [first] if op.kind == "LpNormalization" else range(first, len(x))
    for k in sorted(mixed, reverse=True):
        op.fix(x, k, op.name_in(0), f"{op.kind} normalises over this axis")
    for i in range(1, op.arity):
        op.fix_rest(op.input(i), (), op.name_in(i), f"{op.kind} normalises over this axis")
    y = tuple(Axis() if k in mixed else op.without_rows(x, k, list(mixed)) for k in range(len(x)))
    return [y, *([tuple(y[k] for k in range(len(y)))] * (op.outputs - 1))]
