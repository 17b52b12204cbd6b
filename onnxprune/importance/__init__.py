"""Importance of units. One criterion is one function in the registry; larger scores are kept."""

from onnxprune.importance.criteria import CRITERIA, Scores, score
from onnxprune.importance.shares import kept_share

__all__ = ["CRITERIA", "Scores", "kept_share", "score"]
