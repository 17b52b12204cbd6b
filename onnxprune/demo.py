"""The embedded default: a small trained model, pruned before your eyes. Law: every figure shown was just measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from onnxprune.errors import ModelError, OutputError
from onnxprune.model import Model, load, write_atomic
from onnxprune.pipeline import Options, Pruned, prune
from onnxprune.plan import Limits, Target
from onnxprune.progress import Observer, silent
from onnxprune.report import markdown
from onnxprune.runtime import run, session

MODEL, CALIBRATION, HELD_OUT = "digits_resnet.onnx", "digits_calibration.npz", "digits_heldout.npz"
WRITTEN = (MODEL, "plan.json", "report.json", "report.md")
RATIO = 0.5


def run_demo(models: Path, folder: Path, *, threads: int = 1, observe: Observer = silent) -> Pruned:
    """Prune the digits model into `folder` and measure its accuracy on held-out images before and after.

    Args:
        models: The folder of the model and its data.
        folder: Where the pruned model, the plan and the report go.
        threads: Threads inside one operator.
        observe: Progress callback.

    Raises:
        ModelError: The bundled files are missing.
        OutputError: The folder cannot be made.
    """
    missing = [name for name in (MODEL, CALIBRATION, HELD_OUT) if not (models / name).is_file()]
    if missing:
        raise ModelError(f"the demo's {missing[0]} is missing", where=str(models), remedy="reinstall onnxprune")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"the folder cannot be made ({error.strerror})"
        raise OutputError(what, where=str(folder), remedy="choose another with -o") from error
    options = Options(data=models / CALIBRATION, threads=threads, overwrite=True)
    done = prune(models / MODEL, folder / MODEL, Target(ratio=RATIO), Limits(), options, observe=observe)
    before, after = (accuracy(m, models / HELD_OUT) for m in (load(models / MODEL), done.model))
    done = replace(done, report=replace(done.report, accuracy={"before": before, "after": after}))
    done.plan.save(folder / "plan.json")
    write_atomic(folder / "report.json", done.report.to_json())
    write_atomic(folder / "report.md", markdown.to_markdown(done.report))
    return done


def accuracy(model: Model, held_out: Path) -> float:
    """Share of held-out images classified correctly (top 1)."""
    with np.load(held_out) as data:
        logits = run(session(model), {"input": data["input"]})["logits"]
        return float((logits.argmax(axis=1) == data["labels"]).mean())
