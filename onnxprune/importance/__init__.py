"""Importance of units. One criterion is one function in the registry; larger scores are kept."""

from onnxprune.importance.activations import (
    activation_l1,
    activation_l2,
    activation_mean,
    activation_std,
    activation_variance,
    apoz,
)
from onnxprune.importance.contributions import lasso, thinet
from onnxprune.importance.fluctuation import flap
from onnxprune.importance.gradients import hessian, load_gradients, taylor
from onnxprune.importance.norms import l1, l2
from onnxprune.importance.reconstruction import reconstruction
from onnxprune.importance.registry import CRITERIA, Criterion, Evidence, Scores, criterion_of, score
from onnxprune.importance.shares import kept_share

__all__ = [
    "CRITERIA",
    "Criterion",
    "Evidence",
    "Scores",
    "activation_l1",
    "activation_l2",
    "activation_mean",
    "activation_std",
    "activation_variance",
    "apoz",
    "criterion_of",
    "flap",
    "hessian",
    "kept_share",
    "l1",
    "l2",
    "lasso",
    "load_gradients",
    "reconstruction",
    "score",
    "taylor",
    "thinet",
]
