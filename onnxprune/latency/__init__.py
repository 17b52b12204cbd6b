"""What widths cost in time: the work of each kernel as products of widths, and a table fitted to measured times."""

from onnxprune.latency.regions import Regions, regions_of, whole_region
from onnxprune.latency.table import Table, fit_table
from onnxprune.latency.terms import Price, Terms, terms_of

__all__ = ["Price", "Regions", "Table", "Terms", "fit_table", "regions_of", "terms_of", "whole_region"]
