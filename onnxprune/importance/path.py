"""The LASSO path. Law: at every event the conditions of the optimum hold exactly; between events all is linear.

Minimised over beta is (1 - beta)' E (1 - beta) / 2 + lambda |beta|_1. As lambda falls, coefficients whose correlation
with what is left reaches lambda join the active ones, and those that pass 0 leave them (Osborne et al. 2000; Efron et
al. 2004, section 3.1). A contribution that is a combination of active ones never joins.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from onnxprune.importance.registry import Floats
from onnxprune.labels import Ids

EVENTS = 8  # for each unit, at most
DEPENDENT = 1e-6  # of a contribution's energy: with less of its own it is a combination of others
ROUNDING = 1e-12


def entries(inner: Floats) -> Floats:
    """The largest penalty at which each coefficient is not 0; 0 for one that never is.

    Args:
        inner: Inner products of contributions, E. Shape (units, units).
    """
    path, values = Path.of(inner), np.zeros(len(inner))
    for _ in range(EVENTS * len(inner)):
        step, unit, enters = path.event()
        if step >= path.penalty * (1 - ROUNDING):
            break
        path.go(step)
        if enters and path.enter(unit):
            values[unit] = max(values[unit], path.penalty)
        elif not enters:
            path.leave(unit)
    return values


@dataclass(eq=False)
class Path:
    """A point on the path.

    Attributes:
        inner: E.
        left: Correlations of the contributions with what is left. Shape (units,).
        penalty: lambda.
        factor: Cholesky factor of the active part of E, in its upper left corner. Shape (units, units).
        beta: Active coefficients. Shape (active,).
        active: Their units, in the order in which they joined.
        sign: Their signs.
        along: What they gain as the penalty falls by 1. Shape (active,).
        falls: What the correlations lose. Shape (units,).
        turned: Whether these two are those of the active units.
        barred: Which units are combinations of active ones. Shape (units,).
    """

    inner: Floats
    left: Floats
    penalty: float
    factor: Floats
    barred: NDArray[np.bool_]
    beta: Floats = field(default_factory=lambda: np.zeros(0))
    sign: Floats = field(default_factory=lambda: np.zeros(0))
    active: Ids = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    along: Floats = field(default_factory=lambda: np.zeros(0))
    falls: Floats = field(default_factory=lambda: np.zeros(0))
    turned: bool = False

    @staticmethod
    def of(inner: Floats) -> Path:
        """Its start, where all coefficients are 0."""
        left = inner.sum(axis=1)
        return Path(inner, left, float(np.abs(left).max()), np.zeros_like(inner), np.zeros(len(inner), dtype=bool))

    def event(self) -> tuple[float, int, bool]:
        """How far the penalty falls until something happens; to which unit; and whether it enters (or leaves)."""
        size = self.active.size
        if not self.turned:  # a unit that is barred leaves the direction as it is
            self.turn()
        free = ~self.barred
        free[self.active] = False
        enters = np.full((2, len(free)), np.inf)
        for row, side in enumerate((1.0, -1.0)):
            closing = 1 - side * self.falls
            may = free & (closing > ROUNDING)
            enters[row, may] = ((self.penalty - side * self.left[may]) / closing[may]).clip(0)
        nearest = enters.min(axis=0)
        shrinks = self.along * self.sign < 0
        leaves = np.where(shrinks, -self.beta / np.where(shrinks, self.along, 1.0), np.inf)
        first, last = int(nearest.argmin()), int(leaves.argmin()) if size else 0
        if size and leaves[last] < nearest[first]:
            return float(leaves[last]), int(self.active[last]), False
        return float(nearest[first]), first, True

    def turn(self) -> None:
        """Find how coefficients and correlations change as the penalty falls."""
        size, self.turned = self.active.size, True
        corner = self.factor[:size, :size]
        half = solve_triangular(corner, self.sign, lower=True, check_finite=False) if size else self.sign
        self.along = solve_triangular(corner.T, half, check_finite=False) if size else self.sign
        self.falls = self.inner[:, self.active] @ self.along

    def go(self, step: float) -> None:
        """Let the penalty fall."""
        self.penalty -= step
        self.left = self.left - step * self.falls
        self.beta = self.beta + step * self.along

    def enter(self, unit: int) -> bool:
        """Make a unit active, unless it is a combination of those that are."""
        size, own = self.active.size, float(self.inner[unit, unit])
        row, rest = np.zeros(0), own
        if size:
            across = self.inner[self.active, unit]
            row = solve_triangular(self.factor[:size, :size], across, lower=True, check_finite=False)
            rest = own - float(row @ row)
        if rest <= DEPENDENT * own:
            self.barred[unit] = True
            return False
        self.factor[size, :size], self.factor[size, size], self.turned = row, np.sqrt(rest), False
        self.active = np.append(self.active, unit)
        self.sign, self.beta = np.append(self.sign, np.sign(self.left[unit])), np.append(self.beta, 0.0)
        return True

    def leave(self, unit: int) -> None:
        """Make a unit inactive; what was a combination of it and others may no longer be one."""
        stays = self.active != unit
        self.active, self.sign, self.beta = self.active[stays], self.sign[stays], self.beta[stays]
        size = self.active.size
        self.factor[:size, :size] = np.linalg.cholesky(self.inner[np.ix_(self.active, self.active)])
        self.barred[:], self.turned = False, False
