"""How long work reports on itself. Law: an observer only listens; what it is told changes nothing."""

from __future__ import annotations

from collections.abc import Callable

Observer = Callable[[str, float], None]  # the name of a stage, and the share of it that is done


def silent(stage: str, done: float) -> None:
    """An observer that says nothing."""
