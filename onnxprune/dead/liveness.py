"""Which units must stay. Law: a unit is alive only if it matters to something alive; rings of dead ones die together.

Alive is what the model's outputs need: what a reader that stays sums up with a term other than zero. All else goes, and
going changes nothing: by induction over the nodes, every index that stays holds what it held.
"""

from __future__ import annotations

import numpy as np

from onnxprune.dead.ranges import Mask
from onnxprune.dead.reads import Read, Readers
from onnxprune.labels import Ids
from onnxprune.trace import Dependencies


def alive(dependencies: Dependencies, found: Readers, kept: Ids, *, everywhere: bool = False) -> Mask:
    """Per unit, whether it matters to what stays.

    A constant that a bias can take over does not.

    Args:
        dependencies: The traced model.
        found: Who reads its units.
        kept: Units that stay for other reasons.
        everywhere: Whether no constant matters, even where no bias can take it over.

    Returns:
        Shape (units + rows + 1,), as of `Dependencies.gone`.
    """
    asked = found.needed.copy()
    asked[kept] = True
    terms = [(read, mattering(read, everywhere)) for read in reversed(found.reads)]
    while True:
        before = int(asked.sum())
        state = with_rows(dependencies, asked)
        for read, matters in terms:
            if not asked[read.inputs].all():
                hit = (matters & state[read.outputs][:, :, None]).any(axis=1)
                units = read.inputs[np.broadcast_to(hit, read.inputs.shape)]
                asked[units] = state[units] = True
        if int(asked.sum()) == before:
            return state


def mattering(read: Read, everywhere: bool) -> Mask:
    """Which terms of a contraction matter, apart from constants."""
    if everywhere or read.bias is not None:
        return np.asarray(read.matters & np.isnan(read.constant)[:, None, :])
    return read.matters


def with_rows(dependencies: Dependencies, asked: Mask) -> Mask:
    """What is asked for, and the rows that live with one of their members; a row asked for keeps all of its own."""
    count = dependencies.unit_count
    for number in np.flatnonzero(asked[count:-1])[::-1].tolist():
        asked[dependencies.whole[number]] = True
    state = asked.copy()
    while dependencies.whole:
        found = np.array([state[members].any() for members in dependencies.whole])
        if np.array_equal(found | state[count:-1], state[count:-1]):
            break
        state[count:-1] |= found
    return state
