"""Sequences that normalising could not write out. Law: what goes into a sequence nobody can follow keeps its size."""

from __future__ import annotations

from collections.abc import Sequence

from onnxprune.labels import Axes
from onnxprune.rules.op import Op
from onnxprune.rules.records import CannotTrace
from onnxprune.rules.registry import rule

SEQUENCE = """ConcatFromSequence Optional OptionalGetElement OptionalHasElement SequenceAt SequenceConstruct
SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap SplitToSequence""".split()


@rule(*SEQUENCE)
def unknown_sequence(op: Op) -> Sequence[Axes]:
    """Written out while normalising where its elements are known beforehand; else all freezes."""
    raise CannotTrace(f"{op.kind} works on a sequence whose elements are known only while the model runs")
