"""Fluctuation-based selection. Law: a channel that never moves costs nothing, for a bias makes up for its mean."""

from __future__ import annotations

import sys

import numpy as np

from onnxprune.calibrate import Anchor, Tally, Walk
from onnxprune.importance.norms import with_norms
from onnxprune.importance.readers import Layer, each_layer, relative_weights, sampled
from onnxprune.importance.registry import Evidence, Floats, Scores, criterion
from onnxprune.trace import Dependencies


@criterion("flap", needs="samples")
def flap(dependencies: Dependencies, evidence: Evidence) -> Scores:
    """Variance of a channel times the squared norm of the weights that read it, standardised within its group.

    FLAP, An et al. 2024, arXiv 2312.11983, equations 4 and 5: summed over the taps of a kernel and over the readers,
    each relative to the spread of what it computes; minus the group's mean, over its standard deviation, so that groups
    compare. All scores are shifted alike, the least to 0. A group that no layer reads takes its filters' L1 norms.
    """
    values = np.full(dependencies.unit_count, np.nan)
    for layer, anchor, walk, rng in each_layer(dependencies, evidence, most=sys.maxsize):
        found = fluctuations(walk, layer, anchor, rng)
        for b, g in layer.reads:
            group, units = dependencies.groups[g], layer.units[b]
            mine = np.isin(units, group.units)
            values[group.units] = np.nan_to_num(values[group.units])
            np.add.at(values, units[mine], found[b][mine])
    values = with_norms(dependencies, values)
    for group in dependencies.groups:
        own = values[group.units]
        values[group.units] = (own - own.mean()) / max(float(own.std()), np.finfo(np.float64).tiny)
    return Scores("", values - values.min(initial=0.0), comparable=True)


def fluctuations(walk: Walk, layer: Layer, anchor: Anchor, rng: np.random.Generator) -> Floats:
    """The share of a layer's spread that comes from each input moving alone. Shape (products, K)."""
    product = layer.product
    moves, computed = Tally.empty(*product.shape[:2]), Tally.empty(product.channels)
    for inputs, wanted in sampled(walk, layer, anchor, rng):
        moves.add(inputs)
        computed.add(wanted)
    matrix = relative_weights(product, anchor, float(computed.deviation.sum()))
    return np.asarray(moves.deviation * np.square(matrix).sum(axis=2))
