"""Criteria that need the weights alone. Law: a unit's score is the sum of its filters' scores over all sources."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from onnxprune.errors import ModelError
from onnxprune.importance.registry import Evidence, Floats, Scores, criterion
from onnxprune.labels import Axis, zero
from onnxprune.model import Array
from onnxprune.rules.integers import real
from onnxprune.trace import Dependencies, Mask, Source


@criterion("l1")
def l1(dependencies: Dependencies, _: Evidence) -> Scores:
    """Sum of absolute weights of each filter.

    Li et al. 2017, arXiv 1608.08710, section 3.1.
    """
    return by_filter(dependencies, l1_norm)


@criterion("l2")
def l2(dependencies: Dependencies, _: Evidence) -> Scores:
    """Euclidean norm of each filter.

    Li et al. 2017, arXiv 1608.08710, section 3.1, report no noticeable difference from L1.
    """
    return by_filter(dependencies, l2_norm)


def l1_norm(filters: Array) -> Floats:
    """Sums of absolute values. (filters, elements) -> (filters,)."""
    return np.asarray(np.abs(filters).sum(axis=1, dtype=np.float64))


def l2_norm(filters: Array) -> Floats:
    """Euclidean norms. (filters, elements) -> (filters,)."""
    return np.asarray(np.sqrt(np.square(filters, dtype=np.float64).sum(axis=1)))


def by_filter(
    dependencies: Dependencies,
    function: Callable[[Array], Floats],
    sources: Sequence[Source] | None = None,
    keep: Mask | None = None,
) -> Scores:
    """Scores that are a function of each source's filters, summed.

    Args:
        dependencies: A traced model.
        function: (filters, elements) -> (filters,).
        sources: Whose filters count; by default all.
        keep: Per id, whether it stays; weights that read something that does not count as zero. Shape (ids,).

    Raises:
        ModelError: A weight holds NaN or infinity.
    """
    each = {}
    for source in dependencies.sources if sources is None else sources:
        found = function(filters(dependencies, source, keep))
        if not np.isfinite(found).all():
            what = f"'{source.tensor}' holds NaN or infinite weights"
            raise ModelError(what, where=f"node '{source.node}'", remedy="export a model with finite weights")
        each[source] = found
    return Scores("", summed(dependencies, each), each)


def summed(dependencies: Dependencies, each: Mapping[Source, Floats]) -> Floats:
    """What the filters of all sources add up to, unit by unit.

    Args:
        dependencies: A traced model.
        each: Source -> a number, or a row of as many numbers as all others have. Shapes (filters, ...).

    Returns:
        Shape (units, ...).
    """
    tail = next((found.shape[1:] for found in each.values()), ())
    values = np.zeros((dependencies.unit_count, *tail))
    for source, found in each.items():
        units = dependencies.unit[source.ids].ravel()
        chosen = (units >= 0) & (units < dependencies.unit_count)  # the others stay, or stand for whole rows
        np.add.at(values, units[chosen], found[chosen])
    return values


def with_norms(dependencies: Dependencies, values: Floats) -> Floats:
    """Scores in which a group that has none (NaN alone) takes the L1 norms of its filters, scaled to sum to 1."""
    found, norms = values.copy(), by_filter(dependencies, l1_norm)
    for group in dependencies.groups:
        own = norms.values[group.units]
        if np.isnan(found[group.units]).all() and own.sum() > 0:
            found[group.units] = own / own.sum()
    return np.nan_to_num(found)


def filters(dependencies: Dependencies, source: Source, keep: Mask | None = None) -> Array:
    """A source's weights with one row per filter, integers as the real numbers they stand for. (filters, elements).

    What reads an id that is not in `keep` is zero.
    """
    weight, axis = stored(dependencies, source.tensor), source.axis
    if keep is not None:
        own = dependencies.labels[source.tensor]
        weight = zero(weight, tuple(Axis() if k == axis else a for k, a in enumerate(own)), keep)
    return by_row(weight, source)


def by_row(weight: Array, source: Source) -> Array:
    """An array of the shape of a source's weight with one row per filter. Shape (filters, elements).

    Where the filter axis counts within blocks (a grouped transposed convolution), rows run over blocks first.
    """
    axis = source.axis
    if source.ids.ndim > 1:
        blocks = source.ids.shape[0]
        weight = weight.reshape(blocks, weight.shape[0] // blocks, *weight.shape[1:])
        weight = np.moveaxis(weight, axis + 1, 1)
        return weight.reshape(source.ids.size, -1)
    return np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)


def stored(dependencies: Dependencies, tensor: str) -> Array:
    """A weight, integers as the real numbers they stand for."""
    weight = dependencies.model.weights[tensor]
    return weight if weight.dtype.kind == "f" else real(weight, dependencies.meanings.get(tensor))
