"""Samples that a Python file gives. Law: no more is taken from `batches()` than is wanted, so it need never end.

The file defines `batches()`, which gives (or yields) dicts of input name -> array, or arrays where the model has one
input: a batch, or one sample without the axis of samples. It runs in a process of its own (`scripts`), which hands the
arrays over in files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.data.fit import as_batch, check_array, rank_of
from onnxprune.data.samples import Feeds, Samples, count_of, joined, taken
from onnxprune.errors import DataError
from onnxprune.model import Array, Model
from onnxprune.scripts import ask, function_of

EXAMPLE = "define 'def batches()' that yields {input: array}, or arrays where the model has one input"


def read_script(model: Model, script: Path, limit: int, seed: int) -> Samples:
    """Take samples from a script until there are enough.

    Args:
        model: Its inputs say what a batch holds.
        script: The Python file.
        limit: Samples wanted, at most, rounded up to whole batches where the model's batch is fixed.
        seed: Of which are taken of a batch with more.

    Raises:
        DataError: The script fails, gives nothing, or what it gives does not fit.
    """
    ranks = {info.name: rank_of(info) for info in model.inputs}
    with tempfile.TemporaryDirectory(prefix="onnxprune-samples-") as folder:
        arguments = {"ranks": ranks, "limit": limit, "folder": folder}
        count = ask(stored, script, arguments, EXAMPLE)
        parts = [batch_of(model, Path(folder), n, script) for n in range(count)]
        if count == 1:
            parts = [taken(model, parts[0], limit, seed)]
        found = Samples(joined(model, parts, str(script)))
    return Samples(found.sets, {"samples": found.count})


def batch_of(model: Model, folder: Path, number: int, script: Path) -> Feeds:
    """One batch, read back and checked."""
    found = {}
    for place, info in enumerate(model.inputs):
        array = np.load(folder / f"{number}.{place}.npy", allow_pickle=False)
        found[info.name] = check_array(info, as_batch(info, array), f"{script}, batch {number + 1}")
    return found


def stored(script: Path, ranks: Mapping[str, int | None], limit: int, folder: str) -> int:
    """Store batches until there are samples enough, and count the batches; what the fresh process does."""
    stream = function_of(script, "batches")()
    if isinstance(stream, Mapping | str | np.ndarray) or not hasattr(stream, "__iter__"):
        raise DataError(f"batches() gives {type(stream).__name__}, no series of batches")
    number = samples = 0
    for batch in stream:
        arrays = named(batch, list(ranks), number + 1)
        for place, (name, array) in enumerate(arrays.items()):
            np.save(Path(folder) / f"{number}.{place}.npy", storable(array, name, number + 1), allow_pickle=False)
        number += 1
        samples += size_of(arrays, ranks)
        if samples >= limit:
            break
    if not number:
        raise DataError("batches() gives nothing")
    return number


def named(batch: Any, inputs: Sequence[str], number: int) -> dict[str, Array]:
    """The arrays of a batch by input name, in the order of the inputs."""
    if not isinstance(batch, Mapping):
        if isinstance(batch, tuple):
            what = f"batch {number} is a tuple of {len(batch)}"
            raise DataError(what, remedy="yield the inputs alone, without labels, as {input: array}")
        if len(inputs) != 1:
            listed = ", ".join(f"'{name}'" for name in inputs)
            raise DataError(f"batch {number} is one {type(batch).__name__}, the model has the inputs {listed}")
        batch = {inputs[0]: batch}
    for name in inputs:
        if name not in batch:
            held = ", ".join(map(str, batch)) or "none"
            raise DataError(f"batch {number} has no array for the model's input '{name}' (it has: {held})")
    return {name: np.asarray(batch[name]) for name in inputs}


def storable(array: Array, name: str, number: int) -> Array:
    """The array in a form that needs no pickle: text is stored as numpy's own."""
    if array.dtype != object:
        return array
    if not all(isinstance(entry, str) for entry in array.ravel()):
        what = f"batch {number}: array '{name}' holds {type(array.ravel()[0]).__name__} objects, no numbers or text"
        raise DataError(what, remedy="yield arrays of one type and shape")
    return array.astype(str)


def size_of(arrays: Mapping[str, Array], ranks: Mapping[str, int | None]) -> int:
    """Samples of a batch; one where its arrays have no common number of them."""
    whole = {name: a for name, a in arrays.items() if ranks[name] is None or a.ndim == ranks[name]}
    return max(1, count_of(whole) or 1)
