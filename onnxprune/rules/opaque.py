"""Operators whose tensors are packed in a way that no label describes. Law: they freeze, and say what would help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnxprune.labels import Axes
from onnxprune.rules.op import Op
from onnxprune.rules.records import CannotTrace
from onnxprune.rules.registry import rule

RUNTIME = "com.microsoft"
BLOCKS = "packs its weights in blocks of a few bits that share a scale; prune the model before it is quantised so"
LAYOUT = (
    "was laid out for one machine (weights and images in blocks); "
    "write the file at onnxruntime's basic or extended level"
)
PACKED: Mapping[str, str] = {
    "DynamicQuantizeLSTM": "packs its gates for its own kernel; prune the model before it is quantised",
    "MatMulBnb4": BLOCKS,
    "MatMulNBits": BLOCKS,
}
NCHWC = "AveragePool Conv GlobalAveragePool GlobalMaxPool MaxPool ReorderInput ReorderOutput Upsample".split()


@rule(*PACKED, domain=RUNTIME)
def packed(op: Op) -> Sequence[Axes]:
    """Frozen: weights are packed for one kernel."""
    name_weight(op)
    raise CannotTrace(f"{op.kind} {PACKED[op.kind]}")


@rule(*NCHWC, domain="com.microsoft.nchwc")
def blocked_layout(op: Op) -> Sequence[Axes]:
    """Frozen: channels lie in blocks of the machine's vector width."""
    name_weight(op)
    raise CannotTrace(f"{op.kind} {LAYOUT}")


def name_weight(op: Op) -> None:
    """Name the weight as a source all the same, so that the report lists it with the reason why it stays."""
    if op.has(1) and op.input(1):
        op.source(op.input(1)[0])
