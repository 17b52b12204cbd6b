"""Refit layers too wide for a Gram matrix of all their inputs. Law: what one channel lost is told by channels alone.

A layer reads C channels at T positions each: the taps of a kernel, or, behind a Flatten, the places of a map, which the
labels tell apart. Every dense channel is expressed by the pruned network's, X ~ x (E + U) + u, E the channels that
stay, and the dense weights are folded into those that are left: W' = W + U W_dense at each position (the C x C form of
He et al. 2017, arXiv 1707.06168; with kept channels regressed, too, it makes up for what layers before lost). One U
serves all positions, or each has its own, if there is room; samples held out choose. The shift is then the mean of what
the layer's output still misses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.calibrate import Anchor, Contraction, Moments, contraction_of
from onnxprune.calibrate.moments import Floats, finite
from onnxprune.graph import node_name
from onnxprune.labels import Ids
from onnxprune.recover.answer import Layer
from onnxprune.recover.bias import Place
from onnxprune.recover.ridge import Update, best_update
from onnxprune.recover.state import HARM, HELD, NEAR, Recovery, inverse
from onnxprune.shapes import attribute

ROWS, FEW = 40, 4_000  # sites for each channel, and at least, if there are so many
JUDGED = 4_000  # sites that the output is judged at: each costs all multiply-accumulates of the layer
COPIES = 6  # of a set of moments: of both halves, their sum, penalised, factored
PART = 512  # outputs whose dense weights are held in double precision at once
WIDE = "its inputs are too many for a Gram matrix"
Weights = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Grid:
    """How a layer's inputs fall into channels and positions.

    Attributes:
        dense: Input numbers of the dense layer. Shape (channels, positions).
        own: Those of the pruned layer. Shape (channels that stay, positions).
        stays: Which channels do. Shape (channels,).
    """

    dense: Ids
    own: Ids
    stays: NDArray[np.bool_]

    @property
    def positions(self) -> int:
        """Of every channel."""
        return len(self.dense[0])

    def moments(self, shared: bool) -> Moments:
        """Nothing seen yet: channels that stay against all, at one position or each."""
        return Moments.empty(1 if shared else self.positions, self.own.shape[0], self.dense.shape[0])

    def room(self, shared: bool) -> int:
        """Bytes of a fit."""
        lost, stay = len(self.dense), len(self.own) + 1
        return COPIES * 8 * (1 if shared else self.positions) * stay * (stay + lost)


def grid_of(state: Recovery, node: onnx.NodeProto, layer: Contraction) -> Grid | None:
    """The grid of a layer's inputs; None where labels do not tell their channels, or groups divide them."""
    labels = state.dependencies.labels.get(node.input[0])
    if layer.groups > 1 or labels is None or attribute(node, "transA", 0):
        return None
    axis = labels[layer.axis]
    if axis.ids is None or axis.by:
        return None
    if layer.convolves:
        taps = int(np.prod(layer.kernel))
        dense, first = np.arange(axis.ids.size * taps).reshape(-1, taps), axis.ids
    else:
        first, channel, counts = np.unique(axis.ids, return_inverse=True, return_counts=True)
        if (counts != counts[0]).any():
            return None
        dense = np.argsort(channel, kind="stable").reshape(first.size, -1)
    stays = state.keep[first]
    kept = np.zeros(dense.size, dtype=bool)
    kept[dense[stays]] = True
    own = (np.cumsum(kept) - 1)[dense[stays]]
    return Grid(dense, own, stays) if own.size == layer.columns else None


def dense_layer(state: Recovery, layer: Contraction) -> Contraction | None:
    """The dense network's layer, with the outputs that stay and all inputs; None where it reads something else."""
    node = state.dense.nodes[state.dense.made[layer.node.output[0]]]
    found = contraction_of(node, state.dense.model)
    if isinstance(found, str) or node.input[0] != layer.node.input[0] or found.groups > 1:
        return None
    axis = output_axis(found)
    labels = state.dependencies.labels.get(node.input[1])
    ids = labels[axis].ids if labels is not None and not labels[axis].by else None
    if ids is not None:
        found = replace(found, weight=np.compress(state.keep[ids], found.weight, axis=axis))
    return found if found.channels == layer.channels else None


def output_axis(layer: Contraction) -> int:
    """Where a weight's outputs are, of a layer without groups."""
    return 0 if layer.node.op_type == "Conv" or attribute(layer.node, "transB", 0) else 1


def by_channels(state: Recovery, at: int, layer: Contraction, anchor: Anchor, place: Place | None) -> Layer | None:
    """Refit with the second moments of channels; None where the layer's inputs are what they were."""
    node, name = layer.node, node_name(layer.node)
    dense, grid = dense_layer(state, layer), grid_of(state, node, layer)
    updates: list[Update] = []
    found: list[Weights | None] = [None]
    if grid is not None and dense is not None and grid.room(True) <= state.room:
        updates = expressed(state, at, (layer, dense), grid, anchor, intercept=place is not None)
        found += [folded(dense, grid, update.part) for update in updates]
    judge = Judge.of(state, at, layer, anchor, found)
    if judge.before <= NEAR * judge.spread:
        return None
    best, shift, left = judge.best(intercept=place is not None)
    before, after = judge.relative(judge.before), judge.relative(left)
    if best is None:
        return Layer(name, anchor.tensor, before, before, note=HARM if updates else WIDE)
    change = found[best]
    new = {} if change is None else {node.input[1]: layer.tensor(layer.matrix + change)}
    if place is not None:
        new[place.tensor] = place.shifted(shift)
    state.write(node, new, place)
    ridge = updates[best - 1].ridge if best else None
    return Layer(name, anchor.tensor, before, after, ridge, method="ridge, by channel" if best else "bias")


def expressed(
    state: Recovery, at: int, layers: tuple[Contraction, Contraction], grid: Grid, anchor: Anchor, *, intercept: bool
) -> list[Update]:
    """Every dense channel by those of the pruned network: with one matrix, and with one for each position."""
    (layer, dense), node = layers, layers[0].node
    forms = [shared for shared in (True, False) if grid.room(shared) <= state.room and (shared or grid.positions > 1)]
    both = [(grid.moments(shared), grid.moments(shared)) for shared in forms]
    share, name = None, node.input[0]
    for b, (mine, other) in enumerate(state.values(at, node.output[0], [name, node.output[0]], [name])):
        here = mine[node.output[0]]
        share = share or layer.share(here, len(state.pruned.live), max(FEW, ROWS * len(grid.own)))
        sites = layer.sites(here.shape, share, state.rng)
        x, whole = layer.inputs(mine[name], sites)[:, 0], dense.inputs(other[name], sites)[:, 0]
        usable = finite(x, whole)
        if not usable.any():
            continue
        x, whole = x[usable][:, grid.own], whole[usable][:, grid.dense]  # sites x channels x positions
        missing = whole.copy()
        missing[:, grid.stays] -= x
        for shared, pair in zip(forms, both, strict=True):
            inputs, left, target = (arranged(part, shared) for part in (x, missing, whole))
            flat = left.reshape(len(left), -1), target.reshape(len(target), -1)
            pair[b % HELD == HELD - 1].add(inputs, *flat)
    found = []
    for shared, (fit, held) in zip(forms, both, strict=True):
        weight = loudness(dense, grid, anchor).T  # positions x channels
        found.append(best_update(fit, held, weight.sum(axis=0)[None] if shared else weight, intercept=intercept))
    return [update for update in found if update is not None]


def arranged(values: Floats, shared: bool) -> Floats:
    """Sites x channels x positions, as `Moments` take them. Shape (sites, positions, channels), or one position."""
    turned = values.transpose(0, 2, 1)
    return turned.reshape(-1, 1, turned.shape[2]) if shared else np.ascontiguousarray(turned)


def parts(layer: Contraction) -> Iterator[tuple[slice, Floats]]:
    """A layer's matrix in double precision, some outputs at a time. Shapes (K, outputs)."""
    first = output_axis(layer) == 0
    for start in range(0, layer.channels, PART):
        part = slice(start, start + PART)
        place: Any = part if first else (slice(None), part)
        yield part, replace(layer, weight=layer.weight[place]).matrix[0]


def loudness(dense: Contraction, grid: Grid, anchor: Anchor) -> Floats:
    """What a channel's squared error at a position counts at the anchor. Shape (channels, positions)."""
    found = np.zeros(dense.columns)
    for part, matrix in parts(dense):
        found += np.square(matrix * anchor.slope[part]).sum(axis=1)
    return np.asarray(found[grid.dense])


def folded(dense: Contraction, grid: Grid, update: Floats) -> Weights:
    """What the pruned layer's matrix changes by when channels are expressed this way. Shape (K, M)."""
    found = np.zeros((grid.own.size, dense.channels), dtype=np.float32)
    for part, matrix in parts(dense):
        by_position = matrix[grid.dense].transpose(1, 0, 2)  # positions x channels x outputs
        found[grid.own.T, part] = update[:, :-1] @ by_position
    return found


@dataclass(eq=False)
class Judge:
    """What outputs miss with each of several changes, on sites to fit the shift to and on sites held out.

    Attributes:
        fit: What is missing per channel, summed over the sites to fit to. Shape (changes, M).
        total: The same of those held out.
        square: Its squares. Shape (changes, M).
        weight: What a channel's squared error counts. Shape (M,).
        sites: To fit to and held out.
        spread: Squared deviations of the target from its mean over those held out.
    """

    fit: Floats
    total: Floats
    square: Floats
    weight: Floats
    sites: tuple[int, int]
    spread: float

    @staticmethod
    def of(state: Recovery, at: int, layer: Contraction, anchor: Anchor, changes: Sequence[Weights | None]) -> Judge:
        """Run the layer with each change; None stands for none."""
        node, back, share = layer.node, inverse(anchor.slope), None
        sums, squares = np.zeros((2, len(changes), layer.channels)), np.zeros((len(changes), layer.channels))
        targets, counts, names = Moments.empty(1, 0, layer.channels), [0, 0], [node.input[0], anchor.tensor]
        for b, (mine, other) in enumerate(state.values(at, node.output[0], names, names[1:])):
            share = share or layer.share(mine[names[1]], len(state.pruned.live), JUDGED)
            sites, side = layer.sites(mine[names[1]].shape, share, state.rng), int(b % HELD == HELD - 1)
            wanted = layer.outputs(state.kept(names[1], other[names[1]]), sites)
            found, x = layer.outputs(mine[names[1]], sites), layer.inputs(mine[names[0]], sites)[:, 0]
            usable = finite(wanted, found, x)
            wanted, found, x = wanted[usable], found[usable], x[usable].astype(np.float32)
            for i, change in enumerate(changes):
                left = (wanted - found) * back - (0 if change is None else x @ change)
                sums[side, i] += left.sum(axis=0)
                squares[i] += np.square(left).sum(axis=0) * side
            counts[side] += len(wanted)
            if side:
                targets.add(np.zeros((len(wanted), 1, 0)), wanted, wanted)
        weight = np.square(anchor.slope)
        return Judge(sums[0], sums[1], squares, weight, (counts[0], counts[1]), float(targets.spread.sum()))

    @property
    def before(self) -> float:
        """Squared error on sites held out, as it is."""
        return float((self.weight * self.square[0]).sum())

    def relative(self, error: float) -> float | None:
        """Root of a squared error, relative to the spread of the target; None where that is constant."""
        return float(np.sqrt(max(error, 0.0) / self.spread)) if self.spread > 0 else None

    def best(self, *, intercept: bool) -> tuple[int | None, Floats, float]:
        """The change that leaves least on sites held out, its shift, what is left; None where none leaves less."""
        shifts = self.fit / max(1, self.sites[0]) * intercept
        after = self.square - 2 * shifts * self.total + self.sites[1] * shifts**2
        left = np.nan_to_num((self.weight * after).sum(axis=1), nan=np.inf)
        best = int(np.argmin(left))
        return (best if left[best] < self.before else None), shifts[best], float(left[best])
