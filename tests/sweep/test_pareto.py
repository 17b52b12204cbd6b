"""The law of the front, against brute force."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from onnxprune.sweep.pareto import front

VALUE = st.one_of(st.none(), st.integers(-3, 3).map(float))
POINTS = st.integers(1, 3).flatmap(lambda n: st.lists(st.tuples(*[VALUE] * n), min_size=1, max_size=12))


def worse(a: float | None, b: float | None) -> bool:
    """Whether a is worse than b."""
    return b is not None and (a is None or a < b)


@given(POINTS)
def test_a_point_is_on_the_front_exactly_if_none_dominates_it(points: list[tuple[float | None, ...]]) -> None:
    for point, on in zip(points, front(points), strict=True):
        beaten = False
        for other in points:
            somewhere = any(worse(a, b) for a, b in zip(point, other, strict=True))
            nowhere = not any(worse(b, a) for a, b in zip(point, other, strict=True))
            beaten = beaten or (somewhere and nowhere)
        assert on == (not beaten)


@given(POINTS)
def test_a_front_is_never_empty_and_is_its_own_front(points: list[tuple[float | None, ...]]) -> None:
    best = [point for point, on in zip(points, front(points), strict=True) if on]
    assert best and all(front(best))
