"""Statistics of feature maps. Law: a unit's score is the sum over its sources of the statistic of its filter's map.

The statistic of a source is divided by its mean over the source's filters, so that layers compare. A source whose maps
say nothing (no tensor holds them, or the statistic is 0 for all) takes the L1 norms of its filters, scaled alike.
Samples lie along the first axis of what a node computes (along the second, if the first is that of the channels).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from onnxprune.calibrate import Tally
from onnxprune.importance.maps import maps_of, observed
from onnxprune.importance.norms import filters, l1_norm, summed
from onnxprune.importance.registry import Evidence, Floats, Scores, criterion
from onnxprune.trace import Dependencies, Source

Measure = Callable[[Floats], Floats]


@criterion("activation-mean", needs="samples")
def activation_mean(dependencies: Dependencies, evidence: Evidence) -> Scores:
    """Mean over samples of the mean of each filter's feature map, before normalisation and activation function.

    'mean-mean' of Polyak and Wolf 2015, as Li et al. 2017, arXiv 1608.08710v3, section 4.5, have it: with its sign, so
    shifted by the least of the source.
    """
    return by_maps(dependencies, evidence, lambda parts: shifted(tally(parts, mean).mean))


@criterion("activation-std", needs="samples")
def activation_std(dependencies: Dependencies, evidence: Evidence) -> Scores:
    """Mean over samples of the standard deviation within each filter's feature map, before normalisation.

    'mean-std' of Li et al. 2017, arXiv 1608.08710v3, section 4.5. Where a map is one number, as behind a fully
    connected layer, the deviation is that over the samples.
    """
    return by_maps(dependencies, evidence, spread)


@criterion("activation-l1", needs="samples")
def activation_l1(dependencies: Dependencies, evidence: Evidence) -> Scores:
    """Mean over samples of the sum of absolute values of each filter's feature map, before normalisation.

    'mean-l1' of Li et al. 2017, arXiv 1608.08710v3, section 4.5.
    """
    return by_maps(dependencies, evidence, lambda parts: tally(parts, absolute).mean)


@criterion("activation-l2", needs="samples")
def activation_l2(dependencies: Dependencies, evidence: Evidence) -> Scores:
    """Mean over samples of the Euclidean norm of each filter's feature map, before normalisation.

    'mean-l2' of Li et al. 2017, arXiv 1608.08710v3, section 4.5.
    """
    return by_maps(dependencies, evidence, lambda parts: tally(parts, euclidean).mean)


@criterion("activation-variance", needs="samples")
def activation_variance(dependencies: Dependencies, evidence: Evidence) -> Scores:
    """Variance over samples of the Euclidean norm of each filter's feature map, before normalisation.

    'var-l2' of Polyak and Wolf 2015, as Li et al. 2017, arXiv 1608.08710v3, section 4.5, have it.
    """
    return by_maps(dependencies, evidence, lambda parts: tally(parts, euclidean).variance)


@criterion("apoz", needs="samples")
def apoz(dependencies: Dependencies, evidence: Evidence) -> Scores:
    """Share of each filter's feature map that is not zero behind the activation function.

    1 - APoZ, the average percentage of zeros of Hu et al. 2016, arXiv 1607.03250, equation 1. A source without a ReLU
    or the like behind it takes its filters' L1 norms.
    """
    return by_maps(dependencies, evidence, lambda parts: tally(parts, living).mean, rectified=True)


def by_maps(
    dependencies: Dependencies,
    evidence: Evidence,
    statistic: Callable[[Iterator[Floats]], Floats],
    *,
    rectified: bool = False,
) -> Scores:
    """Scores that are a statistic of feature maps: parts of shape (samples, channels, positions) -> (channels,)."""
    found: dict[Source, Floats] = {}
    for maps, parts in observed(dependencies, evidence, maps_of(dependencies, rectified=rectified)):
        values = statistic(parts)
        for each in maps:
            own = each.channels[each.channels >= 0]
            found[each.source] = np.where(each.channels >= 0, values[each.channels], values[own].mean())
    scaled = {source: relative(found.get(source), dependencies, source) for source in dependencies.sources}
    return Scores("", summed(dependencies, scaled), scaled)


def relative(values: Floats | None, dependencies: Dependencies, source: Source) -> Floats:
    """A source's statistic over its mean; that of its filters' L1 norms where there is none. Shape (filters,)."""
    if values is None or not values.sum() > 0:
        values = l1_norm(filters(dependencies, source))
    return values / max(float(values.mean()), np.finfo(np.float64).tiny)


def tally(parts: Iterator[Floats], measure: Measure) -> Tally:
    """Mean and variance over samples of what is measured of each map: (samples, channels, positions) -> two axes."""
    found: Tally | None = None
    for part in parts:
        found = found or Tally.empty(part.shape[1])
        found.add(measure(part))
    assert found is not None  # a criterion of samples is given some
    return found


def spread(parts: Iterator[Floats]) -> Floats:
    """Mean deviation within the maps; over the samples where a map is one number. Shape (channels,)."""
    inside: Tally | None = None
    across, most = Tally.empty(1), 1
    for part in parts:
        if inside is None:
            inside, across = Tally.empty(part.shape[1]), Tally.empty(part.shape[1])
        inside.add(part.std(axis=2))
        across.add(mean(part))
        most = max(most, part.shape[2])
    assert inside is not None
    return inside.mean if most > 1 else np.sqrt(across.variance)


def mean(maps: Floats) -> Floats:
    """Mean of each map."""
    return np.asarray(maps.mean(axis=2))


def absolute(maps: Floats) -> Floats:
    """Sum of absolute values of each map."""
    return np.asarray(np.abs(maps).sum(axis=2))


def euclidean(maps: Floats) -> Floats:
    """Euclidean norm of each map."""
    return np.asarray(np.sqrt(np.square(maps).sum(axis=2)))


def living(maps: Floats) -> Floats:
    """Share of each map that is not 0."""
    return np.asarray((maps != 0).mean(axis=2))


def shifted(values: Floats) -> Floats:
    """The same differences, the least at 0."""
    return np.asarray(values - values.min(initial=np.inf))
