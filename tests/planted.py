"""A made-up machine: what a model costs is computed from its shapes, so tests of timing need no clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from onnxprune.bench import Comparison
from onnxprune.model import Model
from onnxprune.runtime import Kernel
from onnxprune.trace import Dependencies

measure = import_module("onnxprune.profile.measure")
fitting = import_module("onnxprune.fit.search")


@dataclass
class Machine:
    """Rounds the channels of every layer up to a step.

    Attributes:
        step: Of the kernels.
        constant: Time of everything else, ms.
        noise: Standard deviation of the logarithm of every time.
        lies: Speedups are truly so many times what the profiler says; 1: it tells the truth.
        narrow: Layers of fewer than two steps on a side take so many times as long.
        position: Milliseconds per set of channels and output position.
    """

    step: int = 8
    constant: float = 0.05
    noise: float = 0.0
    lies: float = 1.0
    narrow: float = 1.0
    position: float = 1e-3
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.sizes: Mapping[str, int] = {}

    def layers(self, model: Model) -> dict[str, float]:
        """Milliseconds of every layer, by the tensor it computes."""
        found = {}
        for node in model.proto.graph.node:
            if node.op_type not in ("Conv", "Gemm", "MatMul"):
                continue
            shape = model.weights[node.input[1]].shape
            groups = next((a.i for a in node.attribute if a.name == "group"), 1)
            one, two = (math.ceil(n / self.step) for n in (shape[0] / groups, shape[1]))
            taps = math.prod(shape[2:]) * self.sizes.get(node.output[0], 1)
            odd = self.narrow if min(one, two) < 2 <= max(one, two) else 1.0
            found[node.output[0]] = self.position * groups * one * two * taps * odd
        return found

    def time(self, model: Model) -> float:
        """Milliseconds of a model."""
        true = self.constant + sum(self.layers(model).values())
        return true * math.exp(self.noise * float(self.rng.normal()))

    def kernels(self, model: Model) -> list[Kernel]:
        """What a profiler would say."""
        self.log.append("kernels")
        parts = [("", self.constant), *self.layers(model).items()]
        return [Kernel(name, "Conv", name, (ms,), (), (), "CPUExecutionProvider") for name, ms in parts]

    def alternate(self, first: Callable[[], float], second: Callable[[], float]) -> tuple[float, float]:
        """Two models in turn."""
        return first(), second()

    def bench(self, before: Model, after: Model, *, budget_s: float = 1.0, **_: Any) -> Comparison:
        """A benchmark; one that takes longer is less noisy."""
        self.log.append("bench")
        dense, pruned = self.time(before), self.time(after)
        speedup = (dense / pruned) ** (1 / self.lies) if self.lies != 1 else dense / pruned
        pair = (dense, dense / speedup)
        ends = (speedup * 0.99, speedup * 1.01)
        return Comparison(*pair, *pair, speedup, ends, 1.0, (1.0, 1.0), "CPUExecutionProvider", 1, 1, 30, 1)

    def install(self, monkeypatch: pytest.MonkeyPatch, dependencies: Dependencies) -> Machine:
        """Let everything that measures ask this machine."""
        shapes = dependencies.model.shapes
        whole = {name: [d for d in shape[2:] if isinstance(d, int)] for name, shape in shapes.items()}
        self.sizes = {name: math.prod(dims) for name, dims in whole.items()}
        monkeypatch.setattr(measure.Profiler, "runner", lambda _, model: lambda: self.time(model))
        monkeypatch.setattr(measure.Profiler, "kernels", lambda _, model: self.kernels(model))
        monkeypatch.setattr(measure, "alternate", self.alternate)
        monkeypatch.setattr(fitting, "bench", self.bench)
        return self
