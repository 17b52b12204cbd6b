"""Optimal selection on the Gram matrix. Law: a unit costs what its readers lose when all others make up for it.

For every layer that reads a group's channels, the Gram matrix of its inputs says what squared error is left when some
of them are gone and the weights of the others are refitted. Backward elimination removes, again and again, the unit
whose removal adds least (the optimal brain surgeon's step for a block of weights, Hassibi and Stork 1993, equation 5;
greedy, and weakly submodular, El Halabi et al. 2022, arXiv 2203.04940). A unit's score is what its removal added, so
that the sum over removed units is the squared error of all readers together, each relative to the spread of what it
computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.importance.norms import with_norms
from onnxprune.importance.readers import Product, by_readers
from onnxprune.importance.registry import Evidence, Floats, Scores, criterion
from onnxprune.labels import Ids
from onnxprune.trace import Dependencies

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

    @staticmethod
    def of(product: Product, columns: Ids) -> Reader:
        """A product that reads the units of these columns."""
        return Reader(product.inverse, product.matrix, columns)


@criterion("reconstruction", needs="samples")
def reconstruction(dependencies: Dependencies, evidence: Evidence) -> Scores:
    """What its readers lose when all other channels make up for it: backward elimination on their Gram matrices.

    A group without a reader that can be described by a Gram matrix is scored by the L1 norm, scaled to its mean.

    Hassibi and Stork 1993, equation 5, for blocks of weights; El Halabi et al. 2022, arXiv 2203.04940.
    """
    values = by_readers(dependencies, evidence, Reader.of, eliminated)
    return Scores("", with_norms(dependencies, values), additive=True)


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
        """What the removal of each of these units would add; nothing where none of it is read. Shape (units,)."""
        found, read = np.zeros(units.size), self.columns[units, 0] >= 0
        columns = self.columns[units[read]]
        held = columns >= 0
        blocks = self.inverse[columns[:, :, None], columns[:, None, :]]
        blocks = np.where(held[:, :, None] & held[:, None, :], blocks, np.eye(columns.shape[1]))
        rows = np.where(held[:, :, None], self.matrix[columns], 0.0)
        found[read] = (rows * np.linalg.solve(blocks, rows)).sum(axis=(1, 2))
        return found

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
