"""Laws of the width step: read a staircase right, claim none where there is none, never fail for want of a cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from onnxprune import align, runtime

WIDTHS = tuple(sorted(32 + w for w in (*range(4, 97, 4), *align.BETWEEN)))


def stairs(step: int, *, off_layout: float = 1.0, cache: float = 0.0, seed: int | None = None) -> tuple[float, ...]:
    """Times of a machine that rounds widths up to `step`.

    Args:
        step: Its block.
        off_layout: Factor for a width that is no multiple of 4, which leaves the fast layout.
        cache: How much dearer the widest is per channel than the narrowest.
        seed: Of 1% noise; none without.
    """
    c = np.asarray(WIDTHS, float)
    blocks = np.ceil(c / step) * step
    t = 0.05 + 0.01 * blocks * (1 + cache * blocks / 128) * np.where(c % 4, off_layout, 1)
    noise = 1.0 if seed is None else np.exp(np.abs(np.random.default_rng(seed).normal(0, 0.01, c.size)))
    return tuple((t * noise).tolist())


@pytest.mark.parametrize("step", [1, 4, 8, 16, 32])
@pytest.mark.parametrize("cache", [0.0, 0.5])
def test_the_step_of_a_clean_staircase_is_found(step: int, cache: float) -> None:
    assert align.infer(WIDTHS, stairs(step, cache=cache)) == step


@pytest.mark.parametrize("step", [8, 16])
def test_leaving_the_fast_layout_does_not_hide_the_step(step: int) -> None:
    assert align.infer(WIDTHS, stairs(step, off_layout=1.25)) == step


@pytest.mark.parametrize("step", [1, 8, 16, 32])
def test_noise_of_one_percent_does_not_change_the_answer(step: int) -> None:
    assert {align.infer(WIDTHS, stairs(step, seed=s)) for s in range(50)} == {step}


def test_order_and_scale_do_not_matter() -> None:
    order = np.random.default_rng(0).permutation(len(WIDTHS))
    times = stairs(16, seed=1)
    assert align.infer([WIDTHS[i] for i in order], [1e3 * times[i] for i in order]) == 16


@pytest.mark.parametrize("times", [np.full(len(WIDTHS), 2.0), np.linspace(3, 1, len(WIDTHS))])
def test_times_that_do_not_grow_with_width_reward_no_step(times: np.ndarray) -> None:
    assert align.infer(WIDTHS, times.tolist()) == 1


def test_slope_allows_each_group_its_own_level() -> None:
    x, group = np.arange(6.0), np.array([0.0, 0, 0, 1, 1, 1])
    assert align.slope(x, 2 * x + 100 * group, group) == pytest.approx(2)
    assert align.slope(x, x, x) == 0  # nothing to compare inside a group of one


def machine(times: Sequence[float]) -> tuple[dict[int, Callable[[], object]], Callable[[], float], list[int]]:
    """Runners on a clock that only they move."""
    now, log = [0.0], list[int]()

    def runner(width: int, seconds: float) -> Callable[[], object]:
        def run() -> None:
            now[0] += seconds
            log.append(width)

        return run

    return {w: runner(w, t) for w, t in zip(WIDTHS, times, strict=True)}, lambda: now[0], log


def test_rounds_take_every_width_once_in_shuffled_order() -> None:
    runners, clock, log = machine([t / 100 for t in stairs(16)])
    times = align.interleave(runners, clock=clock)
    count = len(times[WIDTHS[0]])
    assert count >= align.MIN_ROUNDS and {len(t) for t in times.values()} == {count}
    visits = [log[i : i + 3 * len(WIDTHS) : 3] for i in range(0, len(log), 3 * len(WIDTHS))]
    assert all(sorted(visit) == list(WIDTHS) for visit in visits) and visits[0] != visits[1]
    assert times[WIDTHS[0]] == pytest.approx([stairs(16)[0] / 100] * count)


def rounds_of(*steps: int) -> dict[int, list[float]]:
    """One round after another, each as a machine of that step would give it."""
    return {w: [stairs(s)[i] for s in steps] for i, w in enumerate(WIDTHS)}


def test_halves_that_disagree_are_noticed() -> None:
    assert align.agree(rounds_of(16, 16, 16, 16)) and not align.agree(rounds_of(16, 1, 16, 1))


def test_a_busy_machine_is_timed_again_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    for turns, wanted in (([(16, 1, 16, 1), (16,) * 20], 2), ([(16, 1)] * 9, align.ATTEMPTS)):
        left = iter(turns)
        monkeypatch.setattr(align, "interleave", lambda runners, seed, left=left: rounds_of(*next(left)))
        rounds = align.settle(dict.fromkeys(WIDTHS, lambda: None))
        assert len(rounds[WIDTHS[0]]) == sum(map(len, turns[:wanted]))


def test_the_convolutions_are_what_is_claimed() -> None:
    made = align.pair(40, 64, 28)
    result = runtime.capture(made, runtime.random_feeds(made), ["h", "y"])
    assert result["h"].shape == (1, 40, 28, 28) and result["y"].shape == (1, 64, 28, 28)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, int]]:
    """A made-up machine of step 8, a cache folder of its own, and a log of the times it was measured."""
    calls: list[tuple[str, int]] = []

    def staircase(*, provider: str, threads: int) -> dict[int, list[float]]:
        calls.append((provider, threads))
        return rounds_of(8, 8)

    monkeypatch.setattr(align, "staircase", staircase)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return calls


def test_an_answer_is_remembered_by_provider_and_threads(measured: list[tuple[str, int]]) -> None:
    first, again, other = align.width_step(), align.width_step(provider="CPU"), align.width_step(threads=2)
    assert (first.step, first.source, again.source, other.source) == (8, "measured", "cache", "measured")
    assert (again.step, again.widths, again.times_ms) == (first.step, first.widths, first.times_ms)
    assert measured == [("cpu", 1), ("cpu", 2)]


@pytest.mark.parametrize("fact", ["cpu", "simd", "onnxruntime"])
def test_another_machine_or_runtime_is_measured_anew(
    fact: str, measured: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    align.width_step()
    facts = runtime.environment() | {fact: "another"}
    monkeypatch.setattr(runtime, "environment", lambda: facts)
    assert align.width_step().source == "measured"


def test_the_load_of_the_moment_is_no_part_of_the_key(
    measured: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    align.width_step()
    facts = runtime.environment() | {"load": 99.0}
    monkeypatch.setattr(runtime, "environment", lambda: facts)
    assert align.width_step().source == "cache"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"step": 7, "widths": [], "times_ms": []}', '{"step": 8}', "\x00"])
def test_a_damaged_cache_is_measured_again_and_mended(
    content: str, measured: list[tuple[str, int]], tmp_path: Path
) -> None:
    align.width_step()
    (path,) = (tmp_path / "cache" / "onnxprune").iterdir()
    path.write_text(content)
    assert align.width_step().source == "measured" and align.width_step().source == "cache"


def test_an_unwritable_cache_is_no_error(measured: list[tuple[str, int]], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert [align.width_step().source for _ in range(2)] == ["measured", "measured"]


def test_without_a_home_folder_there_is_no_cache(
    measured: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert align.width_step().source == "measured"


def test_cache_off_neither_reads_nor_writes(measured: list[tuple[str, int]], tmp_path: Path) -> None:
    align.width_step(cache=False)
    assert not (tmp_path / "cache").exists()
    align.width_step()
    assert align.width_step(cache=False).source == "measured"


def test_an_unsure_answer_is_not_remembered(
    measured: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(align, "staircase", lambda **_: rounds_of(16, 1))
    align.width_step()
    assert not (tmp_path / "cache").exists()


def test_the_file_says_what_it_was_measured_on(measured: list[tuple[str, int]], tmp_path: Path) -> None:
    align.width_step()
    (path,) = (tmp_path / "cache" / "onnxprune").iterdir()
    assert json.loads(path.read_text())["key"] == align.key("cpu", 1)


def test_this_machine_gives_one_of_the_candidates() -> None:
    found = align.width_step(cache=False)
    assert found.step in (1, *align.STEPS) and found.source == "measured"
    assert found.widths == WIDTHS and min(found.times_ms) > 0
