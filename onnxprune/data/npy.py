"""Samples in a folder of `.npy` files. Law: a file holds one sample or a batch, told by its number of axes.

With several inputs, a file belongs to the input whose name a folder it lies in has, or with which its own name begins:
`ids/0001.npy`, `ids.npy`, `ids_0001.npy`. Of several such names the longest counts, and what a file name cannot hold
may be an underscore. With one input all files are its own, unless some are named after it. Inputs are matched in the
order of paths. Files are mapped, and only the rows that are taken are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from onnxprune.data.fit import as_batch, check_finite, check_shape, check_type, rank_of
from onnxprune.data.listing import files
from onnxprune.data.samples import Feeds, Samples, joined, step_of
from onnxprune.data.spread import mixed, spread
from onnxprune.errors import DataError
from onnxprune.model import Array, Model

REMEDY = "write it with numpy.save, one sample or one batch a file"
NAMING = "name files INPUT.npy or INPUT_0001.npy, or put each input's in a folder of its name"
Infos = Sequence[onnx.ValueInfoProto]


@dataclass(frozen=True)
class Held:
    """A mapped file: a batch for one input."""

    info: onnx.ValueInfoProto
    path: Path
    array: Array

    def rows(self, start: int, stop: int) -> Array:
        """Some of its samples, read now."""
        found = np.array(self.array[start:stop])
        check_finite(self.info, found, str(self.path))
        return found


def read_npy(model: Model, folder: Path, limit: int, seed: int) -> Samples:
    """Read as many samples as are wanted, spread over all files, in a seeded random order.

    Args:
        model: Its inputs say what the files are to hold.
        folder: The folder.
        limit: Samples wanted, at most, rounded up to whole batches where the model's batch is fixed.
        seed: Of which are taken and of their order.

    Raises:
        DataError: A file cannot be read or does not fit, or the inputs have different numbers of samples.
    """
    paths = assigned(model.inputs, files(folder, (".npy",)), folder)
    step = step_of(model)
    scalars = {info.name for info in model.inputs if rank_of(info) == 0}
    picked = picks(paths, scalars, -(-limit // (step or 1)) * (step or 1), seed)
    held = {info.name: [opened(info, path) for path in picked[info.name]] for info in model.inputs}
    fixed = {name: only(held.pop(name)) for name in scalars}
    counts = {name: sum(len(file.array) for file in found) for name, found in held.items()}
    if step is None or len(set(counts.values())) > 1:
        parts = by_file(held, limit, seed, folder)
    else:
        parts = by_row(held, min(counts.values(), default=1), limit, step or 1, seed, folder)
    found = Samples(joined(model, [{**part, **fixed} for part in parts], str(folder)))
    every = {} if picked != paths else {"of": max([found.count, *counts.values()])}
    return Samples(found.sets, {"samples": found.count, "files": sum(map(len, paths.values()))} | every)


def assigned(inputs: Infos, found: Sequence[Path], folder: Path) -> dict[str, list[Path]]:
    """The files of each input.

    Raises:
        DataError: An input has none.
    """
    paths: dict[str, list[Path]] = {info.name: [] for info in inputs}
    for path in found:
        inner = [part.removesuffix(path.suffix) for part in path.relative_to(folder).parts]
        names = [name for name in paths if names_it(name, inner)]
        if names:
            paths[max(names, key=len)].append(path)
    if len(paths) == 1 and not any(paths.values()):
        paths = {name: list(found) for name in paths}
    for name, own in paths.items():
        if not own:
            what = f"no .npy file is named after the model's input '{name}'"
            raise DataError(what, where=str(folder), remedy=NAMING)
    return paths


def names_it(name: str, parts: Sequence[str]) -> bool:
    """Whether a file belongs to an input: by a folder it lies in, or by the beginning of its own name."""
    forms = {name, re.sub(r"[^\w.-]", "_", name)}
    begins = (parts[-1][len(form) :] for form in forms if parts[-1].startswith(form))
    return bool(forms & set(parts[:-1])) or any(not rest or rest[0] in "_-." for rest in begins)


def picks(paths: Mapping[str, Sequence[Path]], scalars: set[str], limit: int, seed: int) -> dict[str, list[Path]]:
    """At most as many files as samples are wanted, the same ones for all inputs; all where their numbers differ."""
    counts = {len(own) for name, own in paths.items() if name not in scalars}
    if len(counts) != 1:
        return {name: list(own) for name, own in paths.items()}
    places = spread(max(counts), limit, seed)
    return {name: list(own) if name in scalars else [own[n] for n in places] for name, own in paths.items()}


def opened(info: onnx.ValueInfoProto, path: Path) -> Held:
    """Map a file, and check all of it but whether its numbers are finite."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"cannot be read ({reason})", where=str(path), remedy=REMEDY) from error
    if not isinstance(array, np.ndarray):  # an archive that is called .npy
        array.close()
        raise DataError("is an .npz archive", where=str(path), remedy="call it .npz, and give it alone")
    array = as_batch(info, check_type(info, array, str(path)))
    check_shape(info, array, str(path), whole=False)
    return Held(info, path, array)


def only(found: Sequence[Held]) -> Array:
    """The value of an input without axes.

    Raises:
        DataError: Its files hold several.
    """
    for file in found:
        check_finite(file.info, file.array, str(file.path))
        if file.array != found[0].array:
            what = f"the input '{file.info.name}', which has no axis of samples, has another value than before"
            raise DataError(what, where=str(file.path), remedy="give it one value, the same for all samples")
    return np.array(found[0].array)


def by_file(held: Mapping[str, Sequence[Held]], limit: int, seed: int, folder: Path) -> list[Feeds]:
    """The first files of all inputs together, the second ones, and so on: inputs without a common number of samples.

    Raises:
        DataError: They have different numbers of files, too.
    """
    counts = {name: len(found) for name, found in held.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"'{name}' {sum(len(f.array) for f in found)}" for name, found in held.items())
        raise DataError(f"inputs differ in their number of samples: {listed}", where=str(folder), remedy=NAMING)
    order = mixed(spread(min(counts.values()), limit, seed), seed)
    return [{name: found[n].rows(0, len(found[n].array)) for name, found in held.items()} for n in order]


def by_row(
    held: Mapping[str, Sequence[Held]], total: int, limit: int, step: int, seed: int, folder: Path
) -> list[Feeds]:
    """Single samples, or as many in a row as the model's batch has."""
    if total < step:
        what = f"holds {total} samples, the model takes {step} at a time"
        raise DataError(what, where=str(folder), remedy="give more")
    order = mixed(spread(total // step, -(-limit // step), seed) * step, seed)
    return [{name: cut(found, n, step) for name, found in held.items()} for n in order]


def cut(found: Sequence[Held], start: int, step: int) -> Array:
    """Rows of an input, counted over all its files."""
    ends = np.cumsum([len(file.array) for file in found])
    parts, at = [], start
    while at < start + step:
        n = int(np.searchsorted(ends, at, side="right"))
        begin = int(ends[n]) - len(found[n].array)
        stop = min(start + step, int(ends[n]))
        parts.append(found[n].rows(at - begin, stop - begin))
        if parts[-1].shape[1:] != parts[0].shape[1:]:
            what = f"array '{found[n].info.name}' has another shape than the sample before, in one batch of {step}"
            raise DataError(what, where=str(found[n].path), remedy="the samples of a batch must be of one shape")
        at = stop
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
