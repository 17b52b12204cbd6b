"""The user's own Python files. Law: one runs in a process of its own, and whatever goes wrong there names the file.

What it prints goes to standard error: answers come back in a file. Ctrl-C ends it with this process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from onnxprune.errors import DataError, described

CHILD = """import sys, pathlib
from onnxprune.scripts import answer_in
answer_in(sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]), sys.argv[4])
"""
STDERR = 2  # the file itself: `sys.stderr` may be something that is none


def ask(worker: Callable[..., Any], script: Path, arguments: Mapping[str, Any], example: str) -> Any:
    """What a function makes of a script, in a fresh process.

    Args:
        worker: A function at the top of a module: (script, **arguments) -> JSON.
        script: A Python file.
        arguments: JSON.
        example: What the script should hold, for the remedy of errors.

    Raises:
        DataError: The script cannot be read, raises, or ends its process, or the worker is not content with it.
    """
    if not script.is_file():
        raise DataError("is not a file", where=str(script), remedy="check the path")
    with tempfile.TemporaryDirectory(prefix="onnxprune-script-") as folder:
        answer = Path(folder) / "answer.json"
        name = f"{worker.__module__}:{worker.__name__}"
        command = [sys.executable, "-c", CHILD, name, str(script.resolve()), str(answer), json.dumps(dict(arguments))]
        done = subprocess.run(command, env=environment(), stdin=subprocess.DEVNULL, stdout=STDERR)
        try:
            held = json.loads(answer.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            ending = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
            raise DataError(f"the process ended with {ending}", where=str(script), remedy=example) from None
    if "error" in held:
        raise DataError(held["error"], where=str(script), remedy=held.get("remedy") or example)
    return held["value"]


def environment() -> dict[str, str]:
    """Ours, with the modules found where we find them, whatever the working folder."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}


def answer_in(worker: str, script: Path, answer: Path, arguments: str) -> None:
    """What the fresh process does: write what the worker gives, or what is wrong, as JSON."""
    module, _, name = worker.partition(":")
    sys.dont_write_bytecode = True  # nothing is left beside the user's script
    try:
        held: dict[str, Any] = {"value": getattr(import_module(module), name)(script, **json.loads(arguments))}
    except DataError as error:
        held = {"error": error.what, "remedy": error.remedy}
    except KeyboardInterrupt:
        sys.exit(130)  # the terminal sends it to all; the parent says what there is to say
    except Exception as error:
        own = shown(error, script)
        held = {"error": f"raised {described(error)}" + (f" in line {own.lineno}" if own else "")}
        held |= {"remedy": "mend the script"} if own else {}
    answer.write_text(json.dumps(held), encoding="utf-8")


def shown(error: Exception, script: Path) -> traceback.FrameSummary | None:
    """Print what a script raised from its own first line on, and give its last; None if none of its lines ran."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [n for n, frame in enumerate(frames) if Path(frame.filename) == script]
    told = traceback.TracebackException.from_exception(error)
    told.stack = traceback.StackSummary.from_list(frames[own[0] :] if own else [])
    print("".join(told.format()), end="", file=sys.stderr)
    return frames[own[-1]] if own else None


def function_of(script: Path, name: str) -> Any:
    """A function that a script defines; the script may import what lies beside it.

    Raises:
        DataError: It defines none of that name.
    """
    sys.path.insert(0, str(script.parent))
    spec = spec_from_file_location("__onnxprune_script__", script)
    if spec is None or spec.loader is None:
        raise DataError("is not a Python file")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # classes that the script defines and pickles are looked up here
    spec.loader.exec_module(module)
    if not callable(getattr(module, name, None)):
        raise DataError(f"defines no function '{name}'")
    return getattr(module, name)
