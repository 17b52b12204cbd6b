"""The only door to onnxruntime: sessions, running, inner tensors, made-up inputs, the machine."""

from onnxprune.runtime.accelerators import assigned, trivial
from onnxprune.runtime.execute import bound_runner, capture, leaves, optimised_ops, run, runner, signature
from onnxprune.runtime.feeds import random_feeds
from onnxprune.runtime.kernels import Kernel, Profiled
from onnxprune.runtime.machine import clocks, device, environment
from onnxprune.runtime.precision import half
from onnxprune.runtime.sessions import CPU, Feeds, Session, Source, Weighted, provider_name, session, store

__all__ = [
    "CPU",
    "Feeds",
    "Kernel",
    "Profiled",
    "Session",
    "Source",
    "Weighted",
    "assigned",
    "bound_runner",
    "capture",
    "clocks",
    "device",
    "environment",
    "half",
    "leaves",
    "optimised_ops",
    "provider_name",
    "random_feeds",
    "run",
    "runner",
    "session",
    "signature",
    "store",
    "trivial",
]
