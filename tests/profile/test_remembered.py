"""Law of what is remembered: the same question has the same answer, any other is measured, damage is measured again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from onnxprune.importance import score
from onnxprune.plan import Limits
from onnxprune.plan.levels import choosers_of, levels_of
from onnxprune.profile import Profiler, profile, profile_of, profiler_of, save
from onnxprune.trace import Dependencies
from tests import graphs
from tests.planted import Machine

FEEDS = {"x": np.zeros((1, 3, 8, 8), np.float32)}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dependencies: Dependencies) -> Machine:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return Machine().install(monkeypatch, dependencies)


def measured(dependencies: Dependencies) -> Profiler:
    """Measured and kept."""
    profiler = profiler_of(dependencies, FEEDS, 8)
    levels = levels_of(choosers_of(dependencies, score(dependencies), Limits(), finer=False))
    profile(profiler, levels)
    save(profiler)
    return profiler


def test_what_was_measured_is_not_measured_again(machine: Machine, dependencies: Dependencies) -> None:
    first = measured(dependencies)
    count = len(machine.log)
    again = measured(dependencies)
    assert len(machine.log) == count > 10 and again.regions == first.regions
    assert len(again.samples) == len(first.samples) and again.dense_ms == first.dense_ms
    np.testing.assert_array_equal(again.table().price.ms, first.table().price.ms)


@pytest.mark.parametrize("change", ["batch", "type", "threads", "step", "model", "norms", "fresh"])
def test_another_question_is_measured(change: str, machine: Machine, dependencies: Dependencies) -> None:
    measured(dependencies)
    feeds = {"batch": {"x": FEEDS["x"].repeat(2, 0)}, "type": {"x": FEEDS["x"].astype(np.float64)}}.get(change, FEEDS)
    other = {"model": graphs.traced(graphs.chain(width=24))}.get(change, dependencies)
    options = {"threads": {"threads": 2}, "fresh": {"cache": False}}.get(change, {})
    if change == "norms":
        object.__setattr__(other, "through_norms", True)
    found = profiler_of(other, feeds, 4 if change == "step" else 8, **options)
    assert len(found.samples) == 1  # the dense model alone, measured now


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", "no regions", "no samples", "empty", "axes", "regions", "text", "nan", "ragged"]
)
def test_damage_is_measured_again(damage: str, machine: Machine, dependencies: Dependencies, tmp_path: Path) -> None:
    measured(dependencies)
    (path,) = (tmp_path / "onnxprune").glob("profile-*.json")
    held = json.loads(path.read_text())
    if damage.startswith("no "):
        del held[damage[3:]]
    elif damage == "empty":
        held["samples"] = []
    elif damage == "axes":
        held["samples"][0]["widths"].append(3)
    elif damage == "regions":
        held["samples"][1]["ms"].append(3)
    elif damage == "text":
        held["samples"][1]["ms"][0] = "fast"
    elif damage == "nan":
        held["samples"][1]["ms"][0] = float("nan")
    elif damage == "ragged":
        held["regions"]["nodes"][0] = [10**6]
    path.write_text(json.dumps(held) if damage not in ("", "{", "[]") else damage)
    assert len(profiler_of(dependencies, FEEDS, 8).samples) == 1


def test_an_interrupted_profile_goes_on_where_it_ended(machine: Machine, dependencies: Dependencies) -> None:
    profiler = profiler_of(dependencies, FEEDS, 8)
    for _ in range(3):
        profiler.sample(dependencies.groups[0].units[:4])
    save(profiler)
    count = len(machine.log)
    done = measured(dependencies)
    assert len(done.samples) == 17 and len(machine.log) == count + 13
    assert [s.ms.tolist() for s in done.samples[:4]] == [s.ms.tolist() for s in profiler.samples]


def test_the_staircases_are_read_off_the_table(machine: Machine, dependencies: Dependencies) -> None:
    profiler = measured(dependencies)
    levels = levels_of(choosers_of(dependencies, score(dependencies), Limits(), finer=False))
    found = profile_of(profiler, profiler.table(), levels)
    assert {s.group for s in found.groups} == {g.name for g in dependencies.groups}
    assert [s.saves for s in found.groups] == sorted((s.saves for s in found.groups), reverse=True)
    assert found.models == len(profiler.samples) and json.loads(json.dumps(found.to_dict()))["step"] == 8
    for entry in found.groups:
        assert list(entry.channels) == sorted(entry.channels, reverse=True)
        assert entry.ms[0] == pytest.approx(found.dense_ms, abs=1e-6)  # rounded to a nanosecond
        assert all(a >= b - 1e-6 for a, b in zip(entry.ms, entry.ms[1:], strict=False))
