"""What channels are on average, without data. Law: known from BatchNormalization, or not known at all.

A channel behind BatchNormalization has mean beta and standard deviation |gamma| over the training data; taken as
normal, it keeps a known mean behind a ReLU (Nagel et al. 2019, arXiv 1906.04721, section 4.2.1 and appendix C).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.calibrate.anchors import Floats, normalisation
from onnxprune.model import Array
from onnxprune.trace import Dependencies

SAME = {"Identity", "Dropout", "Flatten", "Reshape", "Transpose", "AveragePool", "GlobalAveragePool", "ReduceMean"}
SQUEEZED = {"Squeeze", "Unsqueeze", "Split", "Slice"}  # they keep what a channel is, too


@dataclass(frozen=True, eq=False)
class Normal:
    """Of every unit at a tensor, NaN where it is not known. Shapes (unit_count + rows + 1,), as of `Dependencies.gone`.

    Attributes:
        mean: Mean.
        variance: Variance.
    """

    mean: Floats
    variance: Floats

    def rectified(self) -> Normal:
        """Behind a ReLU: moments of a normal distribution cut off at 0."""
        deviation = np.sqrt(self.variance)
        ratio = np.divide(self.mean, deviation, out=np.sign(self.mean) * 40.0, where=deviation > 0)
        density = np.exp(-0.5 * ratio**2) / math.sqrt(2 * math.pi)
        above = 0.5 * (1 + np.vectorize(math.erf, otypes=[float])(ratio / math.sqrt(2)))
        mean = self.mean * above + deviation * density
        square = (self.mean**2 + self.variance) * above + self.mean * deviation * density
        return Normal(mean, np.maximum(square - mean**2, 0.0))

    def plus(self, other: Normal) -> Normal:
        """The sum of independent channels."""
        return Normal(self.mean + other.mean, self.variance + other.variance)

    def beside(self, other: Normal) -> Normal:
        """Behind a Concat."""
        known = ~np.isnan(self.mean)
        return Normal(np.where(known, self.mean, other.mean), np.where(known, self.variance, other.variance))


def expected(
    dependencies: Dependencies, tensor: str, heads: Mapping[str, object], made: Mapping[str, onnx.NodeProto]
) -> Normal:
    """What units are at a tensor, from the BatchNormalization behind the layers that produce them.

    Args:
        dependencies: The traced dense model.
        tensor: Its name.
        heads: Tensors behind which no more is looked at.
        made: Tensor -> the node that computes it.
    """
    size = dependencies.unit_count + len(dependencies.whole) + 1
    unknown = Normal(np.full(size, np.nan), np.full(size, np.nan))
    node = made.get(tensor)
    if node is None:
        return unknown
    if node.op_type == "BatchNormalization" and tensor in heads:
        return normalised(dependencies, node, unknown)
    before = [] if tensor in heads else [i for i in node.input if i not in dependencies.model.weights]
    if node.op_type in SAME | SQUEEZED | {"Relu", "BatchNormalization"}:
        before = before[:1]
    elif node.op_type not in ("Add", "Sum", "Concat") or len(before) < len(node.input):
        return unknown
    found = [expected(dependencies, name, heads, made) for name in before]
    if not found or node.op_type == "BatchNormalization":
        return scaled(dependencies, node, found[0]) if found else unknown
    first = found[0].rectified() if node.op_type == "Relu" else found[0]
    for other in found[1:]:
        first = first.beside(other) if node.op_type == "Concat" else first.plus(other)
    return first


def normalised(dependencies: Dependencies, node: onnx.NodeProto, unknown: Normal) -> Normal:
    """Behind a BatchNormalization that normalises what it was trained on."""
    ids, weights = dependencies.labels[node.input[1]][0].ids, dependencies.model.weights
    if ids is None:
        return unknown
    found = Normal(unknown.mean.copy(), unknown.variance.copy())
    units = dependencies.unit[ids].ravel()
    found.mean[units], found.variance[units] = column(weights[node.input[2]]), column(weights[node.input[1]]) ** 2
    found.mean[-1] = np.nan  # channels that stay have no unit
    return found


def scaled(dependencies: Dependencies, node: onnx.NodeProto, before: Normal) -> Normal:
    """Behind a BatchNormalization of channels that other layers produced."""
    slope, weights = normalisation(node, dependencies.model), dependencies.model.weights
    ids = dependencies.labels[node.input[1]][0].ids
    if slope is None or ids is None:
        return Normal(before.mean * np.nan, before.variance * np.nan)
    units, found = dependencies.unit[ids].ravel(), Normal(before.mean.copy(), before.variance.copy())
    shift = column(weights[node.input[2]]) - slope * column(weights[node.input[3]])
    found.mean[units] = before.mean[units] * slope + shift
    found.variance[units] = before.variance[units] * slope**2
    return found


def column(array: Array) -> Floats:
    """A vector in double precision."""
    return np.asarray(array, dtype=np.float64).ravel()
