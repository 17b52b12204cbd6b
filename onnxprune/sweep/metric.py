"""The user's own metric. Law: a script runs in a process of its own, and whatever goes wrong there names the script.

The script defines `evaluate(run) -> float`, larger is better; `run` takes input name -> array and gives output name ->
array. What the script prints goes to standard error: the number comes back in a file.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import traceback
from importlib.util import module_from_spec, spec_from_file_location
from numbers import Real
from pathlib import Path
from typing import Any

from onnxprune import runtime
from onnxprune.bench.processes import environment
from onnxprune.data import Feeds
from onnxprune.errors import DataError, described
from onnxprune.model import Array

CHILD = """import sys, pathlib
from onnxprune.sweep.metric import answer_in
answer_in(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3]), pathlib.Path(sys.argv[4]))
"""
STDERR = 2  # the file itself: `sys.stderr` may be something that is none
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
    with tempfile.TemporaryDirectory(prefix="onnxprune-metric-") as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-c", CHILD, str(script), str(model), str(threads), str(answer)]
        done = subprocess.run(command, env=environment(), stdin=subprocess.DEVNULL, stdout=STDERR)
        try:
            held = json.loads(answer.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            ending = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
            raise DataError(f"the process ended with {ending}", where=str(script), remedy=EXAMPLE) from None
    if "error" in held:
        raise DataError(held["error"], where=str(script), remedy=EXAMPLE)
    return float(held["value"])


def answer_in(script: Path, model: Path, threads: int, answer: Path) -> None:
    """What the fresh process does: write the number, or what is wrong, as JSON."""
    try:
        held: dict[str, Any] = {"value": value(script, model, threads)}
    except DataError as error:
        held = {"error": error.what}
    except Exception as error:
        traceback.print_exc()
        own = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == script]
        held = {"error": f"raised {described(error)}" + (f" in line {own[-1].lineno}" if own else "")}
    answer.write_text(json.dumps(held), encoding="utf-8")


def value(script: Path, model: Path, threads: int) -> float:
    """The finite number that `evaluate` gives."""
    evaluate = loaded(script)
    opened = runtime.session(model, threads=threads)

    def run(feeds: Feeds) -> dict[str, Array]:
        """Input name -> array in, output name -> array out."""
        return runtime.run(opened, feeds)

    found = evaluate(run)
    plain = isinstance(found, Real) and not isinstance(found, bool)
    scalar = getattr(found, "ndim", None) == 0  # numpy's and torch's
    if not (plain or scalar) or not math.isfinite(float(found)):
        raise DataError(f"evaluate returned {type(found).__name__} {str(found)[:40]!r}, no finite number")
    return float(found)


def loaded(script: Path) -> Any:
    """The function `evaluate` of a script, which may import what lies beside it."""
    sys.path.insert(0, str(script.parent))
    spec = spec_from_file_location("__onnxprune_metric__", script)
    if spec is None or spec.loader is None:
        raise DataError("is not a Python file")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # classes that the script defines and pickles are looked up here
    spec.loader.exec_module(module)
    if not callable(getattr(module, "evaluate", None)):
        raise DataError("defines no function 'evaluate'")
    return module.evaluate
