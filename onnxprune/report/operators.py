"""The table of supported operators. Law: it is read from the registry, so it cannot promise what has no rule."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.report.markdown import escaped, row
from onnxprune.rules import RULES


@dataclass(frozen=True)
class Operator:
    """One operator with a rule: the domain ('ai.onnx' for the default), name, family, and its rule in one line."""

    domain: str
    operator: str
    family: str
    summary: str


def ops_rows() -> list[Operator]:
    """All of them, by family, domain and name."""
    found = [Operator(d or "ai.onnx", name, rule.family, rule.summary) for (d, name), rule in RULES.items()]
    return sorted(found, key=lambda o: (o.family, o.domain != "ai.onnx", o.domain, o.operator))


def ops_markdown() -> str:
    """The same as a Markdown table."""
    lines = [row("domain", "operator", "family", "how labels pass"), row("---", "---", "---", "---")]
    lines += [row(*(escaped(cell) for cell in (o.domain, o.operator, o.family, o.summary))) for o in ops_rows()]
    return "\n".join(lines)
