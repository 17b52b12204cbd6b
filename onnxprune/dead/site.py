"""One node, and what is known of its inputs. Law: a node without a range function tells nothing about its outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.dead.ranges import Range, unbounded
from onnxprune.graph import canonical
from onnxprune.rules import Op

Function = Callable[["Site"], Sequence[Range]]
RANGES: dict[str, Function] = {}


@dataclass(frozen=True, eq=False)
class Site:
    """A node where ranges are carried through.

    Attributes:
        node: The node.
        op: Its attributes, sizes and known values.
        inputs: The ranges of its inputs, each of the tensor's rank; None for one that is left out.
        eps: Rounding of the model's least precise type, relative.
    """

    node: onnx.NodeProto
    op: Op
    inputs: Sequence[Range | None]
    eps: float

    def given(self, i: int) -> bool:
        """Whether an input is there."""
        return i < len(self.inputs) and self.inputs[i] is not None

    def input(self, i: int) -> Range:
        """The range of an input; of one that is left out, nothing is known."""
        found = self.inputs[i] if i < len(self.inputs) else None
        return unbounded(False) if found is None else found

    @property
    def present(self) -> list[Range]:
        """The ranges of the inputs that are there."""
        return [x for x in self.inputs if x is not None]

    @property
    def finite(self) -> bool:
        """Whether no input is ever NaN or infinite."""
        return all(bool(x.finite.all()) for x in self.present)

    def scalar(self, i: int, name: str, default: float) -> float | None:
        """A number that is an input or, in older operator sets, an attribute; None if it is computed."""
        if self.op.has(i):
            value = self.input(i).value
            return float(value.ravel()[0]) if value.size == 1 and not np.isnan(value).any() else None
        return float(self.op.attr(name, default))


def understood(node: onnx.NodeProto) -> bool:
    """Whether a node's operator is what a function of its name describes."""
    return canonical(node.domain) == ""


def ranges(*names: str) -> Callable[[Function], Function]:
    """Declare a function as what carries ranges through the named operators."""

    def register(function: Function) -> Function:
        for name in names:
            assert name not in RANGES, name
            RANGES[name] = function
        return function

    return register
