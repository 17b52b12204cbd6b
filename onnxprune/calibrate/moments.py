"""Sums of products over sites. Law: all that a least-squares fit needs, in float64, whatever the number of samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
COLUMNS = 6_000  # inputs of a group above which a Gram matrix is too large to form


@dataclass(eq=False)
class Moments:
    """Second moments of a layer's inputs, with a 1 behind the last for the bias, and of what is to be explained.

    Attributes:
        gram: Inputs x inputs. Shape (groups, K + 1, K + 1).
        cross: Inputs x residuals, in the layer's own scale. Shape (groups, K + 1, M).
        energy: Squared residuals. Shape (groups, M).
        total: Sum of the target, per channel. Shape (groups x M,).
        square: Sum of its squares. Shape (groups x M,).
        count: Sites.
    """

    gram: Floats
    cross: Floats
    energy: Floats
    total: Floats
    square: Floats
    count: int = 0

    @staticmethod
    def empty(groups: int, columns: int, outputs: int) -> Moments:
        """Nothing seen yet: of `groups` groups with `columns` inputs and `outputs` outputs each."""
        square = np.zeros((groups, columns + 1, columns + 1))
        flat = np.zeros(groups * outputs)
        each = np.zeros((groups, columns + 1, outputs))
        return Moments(square, each, np.zeros((groups, outputs)), flat, flat.copy())

    def add(self, inputs: Floats, residual: Floats, target: Floats) -> None:
        """Take in some sites.

        Args:
            inputs: Shape (sites, groups, K).
            residual: What is missing of the target. Shape (sites, groups x M).
            target: Shape (sites, groups x M).
        """
        sites, groups = inputs.shape[:2]
        if not sites:  # none of a batch was finite
            return
        x = np.concatenate([inputs, np.ones((sites, groups, 1))], axis=2).transpose(1, 0, 2)
        r = residual.reshape(sites, groups, -1).transpose(1, 0, 2)
        self.gram += x.transpose(0, 2, 1) @ x
        self.cross += x.transpose(0, 2, 1) @ r
        self.energy += np.square(r).sum(axis=1)
        self.total += target.sum(axis=0)
        self.square += np.square(target).sum(axis=0)
        self.count += sites

    @property
    def spread(self) -> Floats:
        """Squared deviations of the target from its mean, per channel. Shape (groups x M,)."""
        return np.asarray(np.maximum(self.square - self.total**2 / max(1, self.count), 0.0))

    def change(self, update: Floats) -> Floats:
        """What squared residuals change by when the weights and bias change by `update` (groups, K + 1, M).

        Shape (groups, M).
        """
        return np.asarray((update * (self.gram @ update - 2 * self.cross)).sum(axis=1))

    def __add__(self, other: Moments) -> Moments:
        """Of both sets of sites."""
        names = ("gram", "cross", "energy", "total", "square", "count")
        return Moments(*(getattr(self, name) + getattr(other, name) for name in names))


def finite(*arrays: Floats) -> NDArray[np.bool_]:
    """Which sites, the first axis, hold numbers alone: one that is not finite says nothing about the others."""
    found = [np.isfinite(array.reshape(len(array), -1)).all(axis=1) for array in arrays]
    return np.asarray(np.logical_and.reduce(found))
