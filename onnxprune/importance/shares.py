"""How much of its importance a layer keeps. Law: the share of the sum of its filters' scores that stays."""

from __future__ import annotations

import numpy as np

from onnxprune.importance.registry import Scores
from onnxprune.trace import Dependencies, Group, Mask, Source


def kept_share(dependencies: Dependencies, scores: Scores, group: Group, keep: Mask) -> float:
    """The geometric mean over a group's layers of the share of importance that stays, in [0, 1].

    Groups are coupled layers, and layers differ in scale: of a sum over all of them, the loudest would be all that
    counts.

    Args:
        dependencies: A traced model.
        scores: Importance of its units.
        group: One of its groups.
        keep: Per id, whether it stays. Shape (ids,).
    """
    shares = [layer_share(dependencies, scores, source, keep) for source in group.sources]
    return float(np.exp(np.mean(np.log(shares)))) if min(shares) > 0 else 0.0


def layer_share(dependencies: Dependencies, scores: Scores, source: Source, keep: Mask) -> float:
    """The share of a layer's importance that stays; where all filters score zero, of their number."""
    found = scores.filters.get(source)
    if found is None:
        units = dependencies.unit[source.ids].ravel()
        found = np.append(scores.values, 0.0)[np.where(units < scores.values.size, units, -1)]
    stays = keep[source.ids].ravel()
    return float(found[stays].sum() / found.sum()) if found.sum() > 0 else float(stays.mean())
