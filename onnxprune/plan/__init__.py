"""Choose what to remove. The only place that chooses."""

from onnxprune.plan.allocation import Allocation, Sharing, uniform
from onnxprune.plan.document import GroupPlan, Plan, fingerprint
from onnxprune.plan.make import plan
from onnxprune.plan.ranking import across
from onnxprune.plan.target import Limits, Target

__all__ = ["Allocation", "GroupPlan", "Limits", "Plan", "Sharing", "Target", "across", "fingerprint", "plan", "uniform"]
