"""What a random graph is made of. Law: a move adds nodes behind a tensor of the pool, and puts what it made there.

`MOVES` names, for each operator of the registry that is generated, the move that does; `UNMADE` says why the others are
not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tests.property.builder import FLOAT, Builder, Tensor, Unusable

Made = Callable[[Builder, Tensor, str], Tensor]


@dataclass(frozen=True)
class Move:
    """A way to go on.

    Attributes:
        make: Adds its nodes; the last argument is the operator asked for.
        kinds: The operators it can be asked for.
        ranks: Ranks of the tensors it takes.
        weight: How often it is chosen, relative to others.
    """

    make: Made
    kinds: tuple[str, ...]
    ranks: tuple[int, ...]
    weight: int


MOVES: list[Move] = []
ANY = (2, 3, 4)


def move(kinds: str, ranks: Sequence[int] = ANY, weight: int = 2) -> Callable[[Made], Made]:
    """Register a move for the named operators."""

    def register(function: Made) -> Made:
        MOVES.append(Move(function, tuple(kinds.split()), tuple(ranks), weight))
        return function

    return register


# --- weights ---------------------------------------------------------------------------------------------------------


@move("Conv", [4], 8)
def conv(b: Builder, x: Tensor, kind: str) -> Tensor:
    c, k, stride = x.shape[1], b.pick([1, 3]), b.pick([1, 1, 2])
    group = b.pick([1, 1, 1, c, *[d for d in range(2, c) if c % d == 0]])
    out = group * b.size(1, max(1, 8 // group))
    inputs = [x, b.weight(out, c // group, k, k, fan_in=c // group * k * k)]
    inputs += [b.weight(out)] if b.flip() else []
    return b.op("Conv", *inputs, group=group, strides=[stride] * 2, pads=[k // 2] * 4)


@move("ConvTranspose", [4], 2)
def conv_transpose(b: Builder, x: Tensor, kind: str) -> Tensor:
    """Whole or depthwise: onnx's reference implementation is wrong about biases and wider outputs of groups."""
    c = x.shape[1]
    group = b.pick([1, 1, c])
    out = b.size(1, 6) if group == 1 else 1
    inputs = [x, b.weight(c, out, 2, 2, fan_in=c // group)]
    inputs += [b.weight(out)] if group == 1 and b.flip() else []
    return b.op("ConvTranspose", *inputs, group=group, strides=[b.pick([1, 2])] * 2)


@move("MatMul", [2, 3], 6)
def matmul(b: Builder, x: Tensor, kind: str) -> Tensor:
    k, out = x.shape[-1], b.size(2, 8)
    y = b.op("MatMul", x, b.weight(k, out, fan_in=k))
    return b.op("Add", y, b.weight(out)) if b.flip() else y


@move("Gemm", [2], 6)
def gemm(b: Builder, x: Tensor, kind: str) -> Tensor:
    k, out, turned = x.shape[1], b.size(2, 8), b.below(2)
    inputs = [x, b.weight(*((out, k) if turned else (k, out)), fan_in=k)]
    inputs += [b.pick([b.weight(out), b.weight(1, out), b.weight(1)])] if b.flip() else []
    return b.op("Gemm", *inputs, transB=turned, alpha=b.pick([1.0, 0.5]), beta=b.pick([1.0, 2.0]))


@move("Einsum", [3], 1)
def einsum(b: Builder, x: Tensor, kind: str) -> Tensor:
    """A product with stored weights, as a whole or in heads that are summed."""
    c, out = x.shape[-1], b.size(2, 6)
    if b.flip():
        return b.op(kind, x, b.weight(c, out, fan_in=c), equation="abc,cd->abd")
    heads = b.op("Einsum", x, b.weight(2, c, out, fan_in=c), equation="abc,hcd->habd")
    return b.op(kind, heads, b.weight(2, out, c, fan_in=2 * out), equation="habd,hdc->abc")


@move("RNN GRU LSTM", [3], 1)
def recurrent(b: Builder, x: Tensor, kind: str) -> Tensor:
    """One direction along the sequence."""
    c, hidden = x.shape[-1], b.size(2, 5)
    rows = hidden * {"RNN": 1, "GRU": 3, "LSTM": 4}[kind]
    inputs = [b.weight(1, rows, c, fan_in=c), b.weight(1, rows, hidden, fan_in=hidden)]
    inputs += [b.weight(1, 2 * rows)] if b.flip() else []
    y = b.op(kind, b.op("Transpose", x, perm=[1, 0, 2]), *inputs, hidden_size=hidden)
    return b.op("Transpose", b.op("Squeeze", y, b.constant([1])), perm=[1, 0, 2])


# --- normalisation and pooling ---------------------------------------------------------------------------------------


@move("BatchNormalization", [2, 4], 4)
def batch_norm(b: Builder, x: Tensor, kind: str) -> Tensor:
    c = x.shape[1]
    return b.op(kind, x, b.positive(c), b.weight(c), b.weight(c), b.positive(c))


@move("InstanceNormalization", [3, 4], 1)
def instance_norm(b: Builder, x: Tensor, kind: str) -> Tensor:
    if np.prod(x.shape[2:]) == 1:
        raise Unusable
    return b.op(kind, x, b.positive(x.shape[1]), b.weight(x.shape[1]))


@move("LayerNormalization RMSNormalization LpNormalization", ANY, 2)
def trailing_norm(b: Builder, x: Tensor, kind: str) -> Tensor:
    if kind == "LpNormalization":
        return b.op(kind, x, axis=b.size(1, x.rank - 1))
    scale = [b.positive(x.shape[-1])]
    return b.op(kind, x, *scale, *([b.weight(x.shape[-1])] if kind[0] == "L" and b.flip() else []))


@move("LRN", [4], 1)
def local_response(b: Builder, x: Tensor, kind: str) -> Tensor:
    return b.op(kind, x, size=3)


@move("MaxPool AveragePool LpPool", [4], 3)
def pool(b: Builder, x: Tensor, kind: str) -> Tensor:
    k, stride, pad = b.pick([(2, 2, 0), (3, 1, 1), (2, 1, 0)])
    return b.op(kind, x, kernel_shape=[k] * 2, strides=[stride] * 2, pads=[pad] * 4)


@move("GlobalAveragePool GlobalMaxPool", [4], 2)
def pool_all(b: Builder, x: Tensor, kind: str) -> Tensor:
    y = b.op(kind, x)
    return b.op("Flatten", y) if b.flip() else y


@move("Softmax LogSoftmax Hardmax", ANY, 1)
def softmax(b: Builder, x: Tensor, kind: str) -> Tensor:
    return b.op(kind, x, axis=b.size(1, x.rank - 1) - b.pick([0, x.rank]))


# --- elementwise -----------------------------------------------------------------------------------------------------

UNIT, POSITIVE, ABOVE = "Acos Asin Atanh", "Log Reciprocal Sqrt", "Acosh"


@move(
    "Abs Asinh Atan Ceil Cos Elu Erf Floor HardSigmoid HardSwish Identity LeakyRelu Mish Neg Relu Round Selu "
    "Shrink Sigmoid Sign Sin Softplus Softsign Tanh ThresholdedRelu",
    ANY,
    6,
)
def unary(b: Builder, x: Tensor, kind: str) -> Tensor:
    return b.op(kind, x)


@move(f"{UNIT} {POSITIVE} {ABOVE} Exp Cosh Sinh Tan", ANY, 2)
def bounded(b: Builder, x: Tensor, kind: str) -> Tensor:
    """A function that is finite on a part of the numbers, behind one that stays there."""
    squashed = b.op("Sigmoid", x)
    shift = -0.5 if kind in UNIT.split() else 0.5 if kind in POSITIVE.split() else 1.1 if kind == ABOVE else 0.0
    return b.op(kind, b.op("Add", squashed, b.constant(shift)) if shift else squashed)


@move("Clip Dropout Cast CastLike", ANY, 2)
def first_input(b: Builder, x: Tensor, kind: str) -> Tensor:
    if kind == "Clip":
        return b.op(kind, x, b.constant(b.pick([-1.0, 0.0, 0.1])), b.pick([None, b.constant(2.0)]))
    if kind == "Dropout":
        return b.op(kind, x)
    if kind == "Cast":
        return b.op(kind, x, to=FLOAT)
    return b.op(kind, x, b.pick(b.pool))


def operand(b: Builder, x: Tensor) -> Tensor:
    """Something that broadcasts with x: a scalar, a value for each channel, a vector along the last axis."""
    c = x.channel_axis
    shapes = [(), (1,), (x.shape[c], *[1] * (x.rank - c - 1)), (1,) * c + (x.shape[c],) + (1,) * (x.rank - c - 1)]
    return b.weight(*b.pick(shapes))


@move("Add Sub Mul Max Min Mean Sum PRelu", ANY, 3)
def with_constant(b: Builder, x: Tensor, kind: str) -> Tensor:
    other = operand(b, x)
    return b.op(kind, other, x) if kind != "PRelu" and b.flip() else b.op(kind, x, other)


@move("Add Sub Mul Max Min Mean Sum", ANY, 6)
def residual(b: Builder, x: Tensor, kind: str) -> Tensor:
    more = [b.like(x)] if kind in ("Max", "Min", "Mean", "Sum") and b.flip() else []
    return b.op(kind, x, b.like(x), *more)


@move("Div Pow Mod", ANY, 1)
def with_positive(b: Builder, x: Tensor, kind: str) -> Tensor:
    """The divisor is one for all channels: a masked channel must not be divided by its own zero."""
    other = b.positive()
    if kind == "Pow":
        return b.op(kind, b.op("Sigmoid", x), other)
    return b.op(kind, x, other, fmod=1) if kind == "Mod" else b.op(kind, x, other)


@move("Mul", [4], 3)
def gate(b: Builder, x: Tensor, kind: str) -> Tensor:
    """Squeeze and excite."""
    c, inner = x.shape[1], b.size(1, 4)
    g = b.op("Relu", b.op("Conv", b.op("GlobalAveragePool", x), b.weight(inner, c, 1, 1, fan_in=c)))
    return b.op("Mul", x, b.op("Sigmoid", b.op("Conv", g, b.weight(c, inner, 1, 1, fan_in=inner), b.weight(c))))


@move("Where Equal Greater GreaterOrEqual Less LessOrEqual And Or Xor Not IsInf IsNaN", ANY, 2)
def choose(b: Builder, x: Tensor, kind: str) -> Tensor:
    """A truth value for each element, by which Where chooses."""
    if kind in ("IsInf", "IsNaN"):
        truth = b.op(kind, x)
    elif kind in ("And", "Or", "Xor"):
        truth = b.op(kind, b.op("Greater", x, b.constant(0.1)), b.op("Less", b.like(x), operand(b, x)))
    elif kind == "Not":
        truth = b.op(kind, b.op("Less", x, operand(b, x)))
    else:
        truth = b.op("Greater" if kind == "Where" else kind, x, operand(b, x))
    return b.op("Where", truth, x, b.pick([b.constant(0.0), b.constant(-1.5), b.like(x)]))


@move("BitwiseAnd BitwiseOr BitwiseXor BitwiseNot BitShift", ANY, 1)
def bits(b: Builder, x: Tensor, kind: str) -> Tensor:
    whole = b.op("Cast", b.op("Abs", x), to=12 if kind == "BitShift" else 6)
    mask = b.constant(np.array(3, np.uint32 if kind == "BitShift" else np.int32))
    turned = {"direction": "RIGHT"} if kind == "BitShift" else {}
    found = b.op(kind, whole) if kind == "BitwiseNot" else b.op(kind, whole, mask, **turned)
    return b.op("Cast", found, to=FLOAT)


REASONS = {  # operators apart by why no move makes them
    "experimental, in files before operator set 7": "Affine Crop ImageScaler",
    "defined for float32 only, and the laws are checked in float64": "Celu DequantizeLinear QuantizeLinear",
    "has its own cases in rules/cases/quant.py": "ConvInteger MatMulInteger",
    "onnx's reference implementation runs no single node of it": "Gelu GroupNormalization MeanVarianceNormalization",
    "onnx's reference implementation lacks it": "GlobalLpPool MaxRoiPool",
    "two runs differ": "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike",
    "newer than the operator sets drawn": "BitCast CausalConvWithState CumProd SwiGLU Swish TensorScatter",
    "removed at operator set 10 or 11": "Scatter Upsample",
    "reads or makes no floats; it has its own cases in rules/cases/text.py": (
        "RegexFullMatch StringConcat StringNormalizer StringSplit TfIdfVectorizer"
    ),
    "a sequence is no tensor of the pool; it has its own cases in rules/cases/sequence.py": (
        "ConcatFromSequence Optional OptionalGetElement OptionalHasElement SequenceAt SequenceConstruct SequenceEmpty "
        "SequenceErase SequenceInsert SequenceLength SequenceMap SplitToSequence"
    ),
    "makes its output from sizes and numbers alone": "BlackmanWindow HammingWindow HannWindow MelWeightMatrix",
    "the size of its output depends on data": "Compress NonMaxSuppression NonZero Unique",
    "has its own cases in rules/cases/attention.py": "Attention RotaryEmbedding",
}
UNMADE = {kind: reason for reason, kinds in REASONS.items() for kind in kinds.split()}
