"""Importance of units. One criterion is one function in the registry; larger scores are kept."""

from onnxprune.importance.criteria import CRITERIA, Scores, score

__all__ = ["CRITERIA", "Scores", "score"]
