"""Ridge regression from moments. Law: the penalty is chosen on sites that the fit has not seen; no change is a choice.

New weights W + U minimise |residual - x U|^2 + r s |U|^2, s the mean square of an input: what is penalised is the
change, so that with little data the layer stays what it was.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.calibrate.moments import Floats, Moments

RIDGES = (1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
TINY = 1e-12  # of the mean square: keeps columns that are always 0 solvable


@dataclass(frozen=True, eq=False)
class Update:
    """A change of a layer's weights.

    Attributes:
        matrix: Added to the weights and, in the last row, to the bias. Shape (groups, K + 1, M).
        part: The same, fitted without the sites held out; those were judged by it.
        ridge: The penalty.
        before: Squared error on the sites held out.
        after: The same with the change.
    """

    matrix: Floats
    part: Floats
    ridge: float
    before: float
    after: float


def best_update(fit: Moments, held: Moments, weight: Floats, *, intercept: bool = True) -> Update | None:
    """The change that explains most on held-out sites, fitted anew to all of them; None where every one does harm.

    Args:
        fit: Sites to fit to.
        held: Sites to judge by.
        weight: What a channel's squared error counts. Shape (groups, M).
        intercept: Whether the layer can be shifted.
    """
    if not fit.count:
        return None
    before, best = float((weight * held.energy).sum()), (0.0, 0.0)
    for ridge in RIDGES:
        change = float((weight * held.change(solved(fit, ridge, intercept=intercept))).sum())
        best = min(best, (change, ridge)) if np.isfinite(change) else best
    if best[0] >= 0:
        return None
    whole, part = (solved(moments, best[1], intercept=intercept) for moments in (fit + held, fit))
    if not float((weight * held.change(whole)).sum()) <= best[0]:  # sites to fit to that outweigh those held out
        whole = part
    return Update(whole, part, best[1], before, before + best[0])


def solved(moments: Moments, ridge: float, *, intercept: bool = True) -> Floats:
    """The change that minimises the penalised error; its last row, the shift, is 0 without an intercept.

    Shape (groups, K + 1, M).
    """
    matrix = penalised(moments, ridge)
    if intercept:
        return np.asarray(np.linalg.solve(matrix, moments.cross))
    found = np.zeros_like(moments.cross)
    found[:, :-1] = np.linalg.solve(matrix[:, :-1, :-1], moments.cross[:, :-1])
    return found


def penalised(moments: Moments, ridge: float) -> Floats:
    """The Gram matrix with the penalty on every weight, none on the shift. Shape (groups, K + 1, K + 1)."""
    inner = np.arange(moments.gram.shape[1] - 1)
    matrix = moments.gram.copy()
    scale = moments.gram[:, inner, inner].mean(axis=1)
    scale[scale < np.finfo(np.float32).tiny] = 1.0  # nothing is read: whatever keeps the inverse finite
    matrix[:, inner, inner] += (ridge + TINY) * scale[:, None]
    return matrix
