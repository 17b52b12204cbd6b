"""How filters lie to each other. Law: distances depend on differences of filters alone, not on where zero is."""

from __future__ import annotations

import numpy as np

from onnxprune.importance.norms import by_filter
from onnxprune.importance.registry import Evidence, Floats, Scores, criterion
from onnxprune.model import Array
from onnxprune.trace import Dependencies

PART = 2**22  # numbers of a weight that are widened to float64 at a time


@criterion("fpgm")
def fpgm(dependencies: Dependencies, _: Evidence) -> Scores:
    """Sum of a filter's distances to the others of its layer; the nearest to the geometric median go.

    He et al. 2019, arXiv 1811.00250, section 3.3: the filter x of a layer with the least sum of ||x - F_j||.
    """
    return by_filter(dependencies, lambda weights: distances(weights).sum(axis=1))


def distances(filters: Array) -> Floats:
    """Euclidean distances between filters. (filters, elements) -> (filters, filters).

    Their mean is taken out first: it cancels, and the squares that are subtracted from each other get smaller.
    """
    products = gram(filters, filters.mean(axis=0, dtype=np.float64))
    own = np.diagonal(products)
    found = np.sqrt(np.maximum(own[:, None] + own[None, :] - 2 * products, 0.0))
    np.fill_diagonal(found, 0.0)
    return np.asarray(found)


def gram(filters: Array, origin: Floats | float = 0.0) -> Floats:
    """Inner products of filters, as seen from an origin. (filters, elements) -> (filters, filters)."""
    count, size = filters.shape
    found, step = np.zeros((count, count)), max(1, PART // count)
    for start in range(0, size, step):
        part = filters[:, start : start + step].astype(np.float64)
        part -= origin[start : start + step] if isinstance(origin, np.ndarray) else origin
        found += part @ part.T
    return found
