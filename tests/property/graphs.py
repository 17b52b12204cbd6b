"""Random graphs of 3 to 40 operators. Law: each is valid, finite on its samples, and pruned or held for a reason.

`drawn` makes a graph out of choices (hypothesis shrinks those), `numbered` out of a number.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from tests.property import layouts
from tests.property.builder import Builder, Tensor, Unusable
from tests.property.moves import MOVES, UNMADE, Move
from tests.rules.cases import Case

__all__ = ["MOVES", "UNMADE", "drawn", "layouts", "made", "numbered"]

OPSETS = (13, 17, 18, 21, 23)
MOST = 30  # moves; an operator more or less each
START = ((3, 4, 4), (4, 6), (6,))  # an image, a sequence, a vector
WEIGHTED = [m for m in MOVES for _ in range(m.weight)]


def made(below: Callable[[int], int], name: str) -> Case:
    """A random graph."""
    b = Builder(below, OPSETS[below(len(OPSETS))], symbolic=bool(below(3)))
    start(b)
    for _ in range(2 + below(MOST - 1)):
        with b.attempt():
            step(b)
    return b.case(name, ends(b))


def start(b: Builder) -> None:
    """One input, or two, each with a layer that produces channels."""
    for _ in range(b.pick([1, 1, 2])):
        x = b.input(*b.pick(START))
        first = {4: "Conv", 3: "MatMul", 2: "Gemm"}[x.rank]
        with b.attempt():
            b.pool.append(next(m for m in MOVES if first in m.kinds).make(b, x, first))
    if len(b.pool) > len(b.inputs):
        del b.pool[: len(b.inputs)]  # what reads the input itself cannot be pruned


def step(b: Builder) -> None:
    """One move behind one of the last tensors."""
    x = b.pick(b.pool[-4:])
    chosen: Move = b.pick([m for m in WEIGHTED if x.rank in m.ranks])
    y = chosen.make(b, x, b.pick(chosen.kinds))
    if y.rank not in (2, 3, 4) or y.shape[0] != x.shape[0] or y.value.dtype.kind != "f":
        raise Unusable
    b.pool.append(y)


def ends(b: Builder) -> list[Tensor]:
    """One or two outputs, most of them behind a layer that consumes channels."""
    found: list[Tensor] = []
    for x in [b.pool[-1], *([b.pick(b.pool)] if b.below(4) == 0 else [])]:
        last = x  # if no layer fits
        if b.below(8):
            with b.attempt():
                kind = {4: "Conv", 3: "MatMul", 2: "Gemm"}[x.rank]
                last = next(m for m in MOVES if kind in m.kinds).make(b, x, kind)
        found.append(b.op("Identity", last))
    return found


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    """A graph out of hypothesis's choices."""
    return made(lambda n: draw(st.integers(0, n - 1)) if n > 1 else 0, "drawn")


def numbered(number: int) -> Case:
    """The graph of a number."""
    rng = np.random.default_rng(number)
    return made(lambda n: int(rng.integers(n)), f"graph {number}")
