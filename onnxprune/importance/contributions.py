"""Channel selection by what channels add to their readers. Law: only inner products of the contributions count.

What a unit adds to the outputs of the layers that read it is Z_i = X_i W_i. All that He et al. and Luo et al. look at
is the matrix of <Z_i, Z_j>: over samples, sites and outputs, summed over the readers, each relative to the spread of
what it computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from onnxprune.importance.norms import with_norms
from onnxprune.importance.path import entries
from onnxprune.importance.readers import Product, by_readers
from onnxprune.importance.registry import Evidence, Floats, Scores, criterion
from onnxprune.trace import Dependencies


@criterion("lasso", needs="samples")
def lasso(dependencies: Dependencies, evidence: Evidence) -> Scores:
    """The penalty at which a LASSO on what channels add to their readers drops the channel for good.

    He, Zhang and Sun 2017, arXiv 1707.06168, equation 2: beta minimises ||Y - sum beta_i Z_i||^2 / 2 + lambda |beta|_1
    (means taken out, as an intercept does). Instead of searching lambda for one ratio, the whole path is followed, so
    that the scores serve for any. A group that no layer with a Gram matrix reads takes its filters' L1 norms.
    """
    values = by_readers(dependencies, evidence, Product.contributions, regularised)
    return Scores("", with_norms(dependencies, values))


@criterion("thinet", needs="samples")
def thinet(dependencies: Dependencies, evidence: Evidence) -> Scores:
    """The squared sum of what removed channels added to their readers, when the channel goes: greedy, least first.

    ThiNet, Luo et al. 2017, arXiv 1707.06342, equation 6 and algorithm 1 (all outputs at the sites that are drawn
    instead of one each). A group that no layer with a Gram matrix reads takes its filters' L1 norms.
    """
    view = partial(Product.contributions, centred=False)
    return Scores("", with_norms(dependencies, by_readers(dependencies, evidence, view, summed_least)))


def regularised(found: Sequence[Floats], _: int) -> Floats:
    """The largest penalty at which the coefficient of each unit is not 0. Shape (units,)."""
    return entries(np.sum(found, axis=0))


def summed_least(found: Sequence[Floats], units: int) -> Floats:
    """The squared sum of the contributions of all that went up to each unit; never less than before. Shape (units,)."""
    inner = np.sum(found, axis=0)
    values, gone, total = np.zeros(units), np.zeros(units, dtype=bool), 0.0
    across, most = np.zeros(units), 0.0  # inner products with the sum of what is gone
    for _ in range(units):
        costs = np.where(gone, np.inf, np.diag(inner) + 2 * across)
        i = int(costs.argmin())
        total += float(costs[i])
        # Contributions of opposite sign cancel, so the sum may shrink; the next number up keeps the order.
        most = max(total, np.nextafter(most, np.inf))
        values[i], gone[i] = most, True
        across += inner[i]
    return values
