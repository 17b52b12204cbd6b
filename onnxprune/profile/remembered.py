"""Keep what was measured of a model. Law: only the same graph, on inputs of the same shapes, on the same machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from onnxprune.cache import cache_path, machine_key, recall, remember
from onnxprune.latency import Regions
from onnxprune.latency.table import Sample
from onnxprune.plan.document import fingerprint
from onnxprune.profile.measure import Profiler
from onnxprune.runtime import Feeds
from onnxprune.trace import Dependencies

SCHEMA = 2


def key(dependencies: Dependencies, feeds: Feeds, step: int, provider: str, threads: int) -> dict[str, Any]:
    """Everything that the times depend on."""
    return machine_key(provider, threads) | {
        "schema": SCHEMA,
        "model": fingerprint(dependencies.model),
        "shapes": {name: [str(array.dtype), *array.shape] for name, array in sorted(feeds.items())},
        "through_norms": dependencies.through_norms,
        "step": step,
    }


def identity_of(profiler: Profiler) -> dict[str, Any]:
    """The key of what a profiler measures."""
    p = profiler
    return key(p.dependencies, p.feeds, p.step, p.provider, p.threads)


def profiler_of(
    dependencies: Dependencies, feeds: Feeds, step: int, *, provider: str = "cpu", threads: int = 1, cache: bool = True
) -> Profiler:
    """A profiler that knows what was measured before.

    Args:
        dependencies: A traced model.
        feeds: What it is run on.
        step: The width step the machine rewards.
        provider: Execution provider.
        threads: Threads inside one operator.
        cache: Whether to look.
    """
    known = None
    if cache:
        known = parse(recall(cache_path("profile", key(dependencies, feeds, step, provider, threads))))
    if known is not None and whole(known[0], len(dependencies.model.proto.graph.node)):
        made = Profiler(dependencies, feeds, step, provider, threads, *known)
        if all(sample.widths.size == made.terms.dense.size for sample in made.samples):
            return made
    return Profiler(dependencies, feeds, step, provider, threads)


def save(profiler: Profiler) -> None:
    """Keep what a profiler has measured."""
    identity = identity_of(profiler)
    remember(cache_path("profile", identity), identity, measured(profiler))


def measured(profiler: Profiler) -> dict[str, Any]:
    """Regions and samples as JSON types."""
    assert profiler.regions is not None
    samples = [{"widths": s.widths.tolist(), "ms": s.ms.tolist()} for s in profiler.samples]
    return {"regions": asdict(profiler.regions), "samples": samples}


def parse(held: Mapping[str, Any] | None) -> tuple[Regions, list[Sample]] | None:
    """Regions and samples from JSON; None if they are not there or damaged."""
    try:
        parts = (held or {})["regions"]
        regions = Regions(tuple(parts["names"]), tuple(map(tuple, parts["nodes"])), dict(parts["of"]))
        samples = [Sample(np.array(s["widths"], float), np.array(s["ms"], float)) for s in (held or {})["samples"]]
    except (KeyError, TypeError, ValueError):
        return None
    right = all(s.ms.shape == (len(regions.names) + 1,) and sound(s) for s in samples)
    return (regions, samples) if samples and right else None


def sound(sample: Sample) -> bool:
    """Whether these can be widths and times."""
    return all(bool(np.isfinite(a).all() and (a >= 0).all() and a.sum() > 0) for a in (sample.widths, sample.ms))


def whole(regions: Regions, nodes: int) -> bool:
    """Whether regions hold each of so many nodes once."""
    return sorted(place for places in regions.nodes for place in places) == list(range(nodes))
