"""The user's own metric. Law: it is that of the very file that is delivered, and it never chooses what is.

The script defines `evaluate(run) -> float`, larger is better; `run` takes input name -> array and gives output name ->
array. It runs in a process of its own (`scripts`).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from onnxprune import runtime
from onnxprune.errors import DataError
from onnxprune.model import Array, Model, save
from onnxprune.runtime import Feeds
from onnxprune.scripts import ask, function_of

EXAMPLE = "define 'def evaluate(run) -> float', where run(feeds) gives the outputs by name"


def metric(script: Path, model: Path, *, threads: int = 1) -> float:
    """Call a script's `evaluate` on a model, in a fresh process.

    Args:
        script: A Python file.
        model: The model that `run` runs.
        threads: Threads inside one operator.

    Raises:
        DataError: The script cannot be read, has no such function, raises, crashes, or gives no finite number.
    """
    return float(ask(value, script, {"model": str(model), "threads": threads}, EXAMPLE))


def metric_of(script: Path, model: Model, *, threads: int = 1) -> float:
    """The metric of a model in memory: of the file that it will be."""
    with tempfile.TemporaryDirectory(prefix="onnxprune-metric-") as folder:
        path = Path(folder) / "model.onnx"
        save(model, path)
        return metric(script, path, threads=threads)


def value(script: Path, model: str, threads: int) -> float:
    """The finite number that `evaluate` gives; what the fresh process does."""
    evaluate = function_of(script, "evaluate")
    opened = runtime.session(model, threads=threads)

    def run(feeds: Feeds) -> dict[str, Array]:
        """Input name -> array in, output name -> array out."""
        if not isinstance(feeds, Mapping):
            raise DataError(f"run was given {type(feeds).__name__}, not {{input: array}}")
        return runtime.run(opened, feeds)

    found: Any = evaluate(run)
    plain = isinstance(found, Real) and not isinstance(found, bool)
    scalar = getattr(found, "ndim", None) == 0  # numpy's and torch's
    if not (plain or scalar) or not math.isfinite(float(found)):
        raise DataError(f"evaluate returned {type(found).__name__} {str(found)[:40]!r}, no finite number")
    return float(found)
