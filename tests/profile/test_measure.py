"""Laws of the profile: the samples are the designed models, an interrupted profile goes on, only ratios count."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.plan.levels import Level
from onnxprune.profile import Profiler, profile, removed_by
from onnxprune.profile.measure import EVEN, RANDOM, alternate, design
from onnxprune.trace import Dependencies
from tests.planted import Machine


def test_the_design_has_even_and_random_models_and_is_the_same_for_a_seed(levels: list[list[Level]]) -> None:
    plans = design(levels, seed=3)
    assert len(plans) == len(EVEN) + RANDOM and plans == design(levels, seed=3) != design(levels, seed=4)
    assert plans[len(EVEN) - 1] == [len(options) - 1 for options in levels]
    assert all(0 <= c < len(options) for chosen in plans for c, options in zip(chosen, levels, strict=True))


def test_removed_units_are_those_of_the_levels(dependencies: Dependencies, levels: list[list[Level]]) -> None:
    chosen = [len(options) - 1 for options in levels]
    removed = removed_by(dependencies, levels, chosen)
    assert removed.size == sum(options[-1].removed.size for options in levels) == np.unique(removed).size
    assert removed_by(dependencies, levels, [0] * len(levels)).size == 0


def test_a_profile_measures_every_model_once_and_goes_on_where_it_was_stopped(
    dependencies: Dependencies, levels: list[list[Level]], monkeypatch: pytest.MonkeyPatch
) -> None:
    Machine().install(monkeypatch, dependencies)
    profiler, seen = Profiler(dependencies, {}, 8), []

    def stop(stage: str, done: float) -> None:
        seen.append(done)
        if len(seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        profile(profiler, levels, observe=stop)
    assert len(profiler.samples) == 5  # the dense model, and four others
    table = profile(profiler, levels)
    assert len(table.samples) == 1 + len(EVEN) + RANDOM


def test_the_table_of_a_machine_that_rounds_widths_up_is_right(
    dependencies: Dependencies, levels: list[list[Level]], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine().install(monkeypatch, dependencies)
    profiler = Profiler(dependencies, {}, 8)
    assert profile(profiler, levels).error < 0.05  # the planted costs are among the terms, but for floating point
    assert profiler.dense_ms == pytest.approx(machine.time(dependencies.model))


def test_the_shares_of_the_regions_add_up_to_the_time_without_the_profiler(
    dependencies: Dependencies, monkeypatch: pytest.MonkeyPatch
) -> None:
    Machine(lies=1.0).install(monkeypatch, dependencies)
    profiler = Profiler(dependencies, {}, 8)
    found = profiler.sample(np.zeros(0, np.int64), speedup=2.0)
    assert found.ms.sum() == pytest.approx(profiler.dense_ms / 2)


def test_runs_alternate_and_the_second_counts_by_its_ratio() -> None:
    order: list[str] = []
    usual, other = alternate(lambda: order.append("a"), lambda: order.append("b"))
    assert order == ["a", "b"] * (len(order) // 2) and usual > 0 and other > 0
