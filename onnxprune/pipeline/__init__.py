"""The order of the stages: plan, carry out, measure."""

from onnxprune.pipeline.inputs import read_samples, sample, time_pair, timing_feeds
from onnxprune.pipeline.options import DEFAULT_RATIO, Options, Pruned, Receiver
from onnxprune.pipeline.plans import plan_aligned
from onnxprune.pipeline.run import apply, carry_out, prepare, prune
from onnxprune.pipeline.widths import profile

__all__ = [
    "DEFAULT_RATIO",
    "Options",
    "Pruned",
    "Receiver",
    "apply",
    "carry_out",
    "plan_aligned",
    "prepare",
    "profile",
    "prune",
    "read_samples",
    "sample",
    "time_pair",
    "timing_feeds",
]
