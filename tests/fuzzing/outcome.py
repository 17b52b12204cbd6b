"""What the tool does with a file. Law: it prunes the model, or refuses it in one line; anything else is a failure."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnxprune.errors import OnnxpruneError
from onnxprune.importance import score
from onnxprune.model import load
from onnxprune.normalise import normalise
from onnxprune.pipeline import Options, prune
from onnxprune.plan import Target, plan
from onnxprune.rewrite import rewrite
from onnxprune.trace import trace

PRUNED, REFUSED, FAILED = "pruned", "refused", "failed"
PACKAGE = "onnxprune"


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        kind: `pruned`, `refused` or `failed`.
        detail: The class of the error.
        text: Its message, or the trace of a failure.
        where: For a failure, the last line of the package on its way.
    """

    kind: str
    detail: str = ""
    text: str = ""
    where: str = ""


def try_files(files: Mapping[str, bytes], *, verify: bool) -> Outcome:
    """Run the tool on files in a folder of their own.

    Args:
        files: File name -> content.
        verify: Run the whole pipeline, onnxruntime included, and not only the stages up to the rewritten model.
    """
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        folder = Path(place)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        try:
            (whole if verify else surgery)(folder / "model.onnx")
        except OnnxpruneError as error:
            return refusal(error)
        except Exception as error:
            return failure(error)
    return Outcome(PRUNED)


def whole(path: Path) -> None:
    """Everything that `onnxprune prune` does but the timing."""
    prune(path, path.with_name("small.onnx"), Target(ratio=0.5), options=Options(align=1, time=False))


def surgery(path: Path) -> None:
    """The stages that need no runtime. A rule may refuse a node, but not fail on it; shapes in a file may be untrue."""
    dependencies = trace(normalise(load(path)))
    fails = [f for f in dependencies.freezes if "internal error" in f.reason and "wrong labels" not in f.reason]
    assert not fails, fails[0]
    chosen = plan(dependencies, score(dependencies), Target(ratio=0.5))
    rewrite(dependencies, chosen.removed(dependencies)).full()


def refusal(error: OnnxpruneError) -> Outcome:
    """A refusal, if it is one line."""
    text, kind = str(error), type(error).__name__
    if len(text.splitlines()) != 1 or len(text) > 2000:
        return Outcome(FAILED, f"{kind} of {len(text.splitlines())} lines, {len(text)} characters", text[:500])
    return Outcome(REFUSED, kind, text)


def failure(error: Exception) -> Outcome:
    """Any other exception, with the place in the package it came through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f"/{PACKAGE}/" in f.filename]
    last = frames[-1] if frames else None
    where = f"{Path(last.filename).name}:{last.lineno} {last.name}" if last else ""
    return Outcome(FAILED, type(error).__name__, "".join(traceback.format_exception(error))[-3000:], where)
