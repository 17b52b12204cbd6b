"""Laws of the staircases: read off the table, one for each group, descending, the largest saving first."""

from __future__ import annotations

import json

import numpy as np
import pytest

from onnxprune.plan.levels import Level
from onnxprune.profile import Profile, Profiler, profile, profile_of, removed_by
from onnxprune.report.staircase import STAIRS, profile_view, steps
from onnxprune.trace import Dependencies
from tests.planted import Machine
from tests.report.test_terminal import shown

FEEDS = {"x": np.zeros((1, 3, 8, 8), np.float32)}


@pytest.fixture
def profiler(dependencies: Dependencies, monkeypatch: pytest.MonkeyPatch) -> Profiler:
    Machine().install(monkeypatch, dependencies)
    return Profiler(dependencies, FEEDS, 8)


@pytest.fixture
def found(profiler: Profiler, levels: list[list[Level]]) -> Profile:
    return profile_of(profiler, profile(profiler, levels), levels)


def test_every_group_has_a_staircase_that_descends(found: Profile, dependencies: Dependencies) -> None:
    assert {s.group for s in found.groups} == {g.name for g in dependencies.groups}
    assert [s.saves for s in found.groups] == sorted((s.saves for s in found.groups), reverse=True)
    for entry in found.groups:
        assert list(entry.channels) == sorted(set(entry.channels), reverse=True)
        assert all(a >= b - 1e-6 for a, b in zip(entry.ms, entry.ms[1:], strict=False)), "wider is never cheaper"
        assert entry.ms[0] == pytest.approx(found.dense_ms, abs=1e-6)  # rounded to a nanosecond


def test_a_stair_is_the_table_at_that_width(
    found: Profile, profiler: Profiler, levels: list[list[Level]], dependencies: Dependencies
) -> None:
    price = profiler.table().price
    dense = float(price.total(profiler.terms.dense))
    for g, group in enumerate(dependencies.groups):
        chosen = [len(options) - 1 if i == g else 0 for i, options in enumerate(levels)]
        keep = dependencies.keep(removed_by(dependencies, levels, chosen))
        saved = dense - float(price.total(profiler.terms.measure(keep)))
        entry = next(s for s in found.groups if s.group == group.name)
        assert entry.ms[0] - entry.ms[-1] == pytest.approx(saved, abs=2e-6)


def test_the_profile_is_json_and_fits_a_terminal(found: Profile) -> None:
    held = json.loads(json.dumps(found.to_dict()))
    assert held["schema"] == "onnxprune/profile/1" and len(held["groups"]) == len(found.groups)
    for width in (60, 100):
        text = shown(profile_view(found), width, "ascii")
        assert max(map(len, text.splitlines())) <= width and "width step" in text
    assert all(1 <= len(steps(s).split("  ")) <= STAIRS for s in found.groups)
