"""Declare an operator by its axes, in one line. Law: what a signature does not name, it does not let pass.

    axes("BatchNormalization", "n c ..., c, c, c, c -> n c ...")

Inputs and outputs are separated by commas, axes by spaces. The same letter in several places ties those axes. `...`
stands for any number of axes that pass one by one, `*` for any number that the operator mixes, so they keep their size,
`_` for one such axis; `~` for any number that it normalises over: they keep their size, too, unless the trace goes
through normalisations. Trailing inputs and outputs may be absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onnxprune.labels import Axes, Axis
from onnxprune.rules.op import Op
from onnxprune.rules.registry import RULES, Rule

Key = tuple[str, int]
Bound = dict[Key, Axis]
SPANNING = ("...", "*", "~")
MIXED = ("*", "_", "~")


def axes(name: str, signature: str, *, family: str, domain: str = "") -> None:
    """Register the rule that a signature describes.

    Args:
        name: The operator.
        signature: Its axes, in the notation of this module.
        family: The family it is listed under.
        domain: The operator's domain.
    """
    left, right = ([part.split() for part in side.split(",")] for side in signature.split("->"))

    def trace(op: Op) -> Sequence[Axes]:
        return follow(op, left, right)

    RULES[domain, name] = Rule(trace, family, signature)


def follow(op: Op, inputs: Sequence[Sequence[str]], outputs: Sequence[Sequence[str]]) -> Sequence[Axes]:
    """Carry labels through an operator: fix what it mixes, tie what it names twice, build the outputs."""
    bound: Bound = {}
    for i, letters in enumerate(inputs[: op.arity]):
        if op.has(i):
            read(op, i, letters, bound)
    return [
        tuple(bound.get(key, Axis()) for key, _ in spell(letters, len(op.out_shape(j))))
        for j, letters in enumerate(outputs[: op.outputs])
        if op.node.output[j]
    ]


def read(op: Op, i: int, letters: Sequence[str], bound: Bound) -> None:
    """Bind the axes of one input to its letters. Mixed axes are fixed first, innermost first, so that rows resolve."""
    x = op.input(i)
    keys = list(spell(letters, len(x)))
    passed: dict[int, Axis] = {}
    for (letter, _), k in reversed(keys):
        if letter in MIXED:
            hold = op.mixes if letter == "~" else op.fix
            passed[k] = hold(x, k, op.name_in(i), f"{op.kind} mixes this axis with itself")
    for key, k in keys:
        if key[0] in MIXED and (key[0] != "~" or passed[k].ids is None):
            continue
        axis = passed[k] if k in passed else op.plain(x, k)
        bound[key] = op.join(bound[key], axis) if key in bound else axis


def spell(letters: Sequence[str], rank: int) -> Iterator[tuple[Key, int]]:
    """Each axis of a tensor with the letter that stands for it, numbered inside `...` and `*`."""
    at = 0
    for letter in letters:
        for inner in range(rank - len(letters) + 1 if letter in SPANNING else 1):
            yield (letter, inner), at
            at += 1
