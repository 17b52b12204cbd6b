"""The report as one HTML file that needs nothing else."""

from onnxprune.report.html.page import curves_html, front_html, require, to_html

__all__ = ["curves_html", "front_html", "require", "to_html"]
