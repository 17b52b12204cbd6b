"""Which tensors are zero where their unit's weights are zero. Law: only what adds nothing to a sum may leave it.

An index of a contracted axis may go if its products vanish with its weights, on one side at least.

An operand that is an initializer vanishes. Between two activations (queries and keys) it depends on what lies between
them and their weights: a projection, a bias, a rotation keep zero; `elu(x) + 1` or an exponential do not.
"""

from __future__ import annotations

from onnxprune.labels import Axis
from onnxprune.rules.op import Op

# f(0) = 0, parameters of the channel being zero too; movement; averages over other axes.
KEEPS = frozenset(
    """Abs Asin Atan BatchNormalization Cast Ceil Celu DequantizeLinear Dropout Elu Erf Expand Flatten Floor Gather Gelu
    GlobalAveragePool GlobalMaxPool HardSwish Identity InstanceNormalization LeakyRelu MaxPool AveragePool Mish Neg
    PRelu Pad QuantizeLinear ReduceMax ReduceMean ReduceSum Relu Reshape Resize Round Selu Shrink Sign Sin Sinh Slice
    Softsign Split Sqrt Squeeze Swish Tan Tanh ThresholdedRelu Tile Transpose Unsqueeze Upsample""".split()
)
ANY, ALL = frozenset({"Mul"}), frozenset({"Add", "Concat", "Max", "Min", "Sub", "Sum"})
WEIGHTED = frozenset({"Conv", "ConvTranspose", "FusedConv", "Gemm", "MatMul"})


def contracted(op: Op, a: Axis, b: Axis) -> Axis:
    """Tie the axes that inputs 0 and 1 are contracted over, if a removed index takes its products along."""
    if a.ids is None or b.ids is None or keeps_zero(op, op.name_in(1)) or keeps_zero(op, op.name_in(0)):
        return op.join(a, b)
    reason = f"{op.kind} sums over it, and neither operand is zero where its weights are"
    op.freeze_ids(b.ids, reason, op.name_in(1), -1)
    return op.freeze_ids(a.ids, reason, op.name_in(0), -1)


def keeps_zero(op: Op, name: str) -> bool:
    """Whether a channel of this tensor is zero wherever its weights are; remembered for every tensor."""
    known = op.records.zero
    if name not in known:
        known[name] = False  # a cycle cannot occur; this also bounds the work
        known[name] = decide(op, name)
    return known[name]


def decide(op: Op, name: str) -> bool:
    """The answer for one tensor, from the node that writes it."""
    weight = op.model.weights.get(name)
    if weight is not None:
        return weight.size > 1 or not weight.any()  # one value for all channels is not zeroed with any
    node = op.records.writers.get(name)
    if node is None:
        return False
    inputs = [n for n in node.input if n]
    if node.op_type in WEIGHTED:
        return inputs[1] in op.model.weights or all(keeps_zero(op, n) for n in inputs[:2])
    if node.op_type in ALL:
        return all(keeps_zero(op, n) for n in inputs)
    if node.op_type in ANY:
        return any(keeps_zero(op, n) for n in inputs)
    return node.op_type in KEEPS | {"Div"} and keeps_zero(op, inputs[0])
