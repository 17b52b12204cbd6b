"""Optimal selection on the Gram matrix. Law: a unit costs what its readers lose when all others make up for it.

For every layer that reads a group's channels, the Gram matrix of its inputs says what squared error is left when some
of them are gone and the weights of the others are refitted. Backward elimination removes, again and again, the unit
whose removal adds least (the optimal brain surgeon's step for a block of weights, Hassibi and Stork 1993, equation 5;
greedy, and weakly submodular, El Halabi et al. 2022, arXiv 2203.04940). A unit's score is what its removal added, so
that the sum over removed units is the squared error of all readers together, each relative to the spread of what it
computes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.calibrate import Anchor, Contraction, Moments, Walk, anchor_of, contraction_of, readers_of
from onnxprune.calibrate.moments import COLUMNS, finite
from onnxprune.importance.norms import by_filter, l1_norm
from onnxprune.importance.registry import Evidence, Floats, Scores, criterion
from onnxprune.labels import Ids
from onnxprune.progress import Observer
from onnxprune.shapes import attribute
from onnxprune.trace import Dependencies, Group

ROWS, FEW = 40, 10_000  # sites for each input of a layer, and at least, if there are so many
RIDGE = 1e-3  # of the mean square of an input
TINY = 1e-12  # of the trace of a block: keeps its factor real where rounding would not
STEPS = 64  # eliminations of a group, at most: wider groups lose several units in each


@dataclass(frozen=True, eq=False)
class Reader:
    """A layer that reads a group's channels.

    Attributes:
        inverse: Of the second moments of its inputs, their means taken out, with a ridge. Shape (K, K).
        matrix: Its weights, in units of the spread of what it computes. Shape (K, M).
        columns: For each unit of the group, the inputs that go with it; -1 fills up. Shape (units, most).
    """

    inverse: Floats
    matrix: Floats
    columns: Ids


@criterion("reconstruction", needs="samples")
def reconstruction(dependencies: Dependencies, evidence: Evidence) -> Scores:
    """What its readers lose when all other channels make up for it: backward elimination on their Gram matrices.

    A group without a reader that can be described by a Gram matrix is scored by the L1 norm, scaled to its mean.

    Hassibi and Stork 1993, equation 5, for blocks of weights; El Halabi et al. 2022, arXiv 2203.04940.
    """
    values, norms = np.full(dependencies.unit_count, np.nan), by_filter(dependencies, l1_norm)
    waiting, found = readers_by_group(dependencies), dict[int, list[Reader]]()
    walk = Walk(dependencies.model, evidence.samples, threads=evidence.threads, memory=evidence.memory)
    for g, reader in readers(dependencies, walk, np.random.default_rng(evidence.seed), evidence.observe):
        found.setdefault(g, []).append(reader)
        if len(found[g]) == waiting[g]:  # Gram matrices are large: none waits longer than it must
            group = dependencies.groups[g]
            values[group.units] = eliminated(found.pop(g), group.units.size)
    for group in dependencies.groups:
        own = norms.values[group.units]
        if np.isnan(values[group.units]).all() and own.sum() > 0:
            values[group.units] = own / own.sum()
    return Scores("", np.nan_to_num(values), additive=True)


def layers(dependencies: Dependencies) -> Iterator[tuple[int, Contraction, Ids, list[int]]]:
    """Every layer that reads groups: its node's number, itself, the unit of each input, the groups' numbers."""
    for at, node in enumerate(dependencies.model.proto.graph.node):
        layer = contraction_of(node, dependencies.model)
        if not isinstance(layer, str) and layer.groups == 1 and layer.columns <= COLUMNS:
            units = inputs_of(dependencies, node, layer)
            if groups := np.unique(dependencies.owner[units[units >= 0]]).tolist():
                yield at, layer, units, groups


def readers_by_group(dependencies: Dependencies) -> Counter[int]:
    """How many layers read each group."""
    return Counter(g for _, _, _, groups in layers(dependencies) for g in groups)


def readers(
    dependencies: Dependencies, walk: Walk, rng: np.random.Generator, observe: Observer
) -> Iterator[tuple[int, Reader]]:
    """Every layer that reads a group, with the group's number, from front to back."""
    model, read_by = dependencies.model, readers_of(dependencies.model)
    for at, layer, units, groups in layers(dependencies):
        observe("score", at / len(walk.nodes))
        anchor = anchor_of(layer.node.output[0], layer.channels, layer.axis, model, read_by)
        gram, matrix = second_moments(walk, at, layer, anchor, rng)
        inverse = inverted(gram)
        for g in groups:
            yield g, Reader(inverse, matrix, columns_of(dependencies.groups[g], units))


def inputs_of(dependencies: Dependencies, node: onnx.NodeProto, layer: Contraction) -> Ids:
    """The unit of each input of a layer, -1 where it cannot go. Shape (K,)."""
    axes = dependencies.labels.get(node.input[1])
    turned = node.op_type == "Gemm" and attribute(node, "transB", 0)
    axis = 1 if node.op_type == "Conv" or turned else 0
    ids = axes[axis].ids if axes is not None else None
    if ids is None or ids.ndim > 1:
        return np.full(layer.columns, -1)
    units = np.repeat(dependencies.unit[ids], layer.columns // ids.size)
    return np.where(units < dependencies.unit_count, units, -1)


def columns_of(group: Group, units: Ids) -> Ids:
    """For each unit of a group, the inputs that go with it. Shape (units, most)."""
    found = [np.flatnonzero(units == unit) for unit in group.units.tolist()]
    most = max(f.size for f in found)
    return np.stack([np.pad(f, (0, most - f.size), constant_values=-1) for f in found])


def second_moments(
    walk: Walk, at: int, layer: Contraction, anchor: Anchor, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """The Gram matrix of what a layer reads, means taken out, and its weights as `Reader` has them."""
    moments, share = Moments.empty(*layer.shape), None
    for values in walk.values(at, [layer.node.input[0], anchor.tensor]):
        target = values[anchor.tensor]
        share = share or layer.share(target, len(walk.live), max(FEW, ROWS * layer.columns))
        sites = layer.sites(target.shape, share, rng)
        wanted, inputs = layer.outputs(target, sites), layer.inputs(values[layer.node.input[0]], sites)
        usable = finite(wanted, inputs)
        moments.add(inputs[usable], np.zeros_like(wanted[usable]), wanted[usable])
    gram, mean = moments.gram[0, :-1, :-1], moments.gram[0, -1, :-1]
    spread = max(float(moments.spread.sum()), np.finfo(np.float64).tiny)
    return gram - np.outer(mean, mean) / max(1, moments.count), layer.matrix[0] * anchor.slope / np.sqrt(spread)


def eliminated(found: Sequence[Reader], units: int) -> Floats:
    """What each unit's removal adds, in the order in which they go; the last adds all that is left. Shape (units,)."""
    states = [Surgeon.of(reader) for reader in found]
    values, left, last = np.zeros(units), np.arange(units), 0.0  # a unit is never worth less than one that went before
    while left.size > 1:
        costs = np.sum([state.costs(left) for state in states], axis=0)
        order = np.argsort(costs, kind="stable")[: max(1, units // STEPS)]
        added = np.sum([state.remove(left[order]) for state in states], axis=0)
        values[left[order]] = np.maximum.accumulate(np.append(last, added))[1:]
        last = float(values[left[order]].max())
        left = np.delete(left, order)
    values[left] = max(last, sum(float(state.costs(left).sum()) for state in states))
    return values


@dataclass(eq=False)
class Surgeon:
    """One reader while units go.

    Attributes:
        inverse: Of the Gram matrix of the inputs that are left; rows of those that are gone are 0. Shape (K, K).
        matrix: The refitted weights. Shape (K, M).
        columns: As in `Reader`.
    """

    inverse: Floats
    matrix: Floats
    columns: Ids

    @staticmethod
    def of(reader: Reader) -> Surgeon:
        """Nothing is gone yet."""
        return Surgeon(reader.inverse.copy(), reader.matrix.copy(), reader.columns)

    def costs(self, units: Ids) -> Floats:
        """What the removal of each of these units would add. Shape (units,)."""
        columns = self.columns[units]
        held = columns >= 0
        blocks = self.inverse[columns[:, :, None], columns[:, None, :]]
        blocks = np.where(held[:, :, None] & held[:, None, :], blocks, np.eye(columns.shape[1]))
        rows = np.where(held[:, :, None], self.matrix[columns], 0.0)
        return np.asarray((rows * np.linalg.solve(blocks, rows)).sum(axis=(1, 2)))

    def remove(self, units: Ids) -> Floats:
        """Take units out one after another, refit the others, and give what each adds. Shape (units,)."""
        parts = [self.columns[u][self.columns[u] >= 0] for u in units.tolist()]
        own, ends = np.concatenate(parts), np.cumsum([0, *(part.size for part in parts)])
        if not own.size:
            return np.zeros(units.size)
        block, rows = self.inverse[np.ix_(own, own)], self.matrix[own]
        # The first n of them add the squared length of the first rows of this: a Cholesky factor goes in their order.
        whitened = np.linalg.solve(np.linalg.cholesky(block + np.eye(own.size) * TINY * np.trace(block)), rows)
        lengths = np.append(0.0, np.cumsum(np.square(whitened).sum(axis=1)))
        solved = np.linalg.solve(block, np.concatenate([rows, self.inverse[own]], axis=1))
        across, outputs = self.inverse[:, own], self.matrix.shape[1]
        self.matrix -= across @ solved[:, :outputs]
        self.inverse -= across @ solved[:, outputs:]
        self.matrix[own], self.inverse[own], self.inverse[:, own] = 0.0, 0.0, 0.0
        return np.asarray(np.diff(lengths[ends]))


def inverted(gram: Floats) -> Floats:
    """The inverse of a Gram matrix with a ridge. Shape (K, K)."""
    scale = max(float(np.trace(gram)) / len(gram), float(np.finfo(np.float64).tiny))
    return np.asarray(np.linalg.inv(gram + RIDGE * scale * np.eye(len(gram))), dtype=np.float64)
