"""Laws of the benchmark, on synthetic times and a clock of our own: no test looks at the real one."""

from __future__ import annotations

import gc
import importlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from onnxprune.errors import DataError

b = importlib.import_module("onnxprune.bench")  # the package offers the function under the module's name


def samples(ratio: float, *, noise: float = 0.01, drift: float = 0.0, control: float = 1.0, n: int = 60) -> Any:
    """Times of a dense model, itself again (`control` times as fast), and one `ratio` times as fast."""
    rng = np.random.default_rng(7)
    machine = 2.0 * np.exp(np.linspace(0, drift, n))  # what happens to the machine happens to all in a round
    scales = {"before": 1.0, "control": 1 / control, "after": 1 / ratio}
    return b.Samples({k: tuple(s * machine * np.exp(rng.normal(0, noise, n))) for k, s in scales.items()}, inner=3)


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        (1.5, "faster"),
        (1.05, "faster"),
        (0.8, "slower"),
        (1.0, "no significant difference"),
        (1.005, "no significant difference"),
    ],
)
def test_the_verdict_is_the_truth(ratio: float, verdict: str) -> None:
    result = b.compare(samples(ratio))
    assert result.verdict == verdict and result.significant == (verdict != "no significant difference")
    assert result.ci95[0] <= result.speedup <= result.ci95[1]
    assert result.speedup == pytest.approx(ratio, rel=0.01)


def test_a_gain_under_one_percent_is_never_significant_however_sure() -> None:
    result = b.compare(samples(1.008, noise=1e-5))
    assert result.ci95[0] > 1.007 and not result.significant


def test_a_gain_that_two_identical_models_show_as_well_is_not_significant() -> None:
    result = b.compare(samples(1.04, noise=0.001, control=1.06))
    assert not result.significant and not result.control_ok
    assert b.compare(samples(1.04, noise=0.001, control=1 / 1.06)).significant is False
    assert b.compare(samples(1.2, noise=0.001, control=1.06)).verdict == "faster"


def test_pairing_cancels_what_happens_to_the_whole_machine() -> None:
    result = b.compare(samples(1.1, noise=0.005, drift=1.0))
    assert result.speedup == pytest.approx(1.1, rel=0.005) and result.ci95[1] - result.ci95[0] < 0.01


def test_swapping_the_models_turns_the_result_around() -> None:
    one = samples(1.3)
    times = {"before": one.times["after"], "control": one.times["after"], "after": one.times["before"]}
    forth, back = b.compare(one), b.compare(b.Samples(times, 3))
    assert (forth.verdict, back.verdict) == ("faster", "slower")
    assert back.speedup == pytest.approx(1 / forth.speedup, rel=1e-3)


def test_quantiles_are_those_of_the_samples() -> None:
    ramp = tuple(float(i) for i in range(1, 102))
    result = b.compare(b.Samples({"before": ramp, "control": ramp, "after": tuple(2 * t for t in ramp)}, inner=1))
    assert (result.before_ms, result.before_p90_ms, result.after_ms, result.after_p90_ms) == (51, 91, 102, 182)
    assert (result.speedup, result.ci95, result.control, result.control_ci95) == (0.5, (0.5, 0.5), 1, (1, 1))


def test_the_interval_covers_the_true_median_about_95_times_in_100() -> None:
    rng = np.random.default_rng(3)
    hits = [lo <= 1.0 <= hi for lo, hi in (b.interval(np.exp(rng.normal(0, 0.1, 40))) for _ in range(100))]
    assert 88 <= sum(hits) <= 100 and b.interval(np.ones(30)) == (1.0, 1.0)


def test_same_seed_same_interval() -> None:
    ratios = np.random.default_rng(0).normal(1, 0.1, 50)
    assert b.interval(ratios, seed=4) == b.interval(ratios, seed=4) != b.interval(ratios, seed=5)


def test_to_dict_is_json_with_the_raw_samples() -> None:
    made = b.compare(samples(1.2), provider="CPUExecutionProvider", threads=2, batch=4, environment={"cores": 2})
    plain = json.loads(json.dumps(made.to_dict()))
    assert plain["verdict"] == "faster" and plain["significant"] is True and plain["ci95"] == list(made.ci95)
    assert len(plain["samples"]["after"]) == plain["rounds"] == 60
    assert (plain["threads"], plain["batch"], plain["inner"], plain["environment"]) == (2, 4, 3, {"cores": 2})


class Machine:
    """A clock that only our runners move, and a log of who ran."""

    def __init__(self, **seconds: float) -> None:
        self.now, self.log = 0.0, list[str]()
        self.runners: dict[str, Callable[[], object]] = {name: self.runner(name, s) for name, s in seconds.items()}

    def runner(self, name: str, seconds: float) -> Callable[[], object]:
        def run() -> None:
            self.now += seconds
            self.log.append(name)

        return run

    def clock(self) -> float:
        return self.now


def test_measured_times_are_the_runners_own() -> None:
    machine = Machine(before=0.004, control=0.004, after=0.002)
    result = b.measure(machine.runners, clock=machine.clock, budget_s=1.0)
    assert {name: set(np.round(t, 9)) for name, t in result.times.items()} == {
        "before": {4.0}, "control": {4.0}, "after": {2.0},
    }  # fmt: skip


def test_a_sample_lasts_ten_milliseconds_and_rounds_fill_the_budget() -> None:
    machine = Machine(before=1 / 256, control=1 / 256, after=1 / 512)
    result = b.measure(machine.runners, clock=machine.clock, budget_s=60 * 30 / 512)
    assert result.inner == 6  # of the fastest: 6 x 1.95 ms
    assert result.rounds == 60  # at 6 x (2 + 2 + 1) / 512 s a round
    assert {len(t) for t in result.times.values()} == {60}


def test_everyone_is_warm_before_the_first_sample() -> None:
    machine = Machine(before=0.1, control=0.01, after=0.1)
    b.measure(machine.runners, clock=machine.clock, budget_s=0.0)
    warm = machine.log[: machine.log.index("after") + 5]
    assert warm == ["before"] * 5 + ["control"] * 30 + ["after"] * 5


@pytest.mark.parametrize(("seconds", "budget", "rounds"), [(0.01, 0.0, 30), (0.01, 100.0, 400), (5.0, 4.0, 10)])
def test_rounds_have_a_floor_a_ceiling_and_an_end_for_slow_models(seconds: float, budget: float, rounds: int) -> None:
    machine = Machine(before=seconds, after=seconds)
    assert b.measure(machine.runners, clock=machine.clock, budget_s=budget).rounds == rounds


def test_each_round_runs_everyone_once_in_an_order_that_varies_with_round_and_seed() -> None:
    logs = []
    for seed in (0, 0, 1):
        machine = Machine(before=1.0, control=1.0, after=1.0)
        b.measure(machine.runners, seed=seed, clock=machine.clock, budget_s=0.0)
        tail = machine.log[15:]
        rounds = [tuple(tail[i : i + 3]) for i in range(0, len(tail), 3)]
        assert all(set(r) == {"before", "control", "after"} for r in rounds) and len(set(rounds)) == 6
        logs.append(rounds)
    assert logs[0] == logs[1] != logs[2]


def test_progress_rises_to_one() -> None:
    machine, seen = Machine(before=0.01, after=0.01), list[float]()
    b.measure(machine.runners, clock=machine.clock, budget_s=1.0, progress=seen.append)
    assert seen == sorted(seen) and seen[0] == 0 and seen[-1] == 1


def test_the_garbage_collector_rests_while_timing_and_is_given_back() -> None:
    states: list[bool] = []
    machine = Machine(before=0.1)

    def run() -> None:
        machine.now += 0.1
        states.append(gc.isenabled())

    b.measure({"before": run}, clock=machine.clock, budget_s=0.0)
    assert not any(states) and gc.isenabled()


def net(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')


SMALL = "g (float[N, 8] x) => (float[N, 8] y) { y = Relu(x) }"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("g (float[N, 8] z) => (float[N, 8] y) { y = Relu(z) }", r"input 'x': tensor\(float\) \[N, 8\] before, absent"),
        ("g (float[N, 9] x) => (float[N, 9] y) { y = Relu(x) }", r"\[N, 8\] before, tensor\(float\) \[N, 9\] after"),
        ("g (double[N, 8] x) => (double[N, 8] y) { y = Relu(x) }", r"tensor\(double\) \[N, 8\] after"),
    ],
)
def test_models_with_different_inputs_are_not_compared(other: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        b.bench(net(SMALL), net(other))


def test_a_fixed_batch_cannot_be_changed() -> None:
    fixed = net("g (float[1, 8] x) => (float[1, 8] y) { y = Relu(x) }")
    with pytest.raises(DataError, match="batch is fixed at 1, not 4"):
        b.bench(fixed, fixed, batch=4)


def test_bench_times_real_sessions_and_records_how() -> None:
    seen = list[float]()
    result = b.bench(net(SMALL), net(SMALL), batch=3, budget_s=0.01, progress=seen.append)
    assert (result.batch, result.threads, result.provider) == (3, 1, "CPUExecutionProvider")
    assert set(result.samples) == {"before", "control", "after"} and result.rounds >= b.QUICK.slow_rounds
    assert min(min(t) for t in result.samples.values()) > 0 and seen[-1] == 1
    assert result.environment["onnxruntime"]


def test_given_feeds_are_used_as_they_are() -> None:
    result = b.bench(net(SMALL), net(SMALL), feeds={"x": np.zeros((5, 8), np.float32)}, budget_s=0.01)
    assert result.batch == 5
