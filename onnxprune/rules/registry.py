"""The registry of operator rules, and the signature notation that declares most of them in one line.

Law: an operator has one rule, found here by (domain, name). What has no rule freezes everything it touches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx

from onnxprune.labels import Axes
from onnxprune.rules.edit import Edit
from onnxprune.rules.op import Op

Trace = Callable[[Op], Sequence[Axes]]
Resize = Callable[[Edit], None]
Key = tuple[str, str]


@dataclass(frozen=True)
class Rule:
    """How one operator carries labels.

    Attributes:
        trace: Labels of the inputs -> labels of the outputs, tying on the way.
        family: The module it is declared in.
        summary: One line for `onnxprune ops`: the signature, or the first line of the function's docstring.
    """

    trace: Trace
    family: str
    summary: str


RULES: dict[Key, Rule] = {}
RESIZES: dict[Key, Resize] = {}


def rule(*names: str, domain: str = "") -> Callable[[Trace], Trace]:
    """Declare a function as the rule of the named operators."""

    def register(function: Trace) -> Trace:
        family = function.__module__.rsplit(".", 1)[-1]
        summary = (function.__doc__ or "").strip().splitlines()[0]
        for name in names:
            assert (domain, name) not in RULES, name
            RULES[domain, name] = Rule(function, family, summary)
        return function

    return register


def resize(*names: str, domain: str = "") -> Callable[[Resize], Resize]:
    """Declare how a pruned node of the named operators gets its stored sizes corrected."""

    def register(function: Resize) -> Resize:
        RESIZES.update({(domain, name): function for name in names})
        return function

    return register


def find(node: onnx.NodeProto) -> Rule | None:
    """The rule for a node, or None."""
    return RULES.get((canonical(node.domain), node.op_type))


def find_resize(node: onnx.NodeProto) -> Resize | None:
    """The resize half of a node's rule, or None when the operator stores no sizes."""
    return RESIZES.get((canonical(node.domain), node.op_type))


def canonical(domain: str) -> str:
    """'ai.onnx' and '' are the same domain."""
    return "" if domain == "ai.onnx" else domain


def axes(name: str, signature: str, domain: str = "") -> None:
    """Declare an operator by its axes, e.g. ``axes("BatchNormalization", "n c ..., c, c, c, c -> n c ...")``.

    Inputs and outputs are separated by commas, axes by spaces. The same letter in several places ties those axes; `*`
    is an axis the operator mixes with itself, so it freezes; `...` stands for axes passed through one by one. Trailing
    inputs and outputs may be absent.
    """
    left, right = (side.split(",") for side in signature.split("->"))
    inputs, outputs = [s.split() for s in left], [s.split() for s in right]

    def trace(op: Op) -> Sequence[Axes]:
        return follow(op, inputs, outputs)

    family = "norm" if "Normalization" in name else "reduce"
    RULES[domain, name] = Rule(trace, family, signature)


def follow(op: Op, inputs: list[list[str]], outputs: list[list[str]]) -> Sequence[Axes]:
    """Carry labels through an operator by its parsed signature."""
    bound: dict[str, object] = {}
    for i, letters in enumerate(inputs[: op.arity]):
        if not op.has(i):
            continue
        axes_in = op.input(i)
        for letter, span in match(letters, len(axes_in)):
            for k in span:
                bind(op, bound, (letter, k - span.start), axes_in, k, i)
    return [build(op, bound, letters, j) for j, letters in enumerate(outputs[: op.outputs])]


def match(letters: list[str], rank: int) -> list[tuple[str, range]]:
    """Which axes each letter of one operand's signature stands for."""
    spread = rank - len(letters) + 1
    spans, at = [], 0
    for letter in letters:
        width = spread if letter == "..." else 1
        spans.append((letter, range(at, at + width)))
        at += width
    return spans


def bind(op: Op, bound: dict, key: tuple[str, int], axes_in: Axes, k: int, i: int) -> None:  # type: ignore[type-arg]
    """Tie one axis of an input to what its letter already stands for."""
    if key[0] == "*":
        op.fix(axes_in, k, op.name_in(i), f"{op.kind} mixes this axis with itself")
    elif key in bound:
        bound[key] = op.join(bound[key], op.plain(axes_in, k))
    else:
        bound[key] = axes_in[k] if key[0] == "..." or i == 0 else op.plain(axes_in, k)


def build(op: Op, bound: dict, letters: list[str], j: int) -> Axes:  # type: ignore[type-arg]
    """The labels of one output from the bound letters."""
    rank = len(op.out_shape(j))
    return tuple(
        bound.get((letter, k - span.start)) or op.blocked(f"{op.kind} writes this axis", j)
        for letter, span in match(letters, rank)
        for k in span
    )
