"""Importance of units. One criterion is one function in the registry; larger scores are kept."""

from onnxprune.importance.norms import l1, l2
from onnxprune.importance.reconstruction import reconstruction
from onnxprune.importance.registry import CRITERIA, Criterion, Evidence, Scores, criterion_of, score
from onnxprune.importance.shares import kept_share

__all__ = [
    "CRITERIA",
    "Criterion",
    "Evidence",
    "Scores",
    "criterion_of",
    "kept_share",
    "l1",
    "l2",
    "reconstruction",
    "score",
]
