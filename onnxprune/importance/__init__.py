"""Importance of units. One criterion is one function in the registry; larger scores are kept."""

from onnxprune.importance.criteria import CRITERIA, Scores, score
from onnxprune.importance.reconstruction import RECONSTRUCTION, reconstruction
from onnxprune.importance.shares import kept_share

CALIBRATED = {RECONSTRUCTION: reconstruction}  # criteria that need samples

__all__ = ["CALIBRATED", "CRITERIA", "RECONSTRUCTION", "Scores", "kept_share", "reconstruction", "score"]
