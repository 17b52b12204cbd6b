"""The registry of operator rules.

Law: an operator has one rule, found here by (domain, name). What has no rule freezes everything it touches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import onnx

from onnxprune.graph import canonical
from onnxprune.labels import Axes
from onnxprune.rules.edit import Edit
from onnxprune.rules.op import Op

Trace = Callable[[Op], Sequence[Axes | None]]
Resize = Callable[[Edit], None]
Key = tuple[str, str]


@dataclass(frozen=True)
class Rule:
    """How one operator carries labels.

    Attributes:
        trace: Labels of the inputs -> labels of the outputs (None: unknown rank), tying on the way.
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


def trace_standard(op: Op) -> Sequence[Axes]:
    """Carry labels as the standard operator inside a fused or quantised one does."""
    seen = op.as_standard()
    found = find(seen.node)
    assert found is not None, seen.kind
    return cast(Sequence[Axes], found.trace(seen))  # only bodies have outputs of unknown rank
