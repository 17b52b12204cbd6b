"""Give each channel of a layer a new scale and shift. Law: by its measure no layer is worse on samples held out.

That is what re-estimating the statistics of a BatchNormalization comes to, and, where it was folded, what the weights
and the bias can still do: two numbers for each channel, which few samples tell. It serves layers whose weights cannot
be refitted, too. Two measures judge: what a site misses of the dense value, squared, and how far a channel's mean and
standard deviation are from the dense ones'. The first prefers channels that vary too little, since noise that is not
there is not missed; behind many layers that adds up (ResNet-20 at half the MACs: 64% against 72% of the test images).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnxprune.calibrate import Contraction, Moments, contraction_of
from onnxprune.calibrate.anchors import normalisation
from onnxprune.calibrate.moments import Floats, finite
from onnxprune.graph import node_name
from onnxprune.model import Array
from onnxprune.recover.answer import Layer
from onnxprune.recover.bias import Place, alone, place_of
from onnxprune.recover.state import HARM, HELD, Recovery, inverse, relative, unchanged

SITES = 50_000  # of a layer, at most: a channel's mean and spread are known well from fewer
FLAT = 1e-6  # of the dense channel's spread: a channel that varies less cannot be scaled up to it


@dataclass(frozen=True, eq=False)
class Channels:
    """A node whose output's channels can be scaled or shifted.

    Attributes:
        node: The node.
        channels: How many there are.
        axis: Where they are.
        scales: The vector or weight that scales them; '' where there is none, or others read it.
        layer: The node as a linear layer; None for a BatchNormalization.
        place: The vector that shifts them.
    """

    node: onnx.NodeProto
    channels: int
    axis: int
    scales: str
    layer: Contraction | None
    place: Place | None

    def written(self, update: Floats, held: Array) -> dict[str, Array]:
        """The tensors with which the output becomes (1 + a) y + b, `update` holding a and b. Shape (channels, 2, 1)."""
        more, shift = 1 + update[:, 0, 0], update[:, 1, 0]
        new: dict[str, Array] = {}
        if self.scales and self.layer is not None:
            split = more.reshape(self.layer.groups, 1, -1)
            new[self.scales] = self.layer.tensor(self.layer.matrix * split)
        elif self.scales:
            new[self.scales] = np.asarray(held * more, dtype=held.dtype)
        if self.place is not None:
            own = self.place.new or self.place.tensor in self.node.input  # a constant added behind is not scaled
            scaled = Place(self.place.tensor, self.place.array * more.astype(self.place.array.dtype), self.place.factor)
            new[self.place.tensor] = (scaled if own else self.place).shifted(shift)
        return new


def channels_of(state: Recovery, node: onnx.NodeProto) -> Channels | None:
    """The node's channels, if it is a BatchNormalization or a linear layer that none follows."""
    model, readers = state.view, state.readers
    if node.op_type == "BatchNormalization":
        if normalisation(node, model) is None:
            return None
        gamma, beta = node.input[1], node.input[2]
        place = Place(beta, model.weights[beta], 1.0) if alone(beta, readers) else None
        return Channels(node, model.weights[gamma].size, 1, gamma if alone(gamma, readers) else "", None, place)
    layer = contraction_of(node, state.pruned.model)
    if isinstance(layer, str):
        return None
    after = readers.get(node.output[0], ())
    if layer.convolves and len(after) == 1 and after[0] is not None and after[0].op_type == "BatchNormalization":
        return None
    scales = node.input[1] if alone(node.input[1], readers) else ""
    place = place_of(node, layer.channels, model, readers)
    return Channels(node, layer.channels, layer.axis, scales, layer, place)


@dataclass(eq=False)
class Spread:
    """Of the dense channels, what their means and standard deviations are made of. Shapes (channels,)."""

    total: Floats
    square: Floats

    def add(self, values: Floats) -> None:
        """Take in sites. Shape (sites, channels)."""
        self.total += values.sum(axis=0)
        self.square += np.square(values).sum(axis=0)

    def deviation(self, count: int) -> Floats:
        """Standard deviations over so many sites. Shape (channels,)."""
        return np.sqrt(np.maximum(self.square / count - (self.total / count) ** 2, 0.0))


Fit = Callable[[Moments, Spread], Floats]
Measure = Callable[[Floats, Moments, Spread], Floats]


def shift(moments: Moments, _: Spread) -> Floats:
    """The mean of what is missing, nothing else. Shape (channels, 2, 1)."""
    found = np.zeros_like(moments.cross)
    found[:, 1] = moments.cross[:, 1] / max(1, moments.count)
    return found


def statistics(moments: Moments, dense: Spread) -> Floats:
    """Standard deviations as the dense network has them, then the mean of what is missing. Shape (channels, 2, 1)."""
    mean, own = own_spread(moments)
    wanted = dense.deviation(max(1, moments.count))
    scale = np.divide(wanted, own, out=np.ones_like(own), where=own > FLAT * wanted)
    found = shift(moments, dense)
    found[:, 0, 0] = scale - 1
    found[:, 1, 0] -= (scale - 1) * mean
    return found


def own_spread(moments: Moments) -> tuple[Floats, Floats]:
    """Means and standard deviations of the channels as they are. Shapes (channels,)."""
    count = max(1, moments.count)
    mean = moments.gram[:, 0, 1] / count
    return mean, np.sqrt(np.maximum(moments.gram[:, 0, 0] / count - mean**2, 0.0))


def missing(update: Floats, held: Moments, _: Spread) -> Floats:
    """Squared error of the sites with a change. Shape (channels,)."""
    return np.asarray((held.energy + held.change(update))[:, 0])


def distance(update: Floats, held: Moments, dense: Spread) -> Floats:
    """Squared distance of normal distributions with the channels' means and deviations, times sites (2-Wasserstein).

    Shape (channels,).
    """
    count = max(1, held.count)
    mean, own = own_spread(held)
    scale, shift_by = update[:, 0, 0], update[:, 1, 0]
    of_means = held.cross[:, 1, 0] / count - scale * mean - shift_by
    return np.asarray(count * (of_means**2 + (np.abs(1 + scale) * own - dense.deviation(count)) ** 2))


def corrected(
    state: Recovery, at: int, node: onnx.NodeProto, fits: Sequence[Fit], measure: Measure, method: str
) -> Layer | None:
    """Scale and shift the channels of one node; None where it has none, or they are what they were.

    Args:
        state: The recovery.
        at: The node's number.
        node: The node.
        fits: What may be done, of which the one that leaves least on samples held out is.
        measure: What is left, per channel.
        method: What it is called.
    """
    found = channels_of(state, node)
    if found is None:
        return None
    anchor = state.anchor(node.output[0], found.channels, found.axis)
    if found.place is None:
        return Layer(node_name(node), anchor.tensor, None, None, note="its shift is shared, computed, or has no place")
    (fit, held), spreads = measured(state, at, found, anchor.tensor, inverse(anchor.slope))
    weight = np.square(anchor.slope)
    if unchanged(weight[:, None], fit, held):
        return None
    updates = [np.zeros_like(fit.cross), *(one(fit, spreads[0]) for one in fits if found.scales or one is shift)]
    left = [float((weight * measure(update, held, spreads[1])).sum()) for update in updates]
    best = int(np.argmin(np.nan_to_num(left, nan=np.inf)))
    before, after = (relative(error, held) for error in (left[0], left[best]))
    if not best:
        return Layer(node_name(node), anchor.tensor, before, before, note=HARM)
    gamma = state.pruned.model.weights[found.scales] if found.scales else np.zeros(0)
    state.write(node, found.written(updates[best], gamma), found.place)
    return Layer(node_name(node), anchor.tensor, before, after, method=method)


def measured(
    state: Recovery, at: int, found: Channels, anchor: str, back: Floats
) -> tuple[tuple[Moments, Moments], tuple[Spread, Spread]]:
    """Each channel as a layer of one input: moments to fit to and to judge by, and the dense network's spreads."""
    own, count = found.node.output[0], found.channels
    both = [Moments.empty(count, 1, 1) for _ in range(2)]
    spreads = [Spread(np.zeros(count), np.zeros(count)) for _ in range(2)]
    names, share = [own, anchor], 0.0
    for b, (mine, other) in enumerate(state.values(at, own, names, names)):
        held = {name: state.kept(name, array) for name, array in other.items()}
        shape = np.delete(mine[own].shape, found.axis)
        share = share or min(1.0, SITES / max(1, int(np.prod(shape)) * len(state.pruned.live)))
        chosen = np.unravel_index(np.flatnonzero(state.rng.random(int(np.prod(shape))) < share), shape)
        tensors = mine[own], mine[anchor], held[own], held[anchor]
        y, here, dense, wanted = (rows(array, found.axis, chosen) for array in tensors)
        usable = finite(y, here, dense, wanted)
        y, here, dense, wanted = y[usable], here[usable], dense[usable], wanted[usable]
        side = b % HELD == HELD - 1
        both[side].add(y[:, :, None], (wanted - here) * back, wanted)
        spreads[side].add(dense)
    return (both[0], both[1]), (spreads[0], spreads[1])


def rows(values: Array, axis: int, sites: Sequence[Array]) -> Floats:
    """The channels at some sites, in double precision. Shape (sites, channels)."""
    place: Any = tuple(sites) if axis == -1 else (sites[0], slice(None), *sites[1:])
    return np.asarray(values[place], dtype=np.float64)
