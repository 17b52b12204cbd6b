"""Both networks on their way, side by side. Law: a layer sees what the refitted layers before it really give.

Inputs come from the pruned network, with all layers before it refitted, targets from the dense one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx

from onnxprune.calibrate import Anchor, Walk, anchor_of, readers_of
from onnxprune.calibrate.moments import Floats, Moments
from onnxprune.model import Array, Model
from onnxprune.recover.answer import Layer
from onnxprune.recover.bias import Place, attach
from onnxprune.recover.registry import Task
from onnxprune.rewrite import take

HELD = 4  # one batch in so many is held out
NEAR = 1e-8  # of the spread: a squared error below this is rounding
ROOM = 2**28  # bytes that Gram matrices may take however little memory activations are given
FLAT = 1e-3  # slopes below this share of the largest carry nothing back
HARM = "no change lowers its held-out error"
Values = tuple[dict[str, Array], dict[str, Array]]


class Recovery:
    """The state of one recovery.

    Attributes:
        dependencies: The traced dense model.
        room: Bytes that the moments of one layer may take.
        pruned: The pruned network on its way; its weights change.
        dense: The dense one on its way.
        readers: Who reads the pruned network's tensors.
        changed: Outputs of the layers that have been given new weights.
        rng: Draws sites.
    """

    def __init__(self, task: Task) -> None:
        self.dependencies, self.room = task.dependencies, max(task.memory, ROOM)
        self.keep = task.dependencies.keep(np.asarray(task.removed, dtype=np.int64))
        proto = onnx.ModelProto()
        proto.CopyFrom(task.pruned.proto)  # layers without a bias get one
        pruned, how = replace(task.pruned, proto=proto), {"threads": task.threads, "memory": task.memory // 2}
        self.pruned = Walk(pruned, task.batches, **how)
        self.dense = Walk(task.dependencies.model, task.batches, **how)
        self.readers = readers_of(pruned)
        self.changed: set[str] = set()
        self.rng = np.random.default_rng(task.seed)

    @property
    def view(self) -> Model:
        """The pruned model with the dense one's shapes, which are known; ranks are what they were."""
        return replace(self.pruned.model, shapes=self.dependencies.model.shapes)

    def anchor(self, output: str, channels: int, axis: int) -> Anchor:
        """Where an output is judged; slopes that carry next to nothing are 0."""
        found = anchor_of(output, channels, axis, self.view, self.readers)
        slope = np.where(np.abs(found.slope) > FLAT * np.abs(found.slope).max(), found.slope, 0.0)
        return replace(found, slope=slope)

    def values(self, at: int, output: str, mine: Sequence[str], dense: Sequence[str]) -> Iterator[Values]:
        """Per batch: named tensors of the pruned network, which stands at node `at`, and of the dense one.

        Args:
            at: The node whose weights are about to change.
            output: What it computes.
            mine: Tensors of the pruned network.
            dense: Tensors of the dense one.
        """
        pruned = self.pruned.values(at, list(dict.fromkeys(mine)))
        other = self.dense.values(self.dense.made[output], list(dict.fromkeys(dense)))
        yield from zip(pruned, other, strict=True)

    def kept(self, name: str, array: Array) -> Array:
        """The part of a dense tensor that the pruned network still has."""
        axes = self.dependencies.labels.get(name)
        return array if axes is None else take(array, axes, self.keep)

    def write(self, node: onnx.NodeProto, weights: Mapping[str, Array], place: Place | None) -> None:
        """Give a layer new weights, among them the vector that `place` stands for."""
        if place is not None:
            attach(node, place, self.pruned.model.proto.graph)
            self.readers.setdefault(place.tensor, [node])
        self.pruned.change(weights)
        self.changed.add(node.output[0])


Visit = Callable[[Recovery, int, onnx.NodeProto], Layer | None]


def front_to_back(task: Task, visit: Visit) -> tuple[Model, list[Layer]]:
    """Visit every node of the pruned network that the dense one has, too, and give what became of the layers."""
    state, layers = Recovery(task), []
    for at, node in enumerate(state.pruned.nodes):
        task.observe("recover", at / len(state.pruned.nodes))
        if node.output and node.output[0] in state.dense.made and (found := visit(state, at, node)) is not None:
            layers.append(found)
    return state.pruned.model, layers


def inverse(slope: Floats) -> Floats:
    """What a difference at the anchor comes to in the layer's own scale; 0 where the slope is."""
    return np.asarray(np.divide(1.0, slope, out=np.zeros_like(slope), where=slope != 0))


def relative(error: float, moments: Moments) -> float | None:
    """Root of a squared error, relative to the spread of the target; None where that is constant."""
    spread = float(moments.spread.sum())
    return float(np.sqrt(max(error, 0.0) / spread)) if spread > 0 else None


def unchanged(weight: Floats, fit: Moments, held: Moments) -> bool:
    """Whether what is missing is rounding: then the layer's inputs are what they were."""
    missing = float((weight * (fit.energy + held.energy)).sum())
    return missing <= NEAR * float(fit.spread.sum() + held.spread.sum())
