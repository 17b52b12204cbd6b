"""Estimates and their intervals. Law: samples of one process never count as evidence about another process.

Times differ more between processes than within one: where code and arrays lie in memory, and what the machine does
that minute, stays the same for a process's whole life. Kalibera & Jones 2013 ("Rigorous benchmarking in reasonable
time", ISMM) therefore repeat whole executions and resample at every level, and so is done here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Interval = tuple[float, float]

RESAMPLES = 10_000
CHUNK = 2**22  # elements resampled at once
DRIFT = 0.5  # rank correlation of round and ratio from which a process is said to drift
DRIFT_ROUNDS = 20  # with fewer, chance alone often gives that much


def centre(groups: Sequence[Floats]) -> float:
    """Geometric mean over processes of each process's median; of one process its median.

    Ratios are averaged geometrically because then swapping the two models inverts the result (Fleming & Wallace 1986).

    Args:
        groups: One array of positive values for each process.
    """
    return float(np.exp(np.mean([np.log(np.median(group)) for group in groups])))


def interval(groups: Floats | Sequence[Floats], *, seed: int = 0, level: float = 0.95) -> Interval:
    """Bootstrap interval of `centre`.

    With one process: the percentile interval of the median (Efron & Tibshirani 1993, chapter 13). With several: the
    hierarchical bootstrap, which draws processes with replacement, then rounds within each process drawn. Percentiles
    of a bootstrap over n processes are too narrow by sqrt((n - 1) / n) and by Student's t against the normal; they are
    widened by both (Hesterberg 2015, "What teachers should know about the bootstrap", section 5.4).

    Args:
        groups: Positive values, one array per process; or the values of one.
        seed: Of the resampling.
        level: Coverage.
    """
    listed = [groups] if isinstance(groups, np.ndarray) else list(groups)
    rng, count = np.random.default_rng(seed), len(listed)
    tail = (1 - level) / 2
    if count == 1:
        centres = medians(listed[0], rng)
    else:
        from scipy import special  # a quarter of the package's start-up time, needed by several processes only

        tail = float(special.ndtr(np.sqrt(count / (count - 1)) * special.stdtrit(count - 1, tail)))
        pools = np.log(np.stack([medians(group, rng) for group in listed]))
        drawn = rng.integers(0, count, (count, RESAMPLES)), rng.integers(0, RESAMPLES, (count, RESAMPLES))
        centres = np.exp(pools[drawn].mean(axis=0))
    low, high = np.quantile(centres, [tail, 1 - tail])
    return float(low), float(high)


def medians(values: Floats, rng: np.random.Generator) -> Floats:
    """Medians of RESAMPLES draws with replacement, in chunks that fit a cache-friendly amount of memory."""
    step = max(1, CHUNK // values.size)
    sizes = [min(step, RESAMPLES - start) for start in range(0, RESAMPLES, step)]
    parts = [np.median(values[rng.integers(0, values.size, (n, values.size))], axis=1) for n in sizes]
    return np.concatenate(parts)


def drift(ratios: Floats) -> float:
    """Spearman's rank correlation of the ratios with their order, -1 to 1; 0 where too few to tell.

    A machine that slows both models alike does not drift: their ratio stays. One that heats up changes it.
    """
    if ratios.size < DRIFT_ROUNDS or np.ptp(ratios) == 0:
        return 0.0
    return float(np.corrcoef(np.arange(ratios.size), ranks(ratios))[0, 1])


def drifts(rho: float) -> bool:
    """Whether a rank correlation is large enough to doubt the process."""
    return abs(rho) > DRIFT


def ranks(values: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of theirs."""
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean_rank: Floats = np.cumsum(counts) - (counts - 1) / 2
    return mean_rank[index]
