"""Which samples are taken where there are more than asked for. Law: same seed, same samples, from every part of them.

Data often lies in order of its classes, so the first thousand would be of one. One sample is drawn from each of as many
equal stretches as samples are wanted (stratified sampling): every class gets its share to within one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


def spread(total: int, limit: int, seed: int = 0) -> Numbers:
    """Numbers below `total`, ascending: all of them, or `limit` spread over them.

    Args:
        total: How many there are.
        limit: How many are wanted, at most.
        seed: Of the place within each stretch.
    """
    if total <= limit:
        return np.arange(total)
    edges = np.arange(limit + 1) * total // limit
    return np.random.default_rng(seed).integers(edges[:-1], edges[1:])


def mixed(numbers: Numbers, seed: int = 0) -> Numbers:
    """The same numbers in a seeded random order, for files sorted by class: the first few are then of several."""
    return np.random.default_rng(seed).permutation(numbers)
