"""Meet a target in time: plan on measured costs, time the whole model, correct the costs, and plan again."""

from onnxprune.fit.answer import NEAR, Fitted, Trial
from onnxprune.fit.search import TRIALS, fit, meet

__all__ = ["NEAR", "TRIALS", "Fitted", "Trial", "fit", "meet"]
