"""The report as one HTML file that needs nothing else."""

from onnxprune.report.html.page import front_html, require, to_html

__all__ = ["front_html", "require", "to_html"]
