"""How redundant a layer's filters are. Law: the measure sees directions only, and scaling a filter changes nothing.

Filters are vertices of a graph, at unit length; two are joined that are nearer than gamma. Two numbers say how many
different filters there are: the *quotient size*, the number of connected components, and the *1-covering number*, the
fewest filters such that every other one is joined to one of them. Where layers are coupled, a unit is as near to
another as its filters are on average over the layers (root mean square).

Wang, Li and Wang 2021, CVPR, arXiv 2104.03438, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.importance.geometry import gram
from onnxprune.importance.norms import filters
from onnxprune.importance.registry import Floats
from onnxprune.labels import Ids, components
from onnxprune.trace import Dependencies, Group, Mask, Source

COVERING, QUOTIENT = 0.65, 0.35  # weights of the two numbers in the paper's score


def distances_of(dependencies: Dependencies, group: Group) -> Floats:
    """Distances between the units of a group, their filters at unit length. Shape (units, units); in [0, 2].

    Units that no layer has both of are as far apart as orthogonal ones.
    """
    size = group.units.size
    cosines, shared = np.zeros((size, size)), np.zeros((size, size))
    for source in group.sources:
        positions, found = directions(dependencies, group, source)
        place = np.ix_(positions, positions)
        cosines[place] += found
        shared[place] += 1
    apart = np.sqrt(np.clip(2 - 2 * cosines / np.maximum(shared, 1), 0.0, 4.0))
    np.fill_diagonal(apart, 0.0)
    return np.asarray(apart)


def directions(dependencies: Dependencies, group: Group, source: Source) -> tuple[Ids, Floats]:
    """Positions in a group of the filters of one of its layers, and the cosines between them.

    A unit with several filters in the layer has their mean. Filters of zeros equal each other and nothing else.
    """
    units = dependencies.unit[source.ids].ravel()
    mine, order = np.isin(units, group.units), np.argsort(group.units)
    places = order[np.searchsorted(group.units, units[mine], sorter=order)]
    positions, at = np.unique(places, return_inverse=True)
    products = gram(filters(dependencies, source)[mine])
    length = np.sqrt(np.diagonal(products))
    scale = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    cosines = products * scale[:, None] * scale[None, :] + np.outer(length == 0, length == 0)
    if positions.size < at.size:
        mean = np.zeros((positions.size, at.size))
        mean[at, np.arange(at.size)] = 1.0 / np.bincount(at)[at]
        return positions, mean @ cosines @ mean.T
    order = np.argsort(at)
    return positions, cosines[np.ix_(order, order)]


def gamma(distances: Sequence[Floats]) -> float:
    """How near filters are joined: the median, over all filters of the network, of the distance to the nearest other.

    The paper uses one number for all layers, too, but tunes it. By this rule half of a network's filters have a
    neighbour, whatever the network, and layers differ in how many of them they hold.
    """
    nearest = [np.min(d + np.diag(np.full(len(d), np.inf)), axis=1) for d in distances if len(d) > 1]
    return float(np.median(np.concatenate(nearest))) if nearest else 0.0


def score_of(joined: Mask) -> float:
    """Covering number and quotient size over the number of filters, weighted; the higher, the less redundant.

    Args:
        joined: Whether two filters are joined; every filter is joined to itself. Shape (filters, filters).
    """
    return (COVERING * covering(joined) + QUOTIENT * quotient(joined)) / max(1, len(joined))


def quotient(joined: Mask) -> int:
    """The number of connected components."""
    a, b = np.nonzero(np.triu(joined, 1))
    return int(np.unique(components(len(joined), a, b)).size)


def covering(joined: Mask) -> int:
    """An upper estimate of the 1-covering number: take the filter that covers most of the rest, again and again."""
    alone = joined.sum(axis=1) == 1
    rest = joined[np.ix_(~alone, ~alone)]
    open_, gain, count = np.ones(len(rest), dtype=bool), rest.sum(axis=1), int(alone.sum())
    while open_.any():
        covered = rest[int(gain.argmax())] & open_
        gain = gain - rest[:, covered].sum(axis=1)
        open_ &= ~covered
        count += 1
    return count
