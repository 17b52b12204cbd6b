"""What criteria look at, for the graphs of the tests."""

from __future__ import annotations

import numpy as np

from onnxprune.importance import Evidence
from onnxprune.runtime import random_feeds
from onnxprune.trace import Dependencies


def samples(dependencies: Dependencies, batches: int = 4, size: int = 8) -> Evidence:
    """Random samples in batches."""
    return Evidence([dict(random_feeds(dependencies.model, batch=size, seed=seed)) for seed in range(batches)])


def gradients(dependencies: Dependencies, count: int | None = 6) -> Evidence:
    """Random gradients of every weight, with an axis of samples or without."""
    rng = np.random.default_rng(0)
    shape = () if count is None else (count,)
    weights = dependencies.model.weights
    return Evidence(gradients={n: rng.normal(size=(*shape, *w.shape)).astype(np.float32) for n, w in weights.items()})
