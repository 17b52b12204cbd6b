"""The joint score of all that goes with a unit. Law: every weight that leaves the model with a unit counts for it."""

from __future__ import annotations

import numpy as np
import onnx

from onnxprune.errors import ModelError
from onnxprune.graph import every_node
from onnxprune.importance.norms import stored
from onnxprune.importance.registry import Evidence, Floats, Scores, criterion
from onnxprune.labels import Axes
from onnxprune.trace import Dependencies


@criterion("group-norm")
def group_norm(dependencies: Dependencies, _: Evidence) -> Scores:
    """Squares of all weights coupled to a unit: filters, slices of their readers, BatchNormalization scales.

    Over the mean of the group, so that groups compare: the relative score with N = all units of a group.

    Fang et al. 2023, DepGraph, arXiv 2301.12900, section 3.3: the sum over a group of ||w[k]||^2, relative.
    """
    values = np.zeros(dependencies.unit_count)
    for tensor in parameters(dependencies):
        add_squares(dependencies, tensor, values)
    for group in dependencies.groups:
        own = values[group.units]
        values[group.units] = own / own.mean() if own.any() else 1.0
    return Scores("", values, comparable=True)


def parameters(dependencies: Dependencies) -> list[str]:
    """The weights of all contractions, and the scales of BatchNormalization."""
    scales = {n.input[1] for n in normalisations(dependencies)}
    return sorted({source.tensor for source in dependencies.sources} | scales)


def normalisations(dependencies: Dependencies) -> list[onnx.NodeProto]:
    """The BatchNormalization nodes whose scale is stored."""
    model = dependencies.model
    nodes = every_node(model.proto.graph)
    return [n for n in nodes if n.op_type == "BatchNormalization" and n.input[1] in model.weights]


def add_squares(dependencies: Dependencies, tensor: str, values: Floats) -> None:
    """Add the squares of a weight to every unit that it is a filter or a slice of.

    Raises:
        ModelError: It holds NaN or infinity.
    """
    squares, axes = np.square(stored(dependencies, tensor), dtype=np.float64), dependencies.labels.get(tensor, ())
    for k, axis in enumerate(axes):
        if axis.ids is None:
            continue
        found = sums(squares, axes, k)
        if not np.isfinite(found).all():
            what = f"'{tensor}' holds NaN or infinite weights"
            raise ModelError(what, remedy="export a model with finite weights")
        units = dependencies.unit[axis.ids]
        chosen = (units >= 0) & (units < dependencies.unit_count)  # the others stay, or stand for whole rows
        np.add.at(values, units[chosen], found[chosen])


def sums(array: Floats, axes: Axes, k: int) -> Floats:
    """The sum over everything that goes with each index of axis `k`. Shape: that of the axis's ids."""
    axis = axes[k]
    assert axis.ids is not None
    if not axis.by:
        return np.asarray(array.sum(axis=tuple(a for a in range(array.ndim) if a != k)))
    own, blocks = axis.by[0], axis.ids.shape[0]
    moved = np.moveaxis(array, (own, k), (0, 1))
    return np.asarray(moved.reshape(blocks, moved.shape[0] // blocks, moved.shape[1], -1).sum(axis=(1, 3)))
