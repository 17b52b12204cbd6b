"""Choose what to remove. The only place that chooses."""

from onnxprune.plan.choose import Limits, Target, plan
from onnxprune.plan.document import GroupPlan, Plan, fingerprint

__all__ = ["GroupPlan", "Limits", "Plan", "Target", "fingerprint", "plan"]
