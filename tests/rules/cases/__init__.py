"""Small graphs, at least one for each operator that has a rule. A module for each family adds its cases to `CASES`."""

from __future__ import annotations

from importlib import import_module

from tests.rules.cases.case import CASES, Case, Weight

__all__ = ["CASES", "FAMILIES", "Case", "Weight"]

FAMILIES: dict[str, list[str]] = {}
for _family in (
    *("elementwise", "norm", "quant", "contract", "layout", "reduce", "control", "structures", "through"),
    *("scatter", "vision", "sequence", "signal", "text", "recurrent", "einsum", "attention"),
):
    _known = set(CASES)
    import_module(f"tests.rules.cases.{_family}")
    FAMILIES[_family] = [name for name in CASES if name not in _known]
