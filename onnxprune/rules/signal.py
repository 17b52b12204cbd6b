"""Fourier transforms. Law: the axes that are transformed keep their size; batches and channels pass."""

from __future__ import annotations

from collections.abc import Sequence

from onnxprune.labels import Axes
from onnxprune.rules.op import Op
from onnxprune.rules.reduce import mixing
from onnxprune.rules.registry import rule
from onnxprune.rules.signature import axes

axes("STFT", "n *, *, *, * -> n *", family="signal")


@rule("DFT")
def fourier(op: Op) -> Sequence[Axes]:
    """Freezes the transformed axis and the last one, which holds real and imaginary parts."""
    rank = len(op.input(0))
    given = op.attr("axis", 1) if op.opset < 20 else op.exact(2, "axis")[0] if op.has(2) else -2
    return [mixing(op, 0, sorted({given % rank, rank - 1}), "DFT transforms this axis")]
