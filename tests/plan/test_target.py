"""Law of targets: one at a time, and only possible values."""

from __future__ import annotations

import math

import pytest

from onnxprune.errors import PlanError
from onnxprune.plan import Target


@pytest.mark.parametrize("name", ["ratio", "macs", "params", "threshold"])
@pytest.mark.parametrize("value", [0, 1, -0.1, 1.5, math.nan, math.inf])
def test_shares_lie_between_0_and_1(name: str, value: float) -> None:
    with pytest.raises(PlanError, match=f"--{name} .* is outside"):
        Target(**{name: value})


@pytest.mark.parametrize("value", [1, 0.5, 0, -2, math.nan, math.inf])
def test_a_speedup_is_above_1(value: float) -> None:
    with pytest.raises(PlanError, match=r"--speedup .* is not above 1; e\.g\."):
        Target(speedup=value)


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
def test_a_latency_is_a_time(value: float) -> None:
    with pytest.raises(PlanError, match=r"--latency-ms .* is not a time"):
        Target(latency_ms=value)


def test_two_targets_contradict_each_other() -> None:
    with pytest.raises(PlanError, match="--speedup and --latency-ms contradict"):
        Target(speedup=2, latency_ms=3)
    with pytest.raises(PlanError, match="--macs and --speedup contradict"):
        Target(macs=0.5, speedup=2)


def test_only_times_are_timed() -> None:
    assert Target(speedup=2).timed and Target(latency_ms=1).timed
    assert not Target(threshold=0.1).timed
    assert not (Target().timed or Target(ratio=0.3).timed or Target(macs=0.5).timed or Target(params=0.5).timed)
