"""What each group's width costs, for people to read. Law: read off the table that plans are made on, and no other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from onnxprune import runtime
from onnxprune.latency import Table
from onnxprune.plan.document import describe
from onnxprune.plan.knapsack import Search
from onnxprune.plan.levels import Level, choices_of
from onnxprune.profile.measure import Profiler
from onnxprune.profile.remembered import identity_of, measured

SCHEMA = "onnxprune/profile/1"


@dataclass(frozen=True)
class Staircase:
    """What one group's width costs while all others are whole.

    Attributes:
        group: Its name.
        sources: The weight axes whose filters go together.
        channels: Units kept at each width that was considered, descending.
        ms: Time of the whole model at each of them.
    """

    group: str
    sources: tuple[str, ...]
    channels: tuple[int, ...]
    ms: tuple[float, ...]

    @property
    def saves(self) -> float:
        """Share of the model's time that the narrowest width saves."""
        return 1 - min(self.ms) / self.ms[0]


@dataclass(frozen=True)
class Profile:
    """What was measured of a model.

    Attributes:
        dense_ms: Time of the dense model, ms.
        step: The width step that the machine rewards.
        error: Median relative error of the table on the models that were measured.
        models: Number of models that were measured.
        groups: The staircases, the group that can save most first.
        environment: Software and processor.
        provider: Execution provider.
        threads: Threads inside one operator.
        shapes: Inputs: name -> element type and sizes.
        raw: Everything measured: regions, and for every model widths and times.
    """

    dense_ms: float
    step: int
    error: float
    models: int
    groups: tuple[Staircase, ...]
    environment: dict[str, Any]
    provider: str
    threads: int
    shapes: dict[str, list[object]]
    raw: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {"schema": SCHEMA} | asdict(self)


def profile_of(profiler: Profiler, table: Table, levels: Sequence[Sequence[Level]]) -> Profile:
    """Read the staircases off a table."""
    identity = identity_of(profiler)
    return Profile(
        dense_ms=profiler.dense_ms,
        step=profiler.step,
        error=table.error,
        models=len(profiler.samples),
        groups=tuple(sorted(staircases(profiler, table, levels), key=lambda s: -s.saves)),
        environment=runtime.environment(),
        provider=str(identity["provider"]),
        threads=profiler.threads,
        shapes=identity["shapes"],
        raw=measured(profiler),
    )


def staircases(profiler: Profiler, table: Table, levels: Sequence[Sequence[Level]]) -> list[Staircase]:
    """The staircase of every group."""
    dependencies = profiler.dependencies
    search = Search.of(table.price, choices_of(dependencies, table.terms, levels))
    found = []
    for g, (group, options) in enumerate(zip(dependencies.groups, levels, strict=True)):
        times = search.times(g)
        ms = profiler.dense_ms + times - times[0]
        kept = tuple(int(group.units.size - level.removed.size) for level in options)
        found.append(Staircase(group.name, describe(group.sources), kept, tuple(np.round(ms, 6).tolist())))
    return found
