"""Time as a function of widths, fitted to measured kernels. Law: no negative cost; more whole steps cost no less.

Each region's time is a sum of its terms (`Terms`) with weights that are not negative: least squares under that bound
(Lawson & Hanson 1974, chapter 23). Relative errors count, so that a kernel's small times are fitted as well as its
large ones. Where the model of the time is wrong, it is corrected: the times of the last plan that was measured are met
exactly, region by region, so a search that measures what it plans converges on true times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.latency.regions import Regions
from onnxprune.latency.terms import KINDS, Floats, Price, Terms

LIMIT = 4.0  # a correction larger than this, or smaller than its inverse, is a kernel that moved to another region


@dataclass(frozen=True, eq=False)
class Sample:
    """One set of widths, measured.

    Attributes:
        widths: Shape (axes + 1,).
        ms: Time of each region, ms, and last that of what belongs to none. Shape (regions + 1,).
    """

    widths: Floats
    ms: Floats


@dataclass(frozen=True, eq=False)
class Table:
    """What was measured of one model, and the price fitted to it.

    Attributes:
        regions: The parts that times are counted for.
        terms: Their work.
        samples: What was measured; the first is the dense model.
        weights: Milliseconds per unit of each kind of work. Shape (regions + 1, kinds).
        correction: Factor on each region's time. Shape (regions + 1,).
    """

    regions: Regions
    terms: Terms
    samples: tuple[Sample, ...]
    weights: Floats
    correction: Floats

    @property
    def price(self) -> Price:
        """Milliseconds of every product."""
        each = self.weights[self.terms.region, self.terms.kind] * self.correction[self.terms.region]
        return Price(self.terms, each)

    @property
    def error(self) -> float:
        """Median over the samples of the relative error of the whole model's time."""
        known = np.array([s.ms.sum() for s in self.samples])
        found = np.array([float(self.price.total(s.widths)) for s in self.samples])
        return float(np.median(np.abs(found / known - 1)))


def fit_table(regions: Regions, terms: Terms, samples: Sequence[Sample], correct: Sample | None = None) -> Table:
    """Fit the weights of every region.

    Args:
        regions: The parts that times are counted for.
        terms: Their work.
        samples: What was measured.
        correct: The sample whose times are to be met exactly.
    """
    work = np.stack([terms.features(s.widths) for s in samples])
    times = np.stack([s.ms for s in samples])
    weights = np.stack([fit_region(work[:, r], times[:, r]) for r in range(times.shape[1])])
    correction = np.ones(times.shape[1])
    if correct is not None:
        expected = (terms.features(correct.widths) * weights).sum(axis=1)
        ratio = np.divide(correct.ms, expected, out=np.ones_like(expected), where=expected > 0)
        correction = np.where(np.abs(np.log(np.maximum(ratio, 1e-9))) < np.log(LIMIT), ratio, 1.0)
    return Table(regions, terms, tuple(samples), weights, correction)


def fit_region(work: Floats, times: Floats) -> Floats:
    """Weights of one region.

    Args:
        work: Its terms in every sample. Shape (samples, kinds).
        times: Its time in every sample, ms. Shape (samples,).

    Returns:
        Shape (kinds,), not negative.
    """
    from scipy.optimize import nnls  # scipy's optimisers are slow to import, and few commands need them

    scale = work.max(axis=0)
    typical = float(np.median(times))
    if typical <= 0:
        return np.zeros(len(KINDS))
    each = 1.0 / np.maximum(times, 0.1 * typical)  # relative errors
    used = scale > 0
    columns = work[:, used] / scale[used] * each[:, None]
    found = np.zeros(len(KINDS))
    found[used] = nnls(columns, times * each)[0] / scale[used]
    return found
