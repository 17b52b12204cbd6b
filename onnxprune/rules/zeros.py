"""Which tensors are zero where their unit's weights are zero. Law: only what adds nothing to a sum may leave it.

An index of a contracted axis may go if its products vanish with its weights, on one side at least.

An operand that is an initializer vanishes. Between two activations (queries and keys) it depends on what lies between
them and their weights: a projection, a bias, a rotation keep zero; `elu(x) + 1` or an exponential do not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.graph import subgraphs
from onnxprune.labels import Axes, Axis, Ids
from onnxprune.rules.op import Op
from onnxprune.rules.records import CannotTrace

# f(0) = 0, parameters of the channel being zero too; movement; averages over other axes.
KEEPS = frozenset(
    """Abs Asin Atan AveragePool BatchNormalization Cast Ceil Celu Col2Im Compress CumSum DFT DepthToSpace
    DequantizeLinear Dropout DynamicQuantizeLinear Elu Erf Expand Flatten Floor Gather GatherElements GatherND Gelu
    GlobalAveragePool GlobalLpPool GlobalMaxPool GridSample HardSwish Identity InstanceNormalization LeakyRelu LpPool
    MaxPool MaxRoiPool Mish Neg PRelu QuantizeLinear ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceSum
    ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign RotaryEmbedding Round STFT Selu Shrink Sign Sin Sinh
    Slice Softsign SpaceToDepth Split Sqrt Squeeze Swish Tan Tanh ThresholdedRelu Tile Transpose Trilu Unsqueeze
    Upsample""".split()
)
ANY, ALL = frozenset({"Mul", "SwiGLU"}), frozenset({"Add", "Concat", "Max", "Min", "Sub", "Sum"})
CONVOLUTIONS = {"Conv": (1, 2), "ConvTranspose": (1, 2), "DeformConv": (1, 3)}  # their weight and bias
VALUES = {"Attention": (1, 2), "MultiHeadAttention": (2, 3), "QAttention": (1, 2)}  # inputs that make the values


def contracted(op: Op, a: Axis, b: Axis) -> Axis:
    """Tie the axes that inputs 0 and 1 are contracted over, if a removed index takes its products along."""
    if a.ids is None or b.ids is None or keeps_zero(op, op.name_in(1)) or keeps_zero(op, op.name_in(0)):
        return op.join(a, b)
    reason = f"{op.kind} sums over it, and neither operand is zero where its weights are"
    op.freeze_ids(b.ids, reason, op.name_in(1), -1)
    return op.freeze_ids(a.ids, reason, op.name_in(0), -1)


def keeps_zero(op: Op, name: str) -> bool:
    """Whether a channel of this tensor is zero wherever its unit's weights are."""
    weight = op.model.weights.get(name)
    if weight is not None:
        return weight.size > 1 or not weight.any()  # one value for all channels is not zeroed with any
    return op.records.zero.get(name, False)


def is_weight(op: Op, name: str) -> bool:
    """Whether a tensor is an initializer or computed from initializers alone."""
    return name in op.model.weights or name in op.records.weights


def note_zeros(op: Op) -> None:
    """Record, before a node is traced, what is known of its outputs; its inputs were recorded before."""
    inputs = [n for n in op.node.input if n]
    if inputs and next(subgraphs(op.node), None) is None and all(is_weight(op, n) for n in inputs):
        op.records.weights.update(op.node.output)
    op.records.zero.update(dict.fromkeys(op.node.output, decide(op, inputs)))


def note_mixed(op: Op, outputs: Sequence[Axes | None]) -> None:
    """Record, after a node was traced through that mixes an axis with itself, what holds instead.

    Such a node is compared on what stays alone, with zeros beside it (see `reference`). So its outputs vanish with
    their weights where they still have the axis; a mean over it does not.
    """
    for name, axes in zip(op.node.output, outputs, strict=False):
        if axes is not None and (mixed := op.records.mixed.get(op.node.output[0])):
            same = len(axes) == len(op.input(0))
            op.records.zero[name] = same and all(axes[k].ids is not None for k, _ in mixed)


def decide(op: Op, inputs: list[str]) -> bool:
    """Whether the outputs of a node keep zero, from its operator and its inputs."""
    if op.node.domain == "com.microsoft" and op.kind in VALUES:
        return all(keeps_zero(op, op.name_in(i)) for i in VALUES[op.kind] if op.has(i))
    op = op.as_standard()
    inputs = [n for n in op.node.input if n]
    if op.kind in ("Gemm", "MatMul") and len(inputs) > 1:
        return product_keeps(op, inputs)
    if op.kind in CONVOLUTIONS:
        return all(keeps_zero(op, op.name_in(i)) for i in CONVOLUTIONS[op.kind] if op.has(i))
    if op.kind in ALL:
        return all(keeps_zero(op, n) for n in inputs)
    if op.kind in ANY:
        return any(keeps_zero(op, n) for n in inputs)
    if op.kind == "Clip":
        low, high = (op.value(i) if op.has(i) else np.array(op.attr(n, 0.0)) for i, n in ((1, "min"), (2, "max")))
        return low is not None and high is not None and bool(low <= 0 <= high) and keeps_zero(op, inputs[0])
    return op.kind in KEEPS | {"Div"} and bool(inputs) and keeps_zero(op, inputs[0])


def product_keeps(op: Op, inputs: list[str]) -> bool:
    """Whether a matrix product keeps zero: its rows with the first operand, its columns with the second and a bias.

    Only what could be removed matters; an index of the batch takes either operand along.
    """
    axes = [-1 if op.attr("transA", 0) else -2, -2 if op.attr("transB", 0) else -1]
    made = [keeps_zero(op, n) for n in inputs[:2]]
    if not all(m or not may_shrink(op, i, k) for i, (k, m) in enumerate(zip(axes, made, strict=True))):
        return False
    return any(made) and all(keeps_zero(op, n) for n in inputs[2:])


def may_shrink(op: Op, i: int, k: int) -> bool:
    """Whether an axis of input `i` may lose indices, as far as is known here."""
    try:
        axes = op.input(i)
    except CannotTrace:
        return True
    ids = axes[k].ids if len(axes) >= -k else Axis().ids
    return ids is not None and bool(ids.size) and not all_frozen(op, ids)


def all_frozen(op: Op, ids: Ids) -> bool:
    """Whether all of these ids are frozen by now. The ties are solved again only when the last answer does not tell.

    What is frozen once stays so, and to miss one errs on the safe side.
    """
    known = op.records.frozen
    if ids.max() >= known.size or (not known[ids].all() and op.ties.count > 1.2 * known.size):
        op.records.frozen = known = op.ties.causes(op.ties.components()) >= 0
    return bool(known[ids].all())
