"""Importance of units. One criterion is one function in the registry; larger scores are kept."""

from onnxprune.importance.activations import (
    activation_l1,
    activation_l2,
    activation_mean,
    activation_std,
    activation_variance,
    apoz,
)
from onnxprune.importance.batchnorm import bn_scale
from onnxprune.importance.contributions import lasso, thinet
from onnxprune.importance.controls import largest, random
from onnxprune.importance.coupled import group_norm
from onnxprune.importance.fluctuation import flap
from onnxprune.importance.geometry import fpgm
from onnxprune.importance.gradients import hessian, load_gradients, taylor
from onnxprune.importance.greedy import l1_greedy
from onnxprune.importance.norms import l1, l2
from onnxprune.importance.projection import l1_projection
from onnxprune.importance.reconstruction import reconstruction
from onnxprune.importance.registry import CRITERIA, NOTHING, Criterion, Evidence, Scores, criterion_of, score
from onnxprune.importance.shares import kept_share

__all__ = [
    "CRITERIA",
    "NOTHING",
    "Criterion",
    "Evidence",
    "Scores",
    "activation_l1",
    "activation_l2",
    "activation_mean",
    "activation_std",
    "activation_variance",
    "apoz",
    "bn_scale",
    "criterion_of",
    "flap",
    "fpgm",
    "group_norm",
    "hessian",
    "kept_share",
    "l1",
    "l1_greedy",
    "l1_projection",
    "l2",
    "largest",
    "lasso",
    "load_gradients",
    "random",
    "reconstruction",
    "score",
    "taylor",
    "thinet",
]
