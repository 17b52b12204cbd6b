"""Where results go. Law: what cannot be written, or would destroy something, is refused before any work is done."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from onnxprune.errors import ModelError, OutputError
from onnxprune.model import Model, data_files, is_float
from onnxprune.trace import Dependencies


def check_output(source: Path, output: Path, overwrite: bool) -> None:
    """Refuse outputs that cannot be written, before any work is done.

    Raises:
        OutputError: It is the input, exists, is a directory, or lies in no writable folder.
    """
    if output.exists() and source.exists() and output.samefile(source):
        raise OutputError("the output is the input itself", where=str(output), remedy="name another file with -o")
    refuse_special(output, "the output ")
    if output.exists() and not overwrite:
        raise OutputError("the output exists", where=str(output), remedy="give --overwrite to replace it")
    check_folder(output)


def refuse_special(path: Path, what: str = "") -> None:
    """Refuse directories, devices and pipes: files are put in place by renaming, which would replace them."""
    if path.is_dir():
        raise OutputError(f"{what}is a directory", where=str(path), remedy="name a file in it")
    if path.exists() and not path.is_file():
        raise OutputError(f"{what}is not a regular file", where=str(path), remedy="name a file; --json prints")


def check_weights(original: Model, dependencies: Dependencies, output: Path, overwrite: bool) -> None:
    """Refuse weights that are not numbers, and weight files that would be written over, before any work is done.

    A single NaN may be a constant of the graph, and infinities may be masks; a NaN among other weights is neither.

    Raises:
        ModelError: A weight holds NaN.
        OutputError: A file of weights lies where the output's would go.
    """
    for name, weight in dependencies.model.weights.items():
        if is_float(weight) and weight.size > 1 and np.isnan(weight.min()):
            what, remedy = f"'{name}' holds NaN weights", "export a model with finite weights"
            raise ModelError(what, where=str(original.path or "model"), remedy=remedy)
    if not original.external or original.path is None:
        return
    used, data = data_files(original.path), output.with_name(output.name + ".data")
    if taken := used & {output.resolve(), data.resolve()}:
        what = "the output would replace the input's weights"
        raise OutputError(what, where=str(taken.pop()), remedy="name another file with -o")
    if data.exists() and not overwrite:
        raise OutputError("the output's weights exist", where=str(data), remedy="give --overwrite to replace them")


def check_folder(output: Path) -> None:
    """Refuse a file whose folder is missing or cannot be written."""
    folder = output.resolve().parent
    if not folder.is_dir():
        raise OutputError("the output's folder does not exist", where=str(folder), remedy="create it first")
    probe = folder / f".{output.name}.probe"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        what = f"the output's folder cannot be written ({error.strerror})"
        raise OutputError(what, where=str(folder), remedy="choose another place") from error
