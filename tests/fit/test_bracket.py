"""Law of the bracket: whatever falls with the aim, up to steps, is hit between a miss on either side."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from onnxprune.fit.bracket import INSIDE, Bracket

NEAR = 0.03


def test_the_first_aim_is_what_was_asked_and_the_next_moves_by_what_was_missed() -> None:
    assert Bracket().aim == 1.0
    assert math.isclose(Bracket().narrowed(1.0, -0.2).aim, 0.8)
    assert math.isclose(Bracket().narrowed(1.0, 0.25).aim, 1.25)
    assert math.isclose(Bracket().narrowed(1.0, -0.2).narrowed(0.8, -0.1).aim, 0.72), "from the last, not the first"


def test_the_aim_lies_between_one_too_fast_and_one_too_slow() -> None:
    both = Bracket().narrowed(1.0, -0.2).narrowed(0.8, 0.3)
    assert 0.8 < both.aim < 1.0 and not both.closed
    assert Bracket().narrowed(1.0, -0.2).narrowed(0.999, 0.3).closed, "nothing is left between these"
    lopsided = Bracket().narrowed(1.0, -1e-9).narrowed(0.5, 0.3)
    assert math.log(lopsided.aim) <= -INSIDE * math.log(2) + 1e-12, "a step keeps away from the ends"


@given(
    power=st.floats(0.5, 2.0),
    offset=st.floats(0.6, 1.6),
    step=st.floats(0.0, 0.04),
)
def test_what_falls_with_the_aim_is_hit(power: float, offset: float, step: float) -> None:
    """Speedups of offset x aim^-power, in steps of at most 4%, which are narrower than the 6% that are near enough."""
    bracket, tried = Bracket(), []
    for _ in range(12):
        speedup = math.log(offset) - power * math.log(bracket.aim)
        excess = math.exp(round(speedup / step) * step if step > 1e-3 else speedup) - 1
        if abs(excess) <= NEAR:
            return
        tried.append((bracket.aim, excess))
        bracket = bracket.narrowed(*tried[-1])
        fast = max((aim for aim, e in tried if e > 0), default=0.0)
        slow = min((aim for aim, e in tried if e < 0), default=math.inf)
        assert fast <= bracket.aim <= slow
    raise AssertionError(f"not hit: {tried}")
