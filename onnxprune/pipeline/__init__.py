"""The order of the stages: plan, carry out, measure."""

from onnxprune.pipeline.allocate import ALLOCATIONS, check_allocation
from onnxprune.pipeline.curves import Wanted, read_labels
from onnxprune.pipeline.inputs import read_samples, sample, time_pair, timing_feeds
from onnxprune.pipeline.options import DEFAULT_RATIO, Options, Pruned, Receiver
from onnxprune.pipeline.plans import plan_aligned
from onnxprune.pipeline.run import apply, carry_out, prepare, prune
from onnxprune.pipeline.widths import profile, sensitivity

__all__ = [
    "ALLOCATIONS",
    "DEFAULT_RATIO",
    "Options",
    "Pruned",
    "Receiver",
    "Wanted",
    "apply",
    "carry_out",
    "check_allocation",
    "plan_aligned",
    "prepare",
    "profile",
    "prune",
    "read_labels",
    "read_samples",
    "sample",
    "sensitivity",
    "time_pair",
    "timing_feeds",
]
