"""Refit layers from front to back. Law: a layer is fitted to the dense values on what the pruned network really has.

For every linear layer, inputs come from the pruned network, with all layers before it refitted, and targets from the
dense one, so a layer makes up for what those before it could not (He et al. 2017, arXiv 1707.06168, section 3.2; the
full kernel x channel Gram matrix, as there). Targets are taken where the output meets the shortcut
(`calibrate.anchors`), so that what the shortcut lost is made up for, too. Weights are fitted by ridge regression
(`recover.ridge`); the penalty is chosen on samples that are held out. In front of a ReLU the fit is to what that lets
through (`recover.rectified`). A layer whose held-out error no penalty lowers is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from onnxprune.calibrate import Anchor, Contraction, Moments, Walk, anchor_of, contraction_of, readers_of
from onnxprune.calibrate.moments import COLUMNS, finite
from onnxprune.calibrate.walk import MEMORY
from onnxprune.fidelity import fidelity
from onnxprune.graph import node_name
from onnxprune.model import Array, Model
from onnxprune.progress import Observer, silent
from onnxprune.recover.answer import Layer, Recovered
from onnxprune.recover.bias import Place, attach, place_of
from onnxprune.recover.rectified import Rows, rectified, window_of
from onnxprune.recover.ridge import Update, best_update
from onnxprune.rewrite import take
from onnxprune.runtime import Feeds
from onnxprune.trace import Dependencies, Mask

HELD = 4  # one batch in so many is held out
ROWS = 80  # sites for each input of a layer, if there are so many
FEW = 20_000  # sites at least, if there are so many
NEAR = 1e-8  # of the spread: a squared error below this is rounding
FLAT = 1e-3  # slopes below this share of the largest carry nothing back
WORSE = "weights left as they were: refitted, the outputs were further from the dense model's on samples held out"


class Recovery:
    """The state of one recovery: both networks on their way, side by side."""

    def __init__(
        self,
        dependencies: Dependencies,
        keep: Mask,
        pruned: Model,
        batches: Sequence[Feeds],
        *,
        threads: int,
        memory: int,
        seed: int,
    ) -> None:
        self.dependencies, self.keep = dependencies, keep
        proto = onnx.ModelProto()
        proto.CopyFrom(pruned.proto)  # layers without a bias get one
        pruned = replace(pruned, proto=proto)
        self.pruned = Walk(pruned, batches, threads=threads, memory=memory // 2)
        self.dense = Walk(dependencies.model, batches, threads=threads, memory=memory // 2)
        self.readers = readers_of(pruned)
        self.rng = np.random.default_rng(seed)

    def layer(self, at: int, node: onnx.NodeProto) -> Layer | None:
        """Refit one node; None where it is no linear layer, or its inputs are what they were."""
        found = contraction_of(node, self.pruned.model)
        if isinstance(found, str) or node.output[0] not in self.dense.made:
            return None
        view = replace(self.pruned.model, shapes=self.dependencies.model.shapes)  # ranks are what they were
        anchor = anchor_of(node.output[0], found.channels, found.axis, view, self.readers)
        place = place_of(node, found.channels, view, self.readers)
        if found.columns > COLUMNS:
            return self.untouched(node, anchor, f"{found.columns:,} inputs are too many for a Gram matrix")
        if len(self.readers[node.input[1]]) > 1:
            return self.untouched(node, anchor, "other layers share its weight")
        slope = np.where(np.abs(anchor.slope) > FLAT * np.abs(anchor.slope).max(), anchor.slope, 0.0)
        window = window_of(anchor.tensor, view, self.readers)
        fit, held, rows = self.moments(at, found, replace(anchor, slope=slope), keep=window is not None)
        weight, free = np.square(slope).reshape(fit.energy.shape), place is not None
        if (weight * (fit.energy + held.energy)).sum() <= NEAR * (fit.spread.sum() + held.spread.sum()):
            return None
        update = best_update(fit, held, weight, intercept=free)
        if update is not None and window is not None and rows is not None:
            update = rectified(update, (fit, held), rows, window, slope, intercept=free)
        if update is None:
            error = relative(float((weight * held.energy).sum()), held)
            return Layer(node_name(node), anchor.tensor, error, error, note="no change lowers its held-out error")
        self.apply(found, place, update)
        before, after = relative(update.before, held), relative(update.after, held)
        return Layer(node_name(node), anchor.tensor, before, after, update.ridge)

    def untouched(self, node: onnx.NodeProto, anchor: Anchor, why: str) -> Layer:
        """A layer that cannot be refitted."""
        return Layer(node_name(node), anchor.tensor, None, None, note=why)

    def moments(
        self, at: int, layer: Contraction, anchor: Anchor, *, keep: bool
    ) -> tuple[Moments, Moments, tuple[Rows, Rows] | None]:
        """Moments to fit to and to judge by, and the sites themselves if they are to be kept and not too many."""
        both, share = [Moments.empty(*layer.shape) for _ in range(2)], None
        back = np.divide(1.0, anchor.slope, out=np.zeros_like(anchor.slope), where=anchor.slope != 0)
        rows: tuple[list[Rows], list[Rows]] = ([], [])
        enough = max(FEW, ROWS * layer.columns) * HELD / (HELD - 1)  # of those to fit to
        for b, (x, here, target) in enumerate(self.values(at, layer, anchor)):
            share = share or layer.share(here, len(self.pruned.live), enough)
            sites = layer.sites(here.shape, share, self.rng)
            wanted, found = layer.outputs(target, sites), layer.outputs(here, sites)
            side, inputs = b % HELD == HELD - 1, layer.inputs(x, sites)
            usable = finite(wanted, found, inputs)
            wanted, found, inputs = wanted[usable], found[usable], inputs[usable]
            both[side].add(inputs, (wanted - found) * back, wanted)
            keep = keep and inputs.size * 4 * len(self.pruned.live) <= self.pruned.shelf.memory
            if keep:
                kept = np.ascontiguousarray(inputs.transpose(1, 0, 2), dtype=np.float32)
                rows[side].append(Rows(kept, found, wanted))
        return both[0], both[1], (Rows.joined(rows[0]), Rows.joined(rows[1])) if keep else None

    def values(self, at: int, layer: Contraction, anchor: Anchor) -> Iterator[tuple[Array, Array, Array]]:
        """Per batch: the layer's input and the anchor in the pruned network, and the kept part of the dense anchor."""
        node, axes = layer.node, self.dependencies.labels.get(anchor.tensor)
        pruned = self.pruned.values(at, [node.input[0], anchor.tensor])
        dense = self.dense.values(self.dense.made[node.output[0]], [anchor.tensor])
        for mine, other in zip(pruned, dense, strict=True):
            target = other[anchor.tensor]
            yield mine[node.input[0]], mine[anchor.tensor], target if axes is None else take(target, axes, self.keep)

    def apply(self, layer: Contraction, place: Place | None, update: Update) -> None:
        """Write the new weights and the shift."""
        new = {layer.node.input[1]: layer.tensor(layer.matrix + update.matrix[:, :-1])}
        if place is not None:
            attach(layer.node, place, self.pruned.model.proto.graph)
            new[place.tensor] = place.shifted(update.matrix[:, -1].ravel())
            self.readers.setdefault(place.tensor, [layer.node])
        self.pruned.change(new)


def relative(error: float, moments: Moments) -> float | None:
    """Root of a squared error, relative to the spread of the target; None where that is constant."""
    spread = float(moments.spread.sum())
    return float(np.sqrt(max(error, 0.0) / spread)) if spread > 0 else None


def recover(
    dependencies: Dependencies,
    removed: Array,
    pruned: Model,
    batches: Sequence[Feeds],
    *,
    threads: int = 1,
    memory: int = MEMORY,
    seed: int = 0,
    observe: Observer = silent,
) -> Recovered:
    """Refit every linear layer behind what was removed.

    Args:
        dependencies: The traced dense model.
        removed: Unit numbers.
        pruned: What `rewrite` made of them.
        batches: Calibration samples, unlabelled; at least four batches.
        threads: Threads inside one operator.
        memory: Bytes of activations held in memory; what is beyond lies in temporary files.
        seed: Of the sites that are drawn.
        observe: Called with a stage's name and the share of it that is done.
    """
    keep = dependencies.keep(np.asarray(removed, dtype=np.int64))
    state = Recovery(dependencies, keep, pruned, batches, threads=threads, memory=memory, seed=seed)
    layers = []
    for at, node in enumerate(state.pruned.nodes):
        observe("recover", at / len(state.pruned.nodes))
        if (found := state.layer(at, node)) is not None:
            layers.append(found)
    samples = [max([len(array) for array in batch.values() if array.ndim], default=1) for batch in batches]
    held, model = batches[HELD - 1 :: HELD], state.pruned.model
    before, after = (fidelity(dependencies.model, m, held, threads=threads) for m in (pruned, model))
    note = WORSE if worse(before, after) else ""
    counts = sum(samples), sum(samples[HELD - 1 :: HELD])
    return Recovered(pruned if note else model, tuple(layers), *counts, before, after, note)


def worse(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether outputs are further from the dense model's than they were, or no numbers any more."""
    errors = before["relative_l2"], after["relative_l2"]
    if None not in errors:
        return bool(errors[1] > errors[0])
    return errors[0] is not None or (after["agreement"] or 0.0) < (before["agreement"] or 0.0)
