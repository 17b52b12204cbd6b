"""Find which channels depend on which. Law: what no rule describes freezes, with the node and the reason.

`tracer` labels every index of every axis and lets each node's rule move and tie the labels; `units` solves the ties and
reads off what goes together; `dependencies` is what the later stages see of it.
"""

from onnxprune.trace.dependencies import Dependencies, Family, Group, Mask, Source
from onnxprune.trace.tracer import Tracer, trace
from onnxprune.trace.units import main_reason

__all__ = ["Dependencies", "Family", "Group", "Mask", "Source", "Tracer", "main_reason", "trace"]
