"""The files of a folder. Law: the order is that of their paths, whatever the file system says.

Hidden files and folders, and the `__MACOSX` that archives leave behind, are not looked at.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from onnxprune.errors import DataError


def files(folder: Path, endings: Sequence[str]) -> list[Path]:
    """Files with one of these endings in a folder and those below it, ascending.

    Raises:
        DataError: The folder cannot be read.
    """
    found = [path for path in walked(folder) if path.suffix.lower() in endings]
    return sorted(found, key=lambda path: path.parts)


def walked(folder: Path) -> Iterator[Path]:
    """Every file in a folder and those below it; links to folders are followed, once each."""
    seen: set[str] = set()

    def failed(error: OSError) -> None:
        raise DataError(f"cannot be read ({error.strerror})", where=str(error.filename or folder)) from error

    for place, inner, names in os.walk(folder, onerror=failed, followlinks=True):
        real = os.path.realpath(place)
        inner[:] = [] if real in seen else [n for n in inner if not n.startswith((".", "__MACOSX"))]
        if real in seen:
            continue
        seen.add(real)
        yield from (Path(place, name) for name in names if not name.startswith("."))
