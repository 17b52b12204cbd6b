"""Graphs inside nodes: bodies, functions, sequences. Law: each form is replaced only by one that computes the same."""

from onnxprune.nested.functions import inline_functions
from onnxprune.nested.names import Names
from onnxprune.nested.scope import lift_weights
from onnxprune.nested.sequences import Sequences
from onnxprune.nested.unroll import branch, turns, unrolled

__all__ = ["Names", "Sequences", "branch", "inline_functions", "lift_weights", "turns", "unrolled"]
