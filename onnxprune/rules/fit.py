"""Which nodes a rule is asked about. Law: it meets only nodes that fit their inputs, with axes short enough to label.

onnx's own inference says whether a node fits. A rule may then count on ranks, on equal sizes and on axes in range.
"""

from __future__ import annotations

from onnxprune.labels import LONGEST
from onnxprune.model import Shape
from onnxprune.rules.op import Op
from onnxprune.rules.records import CannotTrace

SIZES = {"Reshape": 1, "Expand": 1, "Tile": 1, "ConstantOfShape": 0}  # which input is a vector of sizes


def refuse_unfit(op: Op) -> None:
    """Check a node before its rule sees it.

    Raises:
        CannotTrace: Its inputs do not fit its operator, or a tensor it touches is empty or too long to label.
    """
    node = op.node
    if node.output and (why := op.model.misfits.get(node.output[0])):
        raise CannotTrace(f"its inputs do not fit {op.kind}: {why}")
    at = SIZES.get(op.kind)
    if at is not None and op.has(at) and len(op.shape(at)) != 1:
        raise CannotTrace(f"the sizes of {op.kind} are no vector")
    for name in (*node.input, *node.output):
        for size in op.model.shapes.get(name) or ():
            if isinstance(size, int) and size > LONGEST:
                raise CannotTrace(f"'{name}' has an axis of {size} indices, and only {LONGEST} are labelled")
    for name in (*node.input[:1], *node.output):  # other inputs may be empty lists of sizes
        if 0 in (op.model.shapes.get(name) or ()):
            raise CannotTrace(f"'{name}' has no elements")


def can_label(shape: Shape) -> bool:
    """Whether a weight of this shape gets ids."""
    return all(isinstance(size, int) and 0 < size <= LONGEST for size in shape)
