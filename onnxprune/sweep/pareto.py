"""The Pareto front. Law: a point is on it exactly if no other is at least as good everywhere and better somewhere."""

from __future__ import annotations

from collections.abc import Sequence


def front(points: Sequence[Sequence[float | None]]) -> list[bool]:
    """Which points are not dominated; every objective is to be maximised.

    Args:
        points: The objectives of each, all of one length; None, unknown, is worse than any number.

    Returns:
        One truth value for each point. Equal points stand or fall together.
    """
    known = [tuple(float("-inf") if v is None else v for v in point) for point in points]
    return [not any(dominates(other, point) for other in known) for point in known]


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether `one` is at least as good everywhere, and better somewhere."""
    return all(a >= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)
