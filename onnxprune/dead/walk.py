"""Carry ranges through a graph from front to back. Law: what no function describes may hold anything.

A graph's inputs may hold any finite number. So may what a function does not say, once what it reads is finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx

from onnxprune.dead import contraction, moves, pointwise, statistics
from onnxprune.dead.ranges import Range, exactly, unbounded
from onnxprune.dead.site import RANGES, Site, understood
from onnxprune.errors import debugging
from onnxprune.graph import subgraphs
from onnxprune.labels import Ties
from onnxprune.model import Shape, is_float
from onnxprune.rules import CannotTrace, Op
from onnxprune.rules.records import Records
from onnxprune.trace import Dependencies

EPS = {"float64": 2.2e-16, "float32": 1.2e-7, "float16": 9.8e-4, "bfloat16": 7.9e-3}
LARGE = 2**20  # bounds of one tensor; beyond that, axes without labels are not told apart
DEEPEST = 32  # axes; numpy has a limit of its own, and no operator needs as many
FAMILIES = (contraction, moves, pointwise, statistics)  # importing them fills the table


def precision(dependencies: Dependencies) -> float:
    """Relative rounding of the least precise type among a model's weights."""
    kinds = {w.dtype.name for w in dependencies.model.weights.values() if is_float(w)}
    return max((EPS.get(kind, EPS["bfloat16"]) for kind in kinds), default=EPS["float32"])


@dataclass(eq=False)
class Walk:
    """The ranges of all tensors; `site` gives a node with those of its inputs.

    Attributes:
        dependencies: The traced model.
        eps: See `precision`.
        known: Tensor -> range.
    """

    dependencies: Dependencies
    eps: float = 0.0
    known: dict[str, Range] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.eps = precision(self.dependencies)
        for info in self.dependencies.model.inputs:
            self.known[info.name] = self.fitted(info.name, unbounded())
        for node in self.dependencies.model.proto.graph.node:
            self.visit(node)

    def find(self, name: str) -> Range:
        """The range of a tensor the graph has written, or of an initializer."""
        if name not in self.known:
            weight = self.dependencies.model.weights.get(name)
            numbers = weight is not None and (weight.dtype.kind in "fiub" or is_float(weight))
            self.known[name] = exactly(weight) if weight is not None and numbers else unbounded(False)
        return self.known[name]

    def site(self, node: onnx.NodeProto) -> Site:
        """A node with the ranges of its inputs."""
        op = Op(node, self.dependencies.model, Ties(), Records(), self.dependencies.labels.get)
        return Site(node, op, [self.find(name) if name else None for name in node.input], self.eps)

    def visit(self, node: onnx.NodeProto) -> None:
        """Carry ranges through one node."""
        site = self.site(node)
        found: Sequence[Range] = []
        try:
            if self.described(node):
                found = RANGES[node.op_type](site)
        except CannotTrace:
            pass
        except Exception:  # fail closed: a form that a function does not foresee tells nothing
            if debugging():
                raise
        for j, name in enumerate(node.output):
            if name:
                self.known[name] = self.fitted(name, found[j] if j < len(found) else unbounded(False))

    def described(self, node: onnx.NodeProto) -> bool:
        """Whether a function carries ranges through this node, all of whose inputs are of known rank."""
        shapes, weights = self.dependencies.model.shapes, self.dependencies.model.weights
        ranked = all(shapes.get(name) is not None or name in weights for name in node.input if name)
        return ranked and understood(node) and node.op_type in RANGES and not any(subgraphs(node))

    def fitted(self, name: str, x: Range) -> Range:
        """A range that broadcasts to its tensor; one that does not tells nothing."""
        shape = self.dependencies.model.shapes.get(name)
        if shape is None or len(shape) > DEEPEST:
            return unbounded(bool(x.finite.all()))
        if x.low.ndim > len(shape) or not x.low.size:
            x = unbounded(False)
        x = x.lifted(len(shape))
        if not all(n in (1, d) for n, d in zip(x.shape, shape, strict=True)):
            x = unbounded(False).lifted(len(shape))
        return self.small(name, shape, x)

    def small(self, name: str, shape: Shape, x: Range) -> Range:
        """A range with few enough bounds; what is stored stays whole, for that is a view."""
        if x.low.size <= LARGE or x.high is x.low:
            return x
        axes = self.dependencies.labels.get(name)
        x = x.over([k for k in range(len(shape)) if axes is None or axes[k].ids is None])
        return x if x.low.size <= LARGE else x.over(range(len(shape)))
