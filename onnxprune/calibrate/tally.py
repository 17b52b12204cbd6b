"""Mean and spread of a stream of rows. Law: those of all rows together, whatever the batches they came in.

Batches are merged by their means and squared deviations (Chan, Golub and LeVeque 1983, equation 2.1), so that a large
mean costs no digits of a small spread.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(eq=False)
class Tally:
    """What has been seen.

    Attributes:
        mean: Of all rows. Shape (...).
        deviation: Sum of squared deviations from it. Shape (...).
        count: Rows.
    """

    mean: Floats
    deviation: Floats
    count: int = 0

    @staticmethod
    def empty(*shape: int) -> Tally:
        """Nothing seen yet, of rows of a shape."""
        return Tally(np.zeros(shape), np.zeros(shape))

    def add(self, rows: Floats) -> None:
        """Take in some rows. Shape (rows, ...)."""
        if not len(rows):
            return
        mean, total = rows.mean(axis=0), self.count + len(rows)
        apart = mean - self.mean
        self.deviation += np.square(rows - mean).sum(axis=0) + apart**2 * (self.count * len(rows) / total)
        self.mean += apart * (len(rows) / total)
        self.count = total

    @property
    def variance(self) -> Floats:
        """Mean squared deviation; 0 where nothing was seen. Shape (...)."""
        return self.deviation / max(1, self.count)
