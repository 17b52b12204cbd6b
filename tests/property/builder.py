"""A random graph in the making. Law: every node is run as it is added, so shapes are known and values finite.

All choices come from one function, `below(n)`, so that hypothesis or a number can draw and replay them.
A move that would leave the numbers' safe range, or meets a shape it cannot use, raises `Unusable` and is taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from onnxprune.model import Array
from tests.rules.cases.case import BATCH, Case, Weight

T = TypeVar("T")
LARGEST = 50.0  # of a value: products of larger ones soon overflow, and functions saturate
ELEMENTS = 1500
FLOAT = object()  # the element type a case is built for, as an attribute


class Unusable(Exception):
    """This move cannot be made here."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of the graph, with its value on a sample of `BATCH`."""

    name: str
    value: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.value.shape)

    @property
    def rank(self) -> int:
        return self.value.ndim

    @property
    def channel_axis(self) -> int:
        """Where channels lie: second in images, last in sequences and vectors."""
        return 1 if self.rank >= 4 else self.rank - 1


@dataclass
class Builder:
    """The state of a graph in the making.

    Attributes:
        below: A number from 0 up to, not including, the argument.
        opset: Version of the default operator set.
        symbolic: Whether the batch is a symbol.
        pool: Activations that later moves may read.
        weights: Initializers.
        lines: The nodes, as text.
        kinds: The nodes' operators.
    """

    below: Callable[[int], int]
    opset: int
    symbolic: bool
    pool: list[Tensor] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)
    weights: dict[str, Weight] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    count: int = 0

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.below(1000))

    # --- choosing ----------------------------------------------------------------------------------------------------
    def pick(self, options: Sequence[T]) -> T:
        """One of several."""
        if not options:
            raise Unusable
        return options[self.below(len(options))]

    def flip(self) -> bool:
        return bool(self.below(2))

    def size(self, low: int, high: int) -> int:
        """A number from `low` to `high`."""
        return low + self.below(high - low + 1)

    def divisor(self, n: int) -> int:
        """A number that divides n, larger than 1 and smaller than n."""
        return self.pick([d for d in range(2, n) if n % d == 0])

    def like(self, x: Tensor) -> Tensor:
        """Another tensor of the same shape, or the same one."""
        return self.pick([t for t in self.pool if t.shape == x.shape])

    # --- adding ------------------------------------------------------------------------------------------------------
    def name(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def input(self, *shape: int) -> Tensor:
        """A new graph input."""
        found = Tensor(self.name("x"), self.rng.normal(size=(BATCH, *shape)))
        self.inputs.append(found)
        self.pool.append(found)
        return found

    def constant(self, value: object) -> Tensor:
        """A stored value; floats take the type the case is built for."""
        array = np.array(value)
        found = Tensor(self.name("c"), array)
        self.weights[found.name] = array
        return found

    def weight(self, *shape: int, fan_in: int = 1) -> Tensor:
        """Random weights; sometimes ones that another node already reads."""
        known = [n for n, w in self.weights.items() if n[0] == "w" and np.shape(w) == shape]
        if known and self.below(4) == 0:
            name = self.pick(known)
            return Tensor(name, np.asarray(self.weights[name]))
        found = Tensor(self.name("w"), np.asarray(self.rng.normal(size=shape) / np.sqrt(fan_in)))
        self.weights[found.name] = found.value
        return found

    def positive(self, *shape: int) -> Tensor:
        """Weights in (0.5, 1.5)."""
        return self.constant(self.rng.uniform(0.5, 1.5, shape))

    def op(self, kind: str, *inputs: Tensor | None, **attributes: object) -> Tensor:
        """Add a node with one output."""
        return self.node(kind, inputs, 1, **attributes)[0]

    def node(self, kind: str, inputs: Sequence[Tensor | None], outputs: int, **attributes: object) -> list[Tensor]:
        """Add a node, and run it.

        Raises:
            Unusable: The operator set lacks it, or its result is no finite number in range.
        """
        self.check_known(kind)
        names = [self.name("t") for _ in range(outputs)]
        real = {k: TensorProto.DOUBLE if v is FLOAT else v for k, v in attributes.items()}
        node = helper.make_node(kind, [i.name if i else "" for i in inputs], names, **real)
        feeds = {i.name: i.value for i in inputs if i}
        check_types(node, feeds, self.opset)
        values = run(node, feeds, self.opset)
        for value in values:
            if value.size > ELEMENTS or not value.size or not np.isfinite(value).all() or np.abs(value).max() > LARGEST:
                raise Unusable
        given = ", ".join(i.name if i else '""' for i in inputs)
        self.lines.append(f"{', '.join(names)} = {kind} {written(attributes)}({given})")
        self.kinds.append(kind)
        return [Tensor(name, value) for name, value in zip(names, values, strict=True)]

    def check_known(self, kind: str) -> None:
        try:
            if onnx.defs.get_schema(kind, self.opset).deprecated:
                raise Unusable
        except onnx.defs.SchemaError as error:
            raise Unusable from error

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Take back everything added inside, if the move turns out unusable."""
        before = len(self.pool), len(self.lines), len(self.inputs), set(self.weights)
        try:
            yield
        except Unusable:
            pool, lines, inputs, weights = before
            del self.pool[pool:], self.lines[lines:], self.kinds[lines:], self.inputs[inputs:]
            for name in set(self.weights) - weights:
                del self.weights[name]

    # --- the finished graph ------------------------------------------------------------------------------------------
    def case(self, name: str, outputs: Sequence[Tensor]) -> Case:
        """The graph, from its inputs to these outputs."""
        ends = [", ".join(self.declared(t) for t in side) for side in (self.inputs, outputs)]
        return Case(name, " -> ".join(ends), "\n".join(self.lines), self.weights, self.opset, ir_of(self.opset))

    def declared(self, x: Tensor) -> str:
        batch = "N" if self.symbolic else str(BATCH)
        return f"{x.name}[{', '.join([batch, *map(str, x.shape[1:])])}]"


def check_types(node: onnx.NodeProto, feeds: dict[str, Array], opset: int) -> None:
    """Refuse what the standard refuses, and what onnx infers nothing of (GreaterOrEqual at 13 to 15): it freezes."""
    types = {
        n: helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in feeds.items()
    }
    try:
        found = onnx.shape_inference.infer_node_outputs(onnx.defs.get_schema(node.op_type, opset), node, types)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        raise Unusable from error
    if not all(name in found and found[name].tensor_type.elem_type for name in node.output):
        raise Unusable


def run(node: onnx.NodeProto, feeds: dict[str, Array], opset: int) -> list[Array]:
    """The outputs of one node in float64."""
    with np.errstate(all="ignore"):
        try:
            found = ReferenceEvaluator(node, opsets={"": opset}).run(None, feeds)
        except (ValueError, IndexError, TypeError, RuntimeError, NotImplementedError) as error:
            raise Unusable from error
    return [np.asarray(value) for value in found]  # type: ignore[union-attr]


def written(attributes: dict[str, object]) -> str:
    """Attributes in onnx's text form."""
    if not attributes:
        return ""
    return f"<{', '.join(f'{k}={spelled(v)}' for k, v in attributes.items())}> "


def spelled(value: object) -> str:
    if value is FLOAT:
        return "FLOAT"
    return f'"{value}"' if isinstance(value, str) else str(value)


def ir_of(opset: int) -> int:
    """The IR version of that time; onnxruntime refuses a newer one than it knows."""
    return min(10, helper.find_min_ir_version_for([helper.make_opsetid("", opset)]))
