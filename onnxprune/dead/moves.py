"""Ranges through operators that move elements. Law: every element that comes out lies in the range it is given.

Where it is not known which element lands where, all of them stand for each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from onnx import numpy_helper

from onnxprune.dead.ranges import WIDE, Range, between, exactly, hull, unbounded, widened
from onnxprune.dead.site import Site, ranges
from onnxprune.model import Shape
from onnxprune.rules.layout import stored_pads
from onnxprune.rules.reshape import segments
from onnxprune.shapes import slice_parts, slice_range


@ranges("Transpose")
def transpose(site: Site) -> Sequence[Range]:
    """numpy.transpose."""
    x = site.input(0)
    order = site.op.attr("perm", list(reversed(range(x.low.ndim))))
    return [x.moved(lambda a: np.transpose(a, order))]


@ranges("Reshape", "Flatten")
def reshape(site: Site) -> Sequence[Range]:
    """Runs of axes that hold the same elements, in their order."""
    return [reshaped(site.input(0), site.op.shape(0), site.op.out_shape())]


@ranges("Squeeze", "Unsqueeze")
def squeeze(site: Site) -> Sequence[Range]:
    """Axes of length 1 go or come."""
    x, before, after = site.input(0), site.op.shape(0), site.op.out_shape()
    given = [int(k) for k in (site.op.exact(1, "axes") if site.op.has(1) else site.op.attr("axes", []))]
    if site.op.kind == "Unsqueeze":
        return [x.moved(lambda a: np.expand_dims(a, tuple(k % len(after) for k in given)))]
    gone = [k % len(before) for k in given] or [k for k, size in enumerate(before) if size == 1]
    return [x.moved(lambda a: np.squeeze(a, tuple(gone)))]


def reshaped(x: Range, before: Shape, after: Shape) -> Range:
    """A range in another shape of the same elements, run by run of axes."""
    sizes, made = [1] * len(before), [1] * len(after)
    for ins, outs in segments(before, after):
        old = [d for d in (before[k] for k in ins) if isinstance(d, int)]
        new = [d for d in (after[k] for k in outs) if isinstance(d, int)]
        known = len(old) == len(ins) and len(new) == len(outs) and math.prod(old) == math.prod(new)
        if known and any(x.shape[k] > 1 for k in ins) and (math.prod(old) <= WIDE or x.low.size == math.prod(old)):
            for places, side, dims in ((ins, sizes, old), (outs, made, new)):
                for k, size in zip(places, dims, strict=True):
                    side[k] = size
        else:
            x = x.over(ins)
    if math.prod(sizes) > max(WIDE, x.low.size):
        return x.over(range(x.low.ndim)).moved(lambda a: a.reshape((1,) * len(after)))
    return x.stretched(sizes).moved(lambda a: a.reshape(made))


@ranges("Concat")
def concat(site: Site) -> Sequence[Range]:
    """numpy.concatenate; all for each where sizes are open."""
    rank = site.input(0).low.ndim
    axis = site.op.attr("axis", 1) % rank
    sizes = [site.op.shape(i)[axis] for i in range(len(site.inputs))]
    known = [size for size in sizes if isinstance(size, int)]
    if len(known) < len(sizes):
        return [hull([x.over([axis]) for x in site.present])]
    shapes = [(*x.shape[:axis], n, *x.shape[axis + 1 :]) for x, n in zip(site.present, known, strict=True)]
    common = [max(dims) for dims in zip(*shapes, strict=True)]
    if math.prod(common) // max(1, common[axis]) * sum(known) > 4 * WIDE:
        return [hull([x.over(range(rank)) for x in site.present])]
    parts = [x.stretched([*common[:axis], n, *common[axis + 1 :]]) for x, n in zip(site.present, known, strict=True)]
    return [Range(*(np.concatenate([getattr(p, f) for p in parts], axis) for f in ("low", "high", "value", "finite")))]


@ranges("Split")
def split(site: Site) -> Sequence[Range]:
    """numpy.split."""
    x = site.input(0)
    axis = site.op.attr("axis", 0) % x.low.ndim
    sizes = [site.op.out_shape(j)[axis] for j in range(site.op.outputs)]
    known = [size for size in sizes if isinstance(size, int)]
    if x.shape[axis] == 1 or len(known) < len(sizes):
        return [x.over([axis])] * len(sizes)
    ends = list(accumulate(known))
    return [picked(x, axis, np.arange(end - size, end)) for size, end in zip(known, ends, strict=True)]


def picked(x: Range, axis: int, index: np.ndarray) -> Range:
    """Some indices of an axis."""
    return x if x.shape[axis] == 1 else x.moved(lambda a: np.take(a, index, axis=axis))


@ranges("Slice")
def cut(site: Site) -> Sequence[Range]:
    """Basic slicing; where bounds are computed, all for each."""
    x, op = site.input(0), site.op
    try:
        parts = slice_parts(op.node, [op.value(i) if op.has(i) else None for i in range(op.arity)])
    except ValueError:
        return [x.over([k for k, (a, b) in enumerate(zip(op.shape(0), op.out_shape(), strict=True)) if a != b])]
    for start, end, axis, step in zip(*parts, strict=True):
        k = axis % x.low.ndim
        x = picked(x, k, np.arange(x.shape[k])[slice_range(start, end, step)])
    return [x]


@ranges("Gather")
def gather(site: Site) -> Sequence[Range]:
    """numpy.take."""
    x, index, rank = site.input(0), site.op.value(1), len(site.op.shape(1))
    axis = site.op.attr("axis", 0) % x.low.ndim
    if index is None or index.dtype == object or x.shape[axis] == 1:
        shape = x.shape[:axis] + (1,) * rank + x.shape[axis + 1 :]
        return [x.over([axis]).moved(lambda a: a.reshape(shape))]
    return [x.moved(lambda a: np.take(a, index, axis=axis))]


@ranges("Pad")
def pad(site: Site) -> Sequence[Range]:
    """A constant around it; told apart from the rest only on axes whose elements are told apart."""
    x, op = site.input(0), site.op
    pads = stored_pads(op)
    axes = [k % x.low.ndim for k in op.exact(3, "axes")] if op.has(3) else list(range(x.low.ndim))
    around = {k: (pads[t], pads[t + len(axes)]) for t, k in enumerate(axes) if (pads[t], pads[t + len(axes)]) != (0, 0)}
    if op.attr("mode", "constant") != "constant":
        return [x.over(list(around))]
    filling = site.input(2) if op.has(2) else exactly(np.array(op.attr("value", 0.0)))
    filling = filling.moved(lambda a: a.reshape(())) if filling.low.size == 1 else unbounded(False)
    for k, ends in around.items():
        x = padded(x, filling, k, ends, op.shape(0)[k], site)
    return [x]


def padded(x: Range, filling: Range, k: int, ends: tuple[int | None, int | None], size: object, site: Site) -> Range:
    """One axis with a constant before and after it."""
    before, after = ends
    live = site.op.labels(site.op.node.output[0])
    apart = live is not None and live[k].ids is not None
    if before is None or after is None or min(before, after) < 0 or not isinstance(size, int) or not apart:
        return hull([x.over([k]), filling])
    shape = list(x.shape)
    parts = [filling.stretched([*shape[:k], n, *shape[k + 1 :]]) for n in (before, after)]
    middle = x.stretched([*shape[:k], size, *shape[k + 1 :]])
    laid = (parts[0], middle, parts[1])
    return Range(*(np.concatenate([getattr(p, f) for p in laid], k) for f in ("low", "high", "value", "finite")))


@ranges("Expand")
def expand(site: Site) -> Sequence[Range]:
    """numpy.broadcast_to: what is stretched holds one value."""
    return [site.input(0).lifted(len(site.op.out_shape()))]


@ranges("Tile")
def tile(site: Site) -> Sequence[Range]:
    """numpy.tile."""
    x, repeats = site.input(0), site.op.value(1)
    for k in range(x.low.ndim):
        times = None if repeats is None else repeats.ravel()[k]
        if x.shape[k] > 1 and times != 1:
            whole = isinstance(times, int | np.integer) and x.low.size * int(times) <= WIDE
            x = x.moved(lambda a, k=k, n=times: np.concatenate([a] * int(n), axis=k)) if whole else x.over([k])  # type: ignore[misc]
    return [x]


@ranges("ScatterElements", "ScatterND")
def scatter(site: Site) -> Sequence[Range]:
    """What was there or what is written, wherever that goes; sums of them have no bounds."""
    data, updates = (x.over(range(x.low.ndim)).moved(lambda a: a.reshape(())) for x in (site.input(0), site.input(2)))
    return [hull([data, updates]) if site.op.attr("reduction", "none") == "none" else unbounded(site.finite)]


@ranges("Shape", "Size")
def sizes(site: Site) -> Sequence[Range]:
    """Not below zero."""
    return [between(0, np.inf, np.array(True))]


@ranges("ConstantOfShape")
def filled(site: Site) -> Sequence[Range]:
    """One number, zero by default."""
    value = next((numpy_helper.to_array(a.t) for a in site.op.node.attribute if a.name == "value"), np.zeros(1))
    return [exactly(value.reshape(()))]


@ranges("DepthToSpace")
def depth_to_space(site: Site) -> Sequence[Range]:
    """A channel comes from blocksize^2 channels, one for each position in the block."""
    x, block = site.input(0).over([0, 2, 3]), site.op.attr("blocksize", 1) ** 2
    if x.shape[1] == 1:
        return [x]
    deep = (block, x.shape[1] // block)
    if site.op.attr("mode", "DCR") == "CRD":
        return [x.moved(lambda a: a.reshape(1, deep[1], block, 1)).over([2])]
    return [x.moved(lambda a: a.reshape(1, *deep, 1)).over([1]).moved(lambda a: a.reshape(1, deep[1], 1, 1))]


@ranges("SpaceToDepth")
def space_to_depth(site: Site) -> Sequence[Range]:
    """Every channel comes out blocksize^2 times, position by position."""
    x, block = site.input(0).over([0, 2, 3]), site.op.attr("blocksize", 1) ** 2
    return [x if x.shape[1] == 1 else x.moved(lambda a: np.concatenate([a] * block, axis=1))]


@ranges("MaxPool", "GlobalMaxPool")
def max_pool(site: Site) -> Sequence[Range]:
    """One of the elements of the window; padding never wins. Where it was found, a second output says."""
    return [positions(site.input(0)), between(0, np.inf, np.array(True))]


def positions(x: Range) -> Range:
    """What holds for a channel wherever it is looked at."""
    return x.over(range(2, x.low.ndim))


@ranges("Resize", "Upsample")
def resample(site: Site) -> Sequence[Range]:
    """Between the elements; cubic interpolation overshoots, and cropping may read a number from outside."""
    x, op = site.input(0), site.op
    x = x.over([k for k, (a, b) in enumerate(zip(op.shape(0), op.out_shape(), strict=True)) if a != b or a is None])
    if op.attr("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        x = hull([x, exactly(np.array(op.attr("extrapolation_value", 0.0)))])
    if op.attr("mode", "nearest") in ("nearest", "linear"):
        return [x if op.attr("mode", "nearest") == "nearest" else widened(x, site.eps)]
    loose = unbounded(x.finite)
    low, high = (np.where(x.zero, 0.0, getattr(loose, side)) for side in ("low", "high"))
    return [Range(low, high, np.where(x.zero, 0.0, np.nan), x.finite)]
