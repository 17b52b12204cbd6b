"""Refit one layer's weights. Law: a layer is fitted to the dense values on what the pruned network really has.

Targets are taken where the output meets the shortcut (`calibrate.anchors`), so that what the shortcut lost is made up
for, too. Weights are fitted by ridge regression (`recover.ridge`); the penalty is chosen on samples that are held out.
In front of a ReLU the fit is to what that lets through (`recover.rectified`). A layer with more inputs than a Gram
matrix has room for is refitted channel by channel (`recover.wide`).
"""

from __future__ import annotations

import numpy as np
import onnx

from onnxprune.calibrate import Anchor, Contraction, Moments, contraction_of
from onnxprune.calibrate.moments import COLUMNS, finite
from onnxprune.graph import node_name
from onnxprune.recover.answer import Layer
from onnxprune.recover.bias import Place, place_of
from onnxprune.recover.rectified import Rows, rectified, window_of
from onnxprune.recover.ridge import Update, best_update
from onnxprune.recover.state import HARM, HELD, Recovery, inverse, relative, unchanged
from onnxprune.recover.wide import by_channels

ROWS = 80  # sites for each input of a layer, if there are so many
FEW = 20_000  # sites at least, if there are so many
WORK = 3e11  # multiply-accumulates of a Gram matrix, half a minute of one core: wider layers get fewer sites
LEAST = 4  # sites for each input, however wide the layer is
COPIES = 6  # Gram matrices at once: of both halves, their sum, penalised, factored
Kept = tuple[Rows, Rows] | None


def refitted(state: Recovery, at: int, node: onnx.NodeProto) -> Layer | None:
    """Refit one node; None where it is no linear layer, or its inputs are what they were."""
    found = contraction_of(node, state.pruned.model)
    if isinstance(found, str):
        return None
    anchor = state.anchor(node.output[0], found.channels, found.axis)
    if len(state.readers[node.input[1]]) > 1:
        return Layer(node_name(node), anchor.tensor, None, None, note="other layers share its weight")
    place = place_of(node, found.channels, state.view, state.readers)
    if found.columns > COLUMNS or gram_bytes(found) > state.room:
        return by_channels(state, at, found, anchor, place)
    return by_gram(state, at, found, anchor, place)


def gram_bytes(layer: Contraction) -> int:
    """Bytes that refitting with the full Gram matrix takes."""
    groups, columns, _ = layer.shape
    return COPIES * 8 * groups * (columns + 1) ** 2


def sites_for(columns: int, groups: int) -> float:
    """How many sites a layer of so many inputs is fitted to, if there are so many."""
    affordable = max(LEAST * columns, WORK / (groups * columns**2))
    return min(max(FEW, ROWS * columns), affordable)


def by_gram(state: Recovery, at: int, layer: Contraction, anchor: Anchor, place: Place | None) -> Layer | None:
    """Refit with the full Gram matrix of all inputs of a site."""
    name, free = node_name(layer.node), place is not None
    window = window_of(anchor.tensor, state.view, state.readers)
    fit, held, rows = moments(state, at, layer, anchor, keep=window is not None)
    weight = np.square(anchor.slope).reshape(fit.energy.shape)
    if unchanged(weight, fit, held):
        return None
    update = best_update(fit, held, weight, intercept=free)
    if update is not None and window is not None and rows is not None:
        update = rectified(update, (fit, held), rows, window, anchor.slope, intercept=free)
    if update is None:
        error = relative(float((weight * held.energy).sum()), held)
        return Layer(name, anchor.tensor, error, error, note=HARM)
    apply(state, layer, place, update)
    before, after = relative(update.before, held), relative(update.after, held)
    return Layer(name, anchor.tensor, before, after, update.ridge, method="ridge")


def moments(
    state: Recovery, at: int, layer: Contraction, anchor: Anchor, *, keep: bool
) -> tuple[Moments, Moments, Kept]:
    """Moments to fit to and to judge by, and the sites themselves if they are to be kept and not too many."""
    both, share = [Moments.empty(*layer.shape) for _ in range(2)], None
    node, back, total = layer.node, inverse(anchor.slope), len(state.pruned.live)
    rows: tuple[list[Rows], list[Rows]] = ([], [])
    enough = sites_for(layer.columns, layer.groups) * HELD / (HELD - 1)  # of those to fit to
    names = [node.input[0], anchor.tensor]
    for b, (mine, other) in enumerate(state.values(at, node.output[0], names, names[1:])):
        x, here, target = mine[names[0]], mine[names[1]], state.kept(names[1], other[names[1]])
        share = share or layer.share(here, total, enough)
        sites = layer.sites(here.shape, share, state.rng)
        wanted, found = layer.outputs(target, sites), layer.outputs(here, sites)
        side, inputs = b % HELD == HELD - 1, layer.inputs(x, sites)
        usable = finite(wanted, found, inputs)
        wanted, found, inputs = wanted[usable], found[usable], inputs[usable]
        both[side].add(inputs, (wanted - found) * back, wanted)
        keep = keep and (inputs.size * 4 + found.nbytes + wanted.nbytes) * total <= state.pruned.shelf.memory
        if keep:
            kept = np.ascontiguousarray(inputs.transpose(1, 0, 2), dtype=np.float32)
            rows[side].append(Rows(kept, found, wanted))
    return both[0], both[1], (Rows.joined(rows[0]), Rows.joined(rows[1])) if keep else None


def apply(state: Recovery, layer: Contraction, place: Place | None, update: Update) -> None:
    """Write the new weights and the shift."""
    new = {layer.node.input[1]: layer.tensor(layer.matrix + update.matrix[:, :-1])}
    if place is not None:
        new[place.tensor] = place.shifted(update.matrix[:, -1].ravel())
    state.write(layer.node, new, place)
