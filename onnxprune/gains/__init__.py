"""Where the time goes before and after pruning, which layers failed to gain and why, and the gate that follows."""

from onnxprune.gains.gate import is_faster, no_speedup
from onnxprune.gains.layers import Pair, Side, pair_layers
from onnxprune.gains.profiles import Gains, Layer, Operator, explain, judge, profile_files
from onnxprune.gains.reasons import Reason, failed, reasons

__all__ = [
    "Gains",
    "Layer",
    "Operator",
    "Pair",
    "Reason",
    "Side",
    "explain",
    "failed",
    "is_faster",
    "judge",
    "no_speedup",
    "pair_layers",
    "profile_files",
    "reasons",
]
