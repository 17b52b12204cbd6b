"""Pure rendering: what was found, removed, verified and measured, as JSON, for a terminal, and as Markdown."""

from onnxprune.report.data import SCHEMA, Frozen, GroupReport, Report, make_report

__all__ = ["SCHEMA", "Frozen", "GroupReport", "Report", "make_report"]
