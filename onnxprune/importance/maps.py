"""Which channels of which tensor show what a filter computes. Law: labels say so, whatever lies between.

A filter's feature map is its channel in the output of its node. Its *rectified* map is in the nearest tensor behind
that which a ReLU, or another function that is 0 over a range, gives out; only scaling, shifting, adding, joining and
pooling may lie between.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onnxprune.calibrate import Walk, readers_of
from onnxprune.calibrate.contraction import CONVOLUTIONS
from onnxprune.graph import node_name
from onnxprune.importance.registry import Evidence, Floats
from onnxprune.labels import Ids
from onnxprune.model import Array, Model
from onnxprune.trace import Dependencies, Source

PASSES = frozenset("Add AveragePool BatchNormalization Concat Div Dropout Identity MaxPool Mul Sub Sum".split())
RECTIFIERS = frozenset("Clip HardSigmoid HardSwish Relu Shrink ThresholdedRelu".split())  # exactly 0 over a range
ELEMENTS = 2**22  # of a batch that are looked at in double precision at a time


@dataclass(frozen=True, eq=False)
class Maps:
    """The feature maps of a source's filters.

    Attributes:
        source: The source.
        tensor: Where they are.
        axis: Of the channels.
        channels: The channel of each filter, -1 for none. Shape (filters,).
    """

    source: Source
    tensor: str
    axis: int
    channels: Ids


def maps_of(dependencies: Dependencies, *, rectified: bool = False) -> dict[str, list[Maps]]:
    """Tensor -> the feature maps in it, of every source that has any and can lose a filter; in order of execution."""
    nodes = dependencies.model.proto.graph.node
    by_name = {node_name(node): node for node in reversed(nodes)}
    made = {name: i for i, node in enumerate(nodes) for name in node.output}
    behind, found = Behind(dependencies.model), list[Maps]()
    for source in dependencies.sources:
        node = by_name.get(source.node)
        if node is None or (dependencies.unit[source.ids] < 0).all():
            continue
        tensors = behind.rectified(node.output[0]) if rectified else iter([node.output[0]])
        preferred = 1 if node.op_type in CONVOLUTIONS else -1
        found += [m for t in tensors if (m := located(dependencies, source, t, preferred)) is not None][:1]
    together: dict[str, list[Maps]] = {}
    for maps in sorted(found, key=lambda maps: made[maps.tensor]):
        together.setdefault(maps.tensor, []).append(maps)
    return together


@dataclass(eq=False)
class Behind:
    """What reads what."""

    model: Model

    def __post_init__(self) -> None:
        self.readers = readers_of(self.model)

    def rectified(self, name: str) -> Iterator[str]:
        """Outputs of rectifiers behind a tensor, the nearest first."""
        queue, seen = [name], {name}
        while queue:
            name = queue.pop(0)
            for node in self.readers.get(name, ()):
                if node is None or node.domain not in ("", "ai.onnx") or node.output[0] in seen:
                    continue
                seen.add(node.output[0])
                if node.op_type in RECTIFIERS:
                    yield node.output[0]
                elif node.op_type in PASSES:
                    queue.append(node.output[0])


def located(dependencies: Dependencies, source: Source, tensor: str, preferred: int) -> Maps | None:
    """Where a source's filters are in a tensor of real numbers, by their units; None where they are not."""
    axes, units = dependencies.labels.get(tensor, ()), dependencies.unit[source.ids].ravel()
    for k in sorted(range(len(axes)), key=lambda k: k != preferred % len(axes)):
        ids = axes[k].ids
        if ids is None or ids.ndim > 1:
            continue
        here = dependencies.unit[ids]
        if np.array_equal(here, units):
            return Maps(source, tensor, k, np.arange(units.size))
        if np.isin(units[units >= 0], here).all():
            order = np.argsort(here, kind="stable")
            first = order[np.searchsorted(here[order], units).clip(max=here.size - 1)]
            return Maps(source, tensor, k, np.where(units >= 0, first, -1))
    return None


def observed(
    dependencies: Dependencies, evidence: Evidence, wanted: dict[str, list[Maps]]
) -> Iterator[tuple[list[Maps], Iterator[Floats]]]:
    """Tensor by tensor: the maps in it, and its values in parts. Shapes (samples, channels, positions).

    Samples with a value that is not finite are left out. The parts of a tensor must be taken before the next tensor.
    """
    walk = Walk(dependencies.model, evidence.samples, threads=evidence.threads, memory=evidence.memory)
    for tensor, maps in wanted.items():
        at = walk.made[tensor]
        evidence.observe("score", at / len(walk.nodes))
        yield maps, (part for values in walk.values(at + 1, [tensor]) for part in parts(values[tensor], maps[0].axis))


def parts(values: Array, axis: int) -> Iterator[Floats]:
    """A tensor as feature maps in double precision, some samples at a time. Shapes (samples, channels, positions)."""
    if values.ndim < 2:
        values, axis = values[None], axis + 1
    moved = np.moveaxis(values, axis, 1)
    step = max(1, ELEMENTS // max(1, moved[:1].size))
    for start in range(0, len(moved), step):
        part = moved[start : start + step].astype(np.float64)
        flat = part.reshape(*part.shape[:2], -1)
        yield flat[np.isfinite(flat).all(axis=(1, 2))]
