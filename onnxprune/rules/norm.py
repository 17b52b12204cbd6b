"""Normalisations and poolings. Law: an axis that statistics are taken over keeps its size."""

from __future__ import annotations

from collections.abc import Sequence

from onnxprune.labels import Axes, Axis
from onnxprune.rules.op import Op
from onnxprune.rules.registry import rule
from onnxprune.rules.signature import axes

axes("BatchNormalization", "n c ..., c, c, c, c -> n c ..., c, c, c, c", family="norm")
axes("InstanceNormalization", "n c *, c, c -> n c *", family="norm")
axes("LRN", "n * -> n *", family="norm")

for _pool in ("AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"):
    axes(_pool, "n c * -> n c *", family="norm")
axes("MaxPool", "n c * -> n c *, n c *", family="norm")


@rule("Softmax", "LogSoftmax", "Hardmax")
def softmax(op: Op) -> Sequence[Axes]:
    """Freezes the axes it normalises over (before operator set 13: all from `axis` on)."""
    x = op.input(0)
    first = op.attr("axis", -1 if op.opset >= 13 else 1) % max(len(x), 1)
    mixed = [first] if op.opset >= 13 else list(range(first, len(x)))
    fixed = {k: op.fix(x, k, op.name_in(0), f"{op.kind} normalises over this axis") for k in reversed(mixed)}
    return [tuple(fixed[k] if k in fixed else op.without_rows(x, k, mixed) for k in range(len(x)))]


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
