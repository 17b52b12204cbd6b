"""Made-up inputs. Law: same model and seed, same arrays, and the model runs on them, or an error says what is open."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper

from onnxprune.errors import DataError, ModelError, RuntimeUnavailable
from onnxprune.runtime.execute import parsed, run
from onnxprune.runtime.sessions import Array, Source, session

LARGEST = 2**28  # elements of an input
# Tried in turn for sizes a model leaves open: (height and width, length of a sequence).
GUESSES = ((224, 16), (256, 128), (64, 64), (32, 1), (299, 256), (640, 512))  # the dearest last


def random_feeds(
    model: Source, *, batch: int = 1, seed: int = 0, sizes: Mapping[str, int] | None = None
) -> dict[str, Array]:
    """Seeded random arrays for every input of a model: normal floats, integers 0 or 1, random booleans.

    Sizes the model leaves open: the first axis is the batch; a symbol has one size everywhere; others are guessed
    (224 x 224 images with 3 channels, sequences of 16), and if the model does not run on a guess the next is tried.

    Args:
        model: Any model `session` takes.
        batch: Size of an open first axis.
        seed: Same seed, same arrays.
        sizes: Symbol, or 'input.axis' ('images.2'), -> size; overrides every guess.

    Raises:
        DataError: An input has no tensor type or no rank, holds text, or no guess makes the model run.
    """
    inputs = _fed(model)
    shapes = [_shapes(inputs, batch, guess, dict(sizes or {})) for guess in GUESSES]
    _refuse_unused(inputs, sizes or {})
    first = draw(inputs, shapes[0], seed)
    if all(other == shapes[0] for other in shapes):
        return first
    opened = session(model, optimise=False)
    for guess in shapes:
        feeds = draw(inputs, guess, seed)
        with contextlib.suppress(DataError, RuntimeUnavailable):
            run(opened, feeds)
            return feeds
    names = ", ".join(f"'{i.name}'" for i in inputs)
    remedy = "give the data (--data), or the sizes of the open axes"
    raise DataError("no guess at the open input sizes makes the model run", where=f"inputs {names}", remedy=remedy)


def _fed(model: Source) -> list[onnx.ValueInfoProto]:
    """The graph inputs that are not initializers."""
    proto: Any = model
    if isinstance(model, str | Path):
        if not Path(model).is_file():
            raise ModelError("no such file", where=str(model), remedy="check the path")
        try:
            proto = onnx.load(model, load_external_data=False)
        except DecodeError as error:
            raise ModelError("is not an ONNX model", where=str(model), remedy="export it again") from error
    elif not isinstance(model, onnx.ModelProto):
        whole = parsed(model)
        proto = whole if isinstance(whole, onnx.ModelProto) else whole.proto
    held = {t.name for t in proto.graph.initializer} | {t.values.name for t in proto.graph.sparse_initializer}
    return [i for i in proto.graph.input if i.name not in held]


def _shapes(
    inputs: list[onnx.ValueInfoProto], batch: int, guess: tuple[int, int], known: dict[str, int]
) -> list[tuple[int, ...]]:
    """One shape per input; `known` collects the size of each symbol as it is met."""
    shapes = []
    for value in inputs:
        if value.type.WhichOneof("value") != "tensor_type" or not value.type.tensor_type.HasField("shape"):
            what = f"input '{value.name}' is not a tensor of known rank"
            raise DataError(what, remedy="give it as data (--data)")
        dims = value.type.tensor_type.shape.dim
        last = dims[-1].dim_value if dims else 0
        shape = []
        for axis, dim in enumerate(dims):
            own = f"{value.name}.{axis}"
            # Recurrent state is (layers, batch, features): a fixed first axis puts the batch second.
            is_batch = axis == 0 or (axis == 1 and len(dims) == 3 and dims[0].dim_value > 1 and last > 0)
            default = batch if is_batch or _names_batch(dim.dim_param) else _guessed(axis, len(dims), last, guess)
            open_size = known[own] if own in known else known.setdefault(dim.dim_param or own, default)
            shape.append(dim.dim_value if dim.dim_value > 0 else open_size)
        shapes.append(tuple(shape))
    return shapes


def _names_batch(symbol: str) -> bool:
    return "batch" in symbol.lower() or symbol == "N"


def _guessed(axis: int, rank: int, last: int, guess: tuple[int, int]) -> int:
    """A size for an open axis: colour channels, height and width of images and volumes, or a sequence's length."""
    if rank < 4:
        return guess[1]
    channels_last = last in (1, 3, 4)
    return 3 if axis == 1 and not channels_last else guess[0]


def _refuse_unused(inputs: list[onnx.ValueInfoProto], sizes: Mapping[str, int]) -> None:
    """Raise DataError for a size that names no open axis: a typing mistake would otherwise pass unseen."""
    axes = [(i.name, a, d) for i in inputs for a, d in enumerate(i.type.tensor_type.shape.dim) if d.dim_value <= 0]
    known = {f"{name}.{axis}" for name, axis, _ in axes} | {d.dim_param for _, _, d in axes if d.dim_param}
    for name in sizes:
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise DataError(f"'{name}' is no open input axis", where=f"open: {listed}", remedy="name one of those")


def draw(inputs: list[onnx.ValueInfoProto], shapes: list[tuple[int, ...]], seed: int) -> dict[str, Array]:
    """Random arrays of these shapes and the inputs' declared types."""
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for value, shape in zip(inputs, shapes, strict=True):
        kind = value.type.tensor_type.elem_type
        if kind in (TensorProto.STRING, TensorProto.UNDEFINED):
            what = f"input '{value.name}' holds text" if kind else f"input '{value.name}' has no type"
            raise DataError(what, remedy="give it as data (--data)")
        if math.prod(shape) > LARGEST:
            what = f"input '{value.name}' is {' x '.join(map(str, shape))}, too large to make up"
            raise DataError(what, remedy="give it as data (--data)")
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        whole = dtype.kind in "iub" or dtype.name.startswith(("int", "uint"))
        feeds[value.name] = (rng.integers(0, 2, shape) if whole else rng.standard_normal(shape)).astype(dtype)
    return feeds
