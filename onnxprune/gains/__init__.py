"""Where the time goes before and after pruning, and which layers failed to gain and why."""

from onnxprune.gains.layers import Pair, Side, pair_layers
from onnxprune.gains.profiles import Gains, Layer, Operator, explain, judge, profile_files, refuse_elsewhere
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
    "judge",
    "pair_layers",
    "profile_files",
    "reasons",
    "refuse_elsewhere",
]
