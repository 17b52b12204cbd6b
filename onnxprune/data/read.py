"""Samples from wherever they lie. Law: the kind is told by the file, and every kind keeps the same promises.

They fit the model's inputs, there are as many as are wanted or all, the same seed gives the same ones, and nothing that
is not taken is read where that costs.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from zipfile import is_zipfile

from onnxprune.data.images import ENDINGS, read_images
from onnxprune.data.listing import walked
from onnxprune.data.npy import read_npy
from onnxprune.data.npz import read_npz
from onnxprune.data.samples import Samples
from onnxprune.data.script import read_script
from onnxprune.errors import DataError
from onnxprune.model import Model
from onnxprune.progress import Observer, silent

KINDS = "give an .npz, a folder of .npy files or of images, or a Python file"


def kind_of(path: Path) -> str:
    """What lies there: 'npz', 'npy', 'images' or 'script'.

    Raises:
        DataError: A folder with nothing to read, or with two kinds; a file of no kind.
    """
    ending = path.suffix.lower()
    if path.is_file() and ending not in (".py", ".npz") and not is_zipfile(path):
        remedy = f"name the folder it lies in, or {KINDS}" if ending in (".npy", *ENDINGS) else KINDS
        raise DataError("is not an .npz archive", where=str(path), remedy=remedy)
    if not path.is_dir():
        return "script" if ending == ".py" else "npz"
    endings = {file.suffix.lower() for file in walked(path)}
    arrays, images = ".npy" in endings, not endings.isdisjoint(ENDINGS)
    if arrays and images:
        raise DataError("the folder holds arrays and images", where=str(path), remedy="give a folder of one kind")
    if not arrays and not images:
        inside = ".npz" in endings
        what = f"the folder holds neither .npy files nor images{', but an .npz' if inside else ''}"
        raise DataError(what, where=str(path), remedy="name the .npz itself" if inside else KINDS)
    return "npy" if arrays else "images"


def read(
    model: Model, path: Path, limit: int, *, preprocess: str | None = None, seed: int = 0, observe: Observer = silent
) -> Samples:
    """Read samples for a model.

    Args:
        model: Its inputs say what they are to be.
        path: An `.npz`, a folder of `.npy` files, a folder of images, or a Python file with `def batches():`.
        limit: Samples wanted; where there are more, they are spread over all.
        preprocess: How images become inputs, see `preprocess`.
        seed: Of which are taken.
        observe: Called with a stage's name and the share of it that is done.

    Raises:
        DataError: They cannot be read, or do not fit the model.
    """
    kind = kind_of(path)
    if preprocess is not None and kind != "images":
        what = "--preprocess is for a folder of images, and --data is none"
        raise DataError(what, where=str(path), remedy="leave it out: arrays go into the model as they are")
    if kind == "images":
        found = read_images(model, path, limit, seed, preprocess, observe)
    else:
        found = {"npz": read_npz, "npy": read_npy, "script": read_script}[kind](model, path, limit, seed)
    return replace(found, about={"source": str(path), "kind": kind, **found.about})
