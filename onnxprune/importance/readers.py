"""Layers that read what may go. Law: a reader is one dense product, whose inputs say which unit they belong to.

A convolution in groups is one product for each group: each has inputs, weights and a Gram matrix of its own. A product
that goes as a whole with the unit it reads, as the groups of a depthwise convolution do, reads nothing that it could
miss; the reader is the layer behind it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

from onnxprune.calibrate import Anchor, Contraction, Moments, Walk, anchor_of, contraction_of, readers_of
from onnxprune.calibrate.moments import COLUMNS, finite
from onnxprune.importance.registry import Evidence, Floats
from onnxprune.labels import Ids
from onnxprune.shapes import attribute
from onnxprune.trace import Dependencies, Group

ROWS, FEW = 40, 10_000  # sites for each input of a product, and at least, if there are so many
RIDGE = 1e-3  # of the mean square of an input
NOISE = 1e-8  # of it: less variance is what rounding leaves of a mean that is taken out
TINY = float(np.finfo(np.float32).tiny)  # a spread or a mean square below it is none: its inverse must be finite

View = TypeVar("View")


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer that reads groups.

    Attributes:
        at: Its node's number.
        product: The layer; its groups are the products.
        units: The unit of each input, -1 where it cannot go. Shape (products, K).
        reads: Which product reads which group: pairs of their numbers.
    """

    at: int
    product: Contraction
    units: Ids
    reads: tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Product:
    """One product on the samples.

    Attributes:
        gram: Inputs x inputs, summed over sites, their means taken out. Shape (K, K).
        mean: Of the inputs. Shape (K,).
        count: Sites.
        matrix: Its weights, in units of the spread of what the layer computes. Shape (K, M).
    """

    gram: Floats
    mean: Floats
    count: int
    matrix: Floats

    @cached_property
    def inverse(self) -> Floats:
        """The inverse of the Gram matrix, with a ridge. Shape (K, K)."""
        return inverted(self.gram, float(self.count * np.square(self.mean).mean()))

    def contributions(self, columns: Ids, *, centred: bool = True) -> Floats:
        """Inner products of what each unit adds to the outputs, Z_i = X_i W_i, over sites and outputs.

        <Z_i, Z_j> is the sum over outputs of W_i' G_ij W_j, for the blocks of the Gram matrix G of the inputs.

        Args:
            columns: For each unit, its inputs; -1 fills up. Shape (units, most).
            centred: Whether the mean of what a unit adds is left out of account: a bias can make up for it.

        Returns:
            Shape (units, units), relative to the spread of what the layer computes.
        """
        held = np.flatnonzero(columns.ravel() >= 0)
        own, unit = columns.ravel()[held], held // columns.shape[1]
        gram = self.gram[np.ix_(own, own)]
        if not centred:
            gram = gram + self.count * np.outer(self.mean[own], self.mean[own])
        starts, found = np.flatnonzero(np.diff(unit, prepend=-1)), np.zeros((len(columns), len(columns)))
        if own.size:
            weighted = gram * (self.matrix[own] @ self.matrix[own].T)
            summed = np.add.reduceat(np.add.reduceat(weighted, starts, axis=0), starts, axis=1)
            found[np.ix_(unit[starts], unit[starts])] = summed
        return found


def layers(dependencies: Dependencies, most: int = COLUMNS) -> Iterator[Layer]:
    """Every layer that reads groups, from front to back.

    Args:
        dependencies: A traced model.
        most: Inputs of a product above which a layer is left out.
    """
    for at, node in enumerate(dependencies.model.proto.graph.node):
        layer = contraction_of(node, dependencies.model)
        if isinstance(layer, str) or layer.columns > most:
            continue
        units, outputs = inputs_of(dependencies, layer), outputs_of(dependencies, layer)
        reads = [
            (b, g)
            for b in range(layer.groups)
            if not one_unit(units[b], outputs[b])
            for g in np.unique(dependencies.owner[units[b][units[b] >= 0]]).tolist()
        ]
        if reads:
            yield Layer(at, layer, units, tuple(reads))


def inputs_of(dependencies: Dependencies, layer: Contraction) -> Ids:
    """The unit of each input of each product, -1 where it cannot go. Shape (products, K)."""
    node, (products, columns, _) = layer.node, layer.shape
    axes = dependencies.labels.get(node.input[1])
    turned = node.op_type == "Gemm" and attribute(node, "transB", 0)
    ids = axes[1 if node.op_type == "Conv" or turned else 0].ids if axes is not None else None
    if ids is None or ids.size not in (products * columns // layer.taps, columns // layer.taps):
        return np.full((products, columns), -1)
    each = np.broadcast_to(ids.reshape(-1, columns // layer.taps), (products, columns // layer.taps))
    return np.repeat(removable(dependencies, each), layer.taps, axis=1)


def outputs_of(dependencies: Dependencies, layer: Contraction) -> Ids:
    """The unit of each output of each product, -1 where it cannot go. Shape (products, M)."""
    axes, (products, _, outputs) = dependencies.labels.get(layer.node.output[0]), layer.shape
    ids = axes[layer.axis].ids if axes else None
    if ids is None or ids.size != layer.channels:
        return np.full((products, outputs), -1)
    return removable(dependencies, ids.reshape(products, outputs))


def removable(dependencies: Dependencies, ids: Ids) -> Ids:
    """The units of labels, -1 for those that stay or stand for whole rows. The shape of `ids`."""
    units = dependencies.unit[ids]
    return np.where(units < dependencies.unit_count, units, -1)


def one_unit(inputs: Ids, outputs: Ids) -> bool:
    """Whether all inputs and outputs of a product are one and the same unit."""
    return bool((np.concatenate([inputs, outputs]) == inputs[0]).all())


def readers_by_group(dependencies: Dependencies, most: int = COLUMNS) -> Counter[int]:
    """How many products read each group."""
    return Counter(g for layer in layers(dependencies, most) for _, g in layer.reads)


def columns_of(group: Group, units: Ids) -> Ids:
    """For each unit of a group, the inputs that go with it; -1 fills up. Shape (units, most)."""
    found = [np.flatnonzero(units == unit) for unit in group.units.tolist()]
    most = max(f.size for f in found)
    return np.stack([np.pad(f, (0, most - f.size), constant_values=-1) for f in found])


def sampled(walk: Walk, layer: Layer, anchor: Anchor, rng: np.random.Generator) -> Iterator[tuple[Floats, Floats]]:
    """Per batch, at sites that are drawn: what a layer multiplies, and the anchor behind it.

    Shapes (sites, products, K) and (sites, channels).
    """
    product, share = layer.product, None
    for values in walk.values(layer.at, [product.node.input[0], anchor.tensor]):
        target = values[anchor.tensor]
        share = share or product.share(target, len(walk.live), max(FEW, ROWS * product.columns))
        sites = product.sites(target.shape, share, rng)
        wanted, inputs = product.outputs(target, sites), product.inputs(values[product.node.input[0]], sites)
        usable = finite(wanted, inputs)
        yield inputs[usable], wanted[usable]


def products(walk: Walk, layer: Layer, anchor: Anchor, rng: np.random.Generator) -> list[Product]:
    """The products of a layer on the samples."""
    moments = Moments.empty(*layer.product.shape)
    for inputs, wanted in sampled(walk, layer, anchor, rng):
        moments.add(inputs, np.zeros_like(wanted), wanted)
    matrix = relative_weights(layer.product, anchor, float(moments.spread.sum()))
    count, found = max(1, moments.count), []
    for gram, weights in zip(moments.gram, matrix, strict=True):
        mean = gram[-1, :-1] / count
        found.append(Product(gram[:-1, :-1] - count * np.outer(mean, mean), mean, moments.count, weights))
    return found


def relative_weights(layer: Contraction, anchor: Anchor, spread: float) -> Floats:
    """Weights up to the anchor, in units of the root of a spread there. Shape (products, K, M)."""
    slope = anchor.slope.reshape(layer.groups, 1, -1)
    return np.asarray(layer.matrix * slope / np.sqrt(max(spread, TINY)))


def each_layer(
    dependencies: Dependencies, evidence: Evidence, most: int = COLUMNS
) -> Iterator[tuple[Layer, Anchor, Walk, np.random.Generator]]:
    """Every layer that reads groups, with where it is judged, and a walk that comes to it; from front to back."""
    model, read_by = dependencies.model, readers_of(dependencies.model)
    walk = Walk(model, evidence.samples, threads=evidence.threads, memory=evidence.memory)
    rng = np.random.default_rng(evidence.seed)
    for layer in layers(dependencies, most):
        evidence.observe("score", layer.at / len(walk.nodes))
        product = layer.product
        anchor = anchor_of(product.node.output[0], product.channels, product.axis, model, read_by)
        yield layer, anchor, walk, rng


def by_readers(
    dependencies: Dependencies,
    evidence: Evidence,
    view: Callable[[Product, Ids], View],
    settle: Callable[[list[View], int], Floats],
) -> Floats:
    """Scores of every unit from what all products that read its group have to say; NaN where there is none.

    Args:
        dependencies: A traced model.
        evidence: Samples.
        view: Of a product and the columns of a group's units, what is kept.
        settle: Of all that was kept for a group, and the number of its units, their scores. Shape (units,).
    """
    values, waiting = np.full(dependencies.unit_count, np.nan), readers_by_group(dependencies)
    found = dict[int, list[View]]()
    for layer, anchor, walk, rng in each_layer(dependencies, evidence):
        held = products(walk, layer, anchor, rng)
        for b, g in layer.reads:
            group = dependencies.groups[g]
            found.setdefault(g, []).append(view(held[b], columns_of(group, layer.units[b])))
            if len(found[g]) == waiting[g]:  # Gram matrices are large: none waits longer than it must
                values[group.units] = settle(found.pop(g), group.units.size)
    return values


def inverted(gram: Floats, taken: float = 0.0) -> Floats:
    """The inverse of a Gram matrix with a ridge, which outweighs rounding where inputs are constant. Shape (K, K).

    Args:
        gram: The matrix.
        taken: What was taken from its diagonal with the means, on average.
    """
    scale = max(float(np.trace(gram)) / len(gram), NOISE * taken, TINY)
    return np.asarray(np.linalg.inv(gram + RIDGE * scale * np.eye(len(gram))), dtype=np.float64)
