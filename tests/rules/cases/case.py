"""Small graphs, at least one for each operator that has a rule, set between what produces and what consumes.

A case is written as onnx's text form. `case("name", "x[N,3,4,4] -> y[N,5,4,4]", body, w=(6, 3, 1, 1))` makes a graph
with the inputs and outputs of the signature, and one initializer for each keyword: a tuple is the shape of a random
weight, a list or array is the value itself. `FLOAT` in a body is the element type that the case is built for.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, parser

from onnxprune.model import Array, Model, from_proto
from onnxprune.normalise import normalise

BATCH = 2
NAMES = {np.dtype(np.float64): "double", np.dtype(np.float32): "float"}
Weight = tuple[int, ...] | list[object] | NDArray[np.generic] | float


@dataclass(frozen=True, eq=False)
class Case:
    """One graph.

    Attributes:
        name: Its line in the golden file.
        signature: Inputs and outputs.
        body: Nodes.
        weights: Initializers.
        opset: Version of the default operator set.
        ir: IR version.
        lacks: Why onnx's reference implementation cannot run it; onnxruntime does, in float32. Empty: it can.
        whole: Whether nothing of it can be pruned.
        listed: Whether initializers are listed among the graph's inputs, as before IR version 4.
        through: Whether it is traced through operators that mix an axis with itself.
    """

    name: str
    signature: str
    body: str
    weights: dict[str, Weight] = field(default_factory=dict)
    opset: int = 17
    ir: int = 8
    lacks: str = ""
    whole: bool = False
    listed: bool = False
    through: bool = False

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The precision its laws are tested in."""
        return np.dtype(np.float32 if self.lacks else np.float64)

    def proto(self) -> onnx.ModelProto:
        """The graph as a model."""
        kind = NAMES[self.dtype]
        inputs, outputs = (declared(side, kind) for side in self.signature.split("->"))
        body = self.body.replace("FLOAT", str(TensorProto.DataType.Value(kind.upper())))
        body = re.sub(r"\bfloat(?=\[|\s)", kind, body)
        graph = parser.parse_graph(f"g ({inputs}) => ({outputs}) {{ {body} }}")
        for i, node in enumerate(graph.node):
            node.name = f"{node.op_type}{i}"
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        tensors = [numpy_helper.from_array(self.array(w, rng), n) for n, w in self.weights.items()]
        graph.initializer.extend(tensors)
        if self.listed:
            graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=self.ir)

    def array(self, weight: Weight, rng: np.random.Generator) -> Array:
        """The value of an initializer."""
        if isinstance(weight, tuple):
            return rng.normal(size=weight).astype(self.dtype)
        value = np.array(weight)
        return value.astype(self.dtype) if value.dtype == np.float64 else value

    def model(self) -> Model:
        """The normalised model."""
        return normalise(from_proto(self.proto()))

    def feeds(self, seed: int = 0) -> dict[str, Array]:
        """Random inputs; the symbolic batch is `BATCH`."""
        rng, feeds = np.random.default_rng(seed), {}
        for info in (i for i in self.proto().graph.input if i.name not in self.weights):
            shape = tuple(d.dim_value or BATCH for d in info.type.tensor_type.shape.dim)
            dtype = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
            feeds[info.name] = (rng.normal(size=shape) if dtype.kind == "f" else rng.integers(0, 2, shape)).astype(
                dtype
            )
        return feeds


def declared(side: str, kind: str) -> str:
    """`x[N,3], i:int64[2]` as onnx's text form declares inputs and outputs."""
    found = re.findall(r"(\w+)(?::(\w+))?\[([^\]]*)\]", side)
    return ", ".join(f"{given or kind}[{dims}] {name}" for name, given, dims in found)


CASES: dict[str, Case] = {}


def case(
    name: str,
    signature: str,
    body: str,
    *,
    opset: int = 17,
    ir: int = 8,
    lacks: str = "",
    whole: bool = False,
    listed: bool = False,
    through: bool = False,
    **weights: Weight,
) -> None:
    """Add a case."""
    assert name not in CASES, name
    CASES[name] = Case(name, signature, body, weights, opset, ir, lacks, whole, listed, through)


def chain(name: str, body: str, *, w: Weight = (6, 3, 1, 1), v: Weight = (5, 6, 1, 1), **rest: object) -> None:
    """Add a case `x -> Conv w -> a -> body -> b -> Conv v -> y` on 4x4 images (`out` is the size of y)."""
    out = rest.pop("out", "4,4")
    case(name, f"x[N,3,4,4] -> y[N,5,{out}]", f"a = Conv(x, w) {body} y = Conv(b, v)", w=w, v=v, **rest)  # type: ignore[arg-type]


def dense(name: str, body: str, *, w: Weight = (7, 6), v: Weight = (6, 5), **rest: object) -> None:
    """Add a case `x -> MatMul w -> a -> body -> b -> MatMul v -> y` on matrices."""
    case(name, "x[N,7] -> y[N,5]", f"a = MatMul(x, w) {body} y = MatMul(b, v)", w=w, v=v, **rest)  # type: ignore[arg-type]


def positive(*shape: int) -> Array:
    """Weights in (0.5, 1.5), for variances and scales."""
    return np.random.default_rng(sum(shape)).uniform(0.5, 1.5, shape)


GONE = "removed from the standard before its reference implementation was written"
RUNTIME = "an operator of onnxruntime, not of the standard"
SINGLE = "this version of the standard defines it for float32 only"

JOIN = "a = Conv(x, w) c = Conv(x, u) {} y = Conv(b, v)"


def join(name: str, body: str, **rest: object) -> None:
    """Add a case in which two convolutions meet: `a` and `c` -> body -> b."""
    given = {"w": (6, 3, 1, 1), "u": (6, 3, 1, 1), "v": (5, 6, 1, 1)} | rest
    case(name, "x[N,3,4,4] -> y[N,5,4,4]", JOIN.format(body), **given)  # type: ignore[arg-type]


NORM: dict[str, Weight] = {"s": positive(6), "t": (6,), "m": (6,), "q": positive(6)}
