"""Einstein sums. Law: a letter is one axis wherever it stands; a letter that is summed over is a contraction.

Letters of the output are numbered by where they stand there, the others after them, so that the axes of all operands
and of the output are told by one number, and rows that run over axes run over letters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.labels import Axes, Axis
from onnxprune.model import Dim
from onnxprune.rules.op import Op
from onnxprune.rules.records import CannotTrace
from onnxprune.rules.registry import rule
from onnxprune.rules.zeros import is_weight, keeps_zero


@dataclass(frozen=True)
class Equation:
    """An equation with every axis named; those of an ellipsis are `...0`, `...1`, counted from the right.

    Attributes:
        terms: The letters of each operand.
        output: The letters of the output.
    """

    terms: tuple[tuple[str, ...], ...]
    output: tuple[str, ...]

    @property
    def letters(self) -> list[str]:
        """Every letter once, those of the output first."""
        return list(dict.fromkeys([*self.output, *(letter for term in self.terms for letter in term)]))

    def holders(self, letter: str) -> list[int]:
        """The operands that have a letter."""
        return [i for i, term in enumerate(self.terms) if letter in term]


@rule("Einsum")
def einsum(op: Op) -> Sequence[Axes]:
    """numpy.einsum: equal letters are tied, and so are the letters that are summed over."""
    equation = parse(str(op.attr("equation", "")), [len(op.shape(i)) for i in range(op.arity)])
    bound, sizes = bind(op, equation)
    note_sources(op, equation)
    note_cost(op, equation, bound, sizes)
    width = len(equation.output)
    out = tuple(op.without_rows(bound, k, range(width, len(bound))) for k in range(width))
    op.records.zero[op.node.output[0]] = all(
        axis.ids is None or any(keeps_zero(op, op.name_in(i)) for i in equation.holders(letter))
        for axis, letter in zip(out, equation.output, strict=True)
    )
    return [out]


def parse(text: str, ranks: Sequence[int]) -> Equation:
    """Read an equation for operands of the given ranks.

    Raises:
        CannotTrace: It takes a diagonal, or does not fit the ranks.
    """
    left, arrow, right = text.replace(" ", "").partition("->")
    written = left.split(",")
    if len(written) != len(ranks):
        raise CannotTrace(f"the equation '{text}' has {len(written)} operands, the node {len(ranks)}")
    terms = tuple(spell(term, rank) for term, rank in zip(written, ranks, strict=True))
    spanned = max((tuple(n for n in term if n.startswith("...")) for term in terms), key=len)
    if arrow:
        output = spell(right, len(right.replace("...", "")) + (len(spanned) if "..." in right else 0))
    else:
        times = Counter(left.replace(",", "").replace(".", ""))
        output = (*spanned, *sorted(letter for letter, n in times.items() if n == 1))
    return Equation(terms, output)


def spell(term: str, rank: int) -> tuple[str, ...]:
    """The names of the axes of one term.

    Raises:
        CannotTrace: A letter comes twice, or the rank does not fit.
    """
    head, dots, tail = term.partition("...")
    extra = rank - len(head) - len(tail)
    if extra < 0 or (extra and not dots):
        raise CannotTrace(f"the term '{term}' does not fit an operand of rank {rank}")
    names = (*head, *(f"...{n}" for n in reversed(range(extra))), *tail)
    if len(set(names)) < len(names):
        raise CannotTrace(f"the term '{term}' takes a diagonal")
    return names


def bind(op: Op, equation: Equation) -> tuple[Axes, list[Dim]]:
    """One axis and one size for each letter, joined over the operands that have it."""
    letters = equation.letters
    sizes = [common_size(op, equation, letter) for letter in letters]
    bound: list[Axis] = []
    for n, letter in enumerate(letters):
        found = [(i, a) for i in equation.holders(letter) if (a := own_axis(op, equation, i, letter, sizes[n]))]
        joined = found[0][1] if found else Axis()
        for _, axis in found[1:]:
            joined = op.join(joined, axis)
        bound.append(joined if letter in equation.output else summed(op, equation, letter, joined, len(found)))
    return tuple(bound), sizes


def common_size(op: Op, equation: Equation, letter: str) -> Dim:
    """The size of a letter: that of the operands which do not stretch a single index."""
    found = [op.shape(i)[equation.terms[i].index(letter)] for i in equation.holders(letter)]
    return next((size for size in found if size != 1), 1)


def own_axis(op: Op, equation: Equation, i: int, letter: str, size: Dim) -> Axis | None:
    """The axis of operand `i` that a letter names, its rows running over letters; None where it stretches one index."""
    axes, term = op.input(i), equation.terms[i]
    k = term.index(letter)
    if op.shape(i)[k] == 1 and size != 1:
        op.fix(axes, k, op.name_in(i), "Einsum stretches this single index")
        return None
    numbers = equation.letters
    axis = axes[k].moved({at: numbers.index(name) for at, name in enumerate(term)})
    if axis.ids is None or list(axis.by) == sorted(axis.by):
        return axis
    order = np.argsort(axis.by)
    ids = np.transpose(axis.ids, [*order, axis.ids.ndim - 1])
    return replace(axis, ids=ids, by=tuple(axis.by[d] for d in order))


def summed(op: Op, equation: Equation, letter: str, axis: Axis, operands: int) -> Axis:
    """A letter that is summed over: it may lose an index only if that takes its products along.

    Summed in one operand alone there are no products, so the letter stays.
    """
    holders = equation.holders(letter)
    names = [op.name_in(i) for i in holders]
    if axis.ids is None or (operands > 1 and any(keeps_zero(op, name) for name in names)):
        return axis
    if operands > 1:
        reason = "Einsum sums over it, and no operand is zero where its weights are"
        return op.freeze_ids(axis.ids, reason, names[0], equation.terms[holders[0]].index(letter))
    for i in holders:
        op.fix(op.input(i), equation.terms[i].index(letter), op.name_in(i), "Einsum sums over this axis")
    return Axis()


def note_sources(op: Op, equation: Equation) -> None:
    """The output letters that only weights have are filters of those weights."""
    made = {i for i in range(op.arity) if is_weight(op, op.name_in(i))}
    for i in made if op.arity > 1 else ():
        for k, letter in enumerate(equation.terms[i]):
            if letter in equation.output and made.issuperset(equation.holders(letter)):
                op.source(op.input(i)[k])


def note_cost(op: Op, equation: Equation, bound: Axes, sizes: Sequence[Dim]) -> None:
    """Note the products, operand after operand from the left, as onnxruntime takes them."""
    numbers = {letter: n for n, letter in enumerate(equation.letters)}
    live = set(equation.terms[0])
    for t in range(1, len(equation.terms)):
        live |= set(equation.terms[t])
        note_product(op, bound, sizes, sorted(numbers[letter] for letter in live))
        needed = {*equation.output, *(letter for term in equation.terms[t + 1 :] for letter in term)}
        live &= needed


def note_product(op: Op, bound: Axes, sizes: Sequence[Dim], numbers: Sequence[int]) -> None:
    """Note one product over some letters. Letters in rows over another already count those rows, but only once."""
    in_rows = [n for n in numbers if bound[n].ids is not None and bound[n].by]
    covered = {b for n in in_rows for b in bound[n].by}
    second = bound[in_rows[1]].ids if len(in_rows) > 1 and bound[in_rows[0]].by == bound[in_rows[1]].by else None
    groups = None if second is None else second.reshape(-1, second.shape[-1])
    op.cost(1.0, [op.extent(bound[n], sizes[n]) for n in numbers if n not in covered], groups)
