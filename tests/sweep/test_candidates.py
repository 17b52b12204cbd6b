"""Laws of what is tried: ranges read as people read them, and nothing else is accepted."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.errors import PlanError
from onnxprune.sweep import candidates, numbers


def test_a_range_includes_both_ends_in_spite_of_binary_rounding() -> None:
    assert numbers("0.1:0.9:0.1") == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    assert numbers("0.1:0.3:0.1,0.5, 0.3") == (0.1, 0.2, 0.3, 0.5)
    assert numbers("1.5,2,3") == (1.5, 2.0, 3.0) and numbers("0.2:0.5:0.2") == (0.2, 0.4)


@given(first=st.integers(1, 500), steps=st.integers(0, 200), step=st.integers(1, 50), places=st.integers(0, 4))
def test_a_range_is_the_decimal_numbers_it_says(first: int, steps: int, step: int, places: int) -> None:
    unit = Decimal(1).scaleb(-places)
    expected = [(first + i * step) * unit for i in range(steps + 1)]
    assert numbers(f"{expected[0]}:{expected[-1]}:{step * unit}") == tuple(map(float, expected))


@pytest.mark.parametrize(
    "text", ["", "half", "0.1:0.9", "0.1:0.9:0", "0.1:0.9:-0.1", "0.9:0.1:0.1", "nan", "inf", "0.1,,0.2", "0:1:1e-9"]
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"neither a number|nothing in it|more than"):
        numbers(text)


def test_candidates_are_named_by_their_target_and_none_comes_twice() -> None:
    found = candidates({"ratio": (0.3, 0.5, 0.3), "macs": (0.5,)})
    assert [c.label for c in found] == ["ratio-0.3", "ratio-0.5", "macs-0.5"]
    assert [c.text for c in found] == ["--ratio 0.3", "--ratio 0.5", "--macs 0.5"]
    assert not any(c.timed for c in found)


def test_targets_that_cannot_be_planned_for_are_refused() -> None:
    with pytest.raises(PlanError, match="outside"):
        candidates({"ratio": (1.5,)})
    with pytest.raises(PlanError, match="not above 1"):
        candidates({"speedup": (0.5,)})
