"""Where to cut: a trained ResNet pruned to half of its MACs, by how groups share the cut and in how many rounds.

    python benchmarks/allocation.py [--shared FOLDER] [--only GLOB] [--out FILE]
    python benchmarks/allocation.py --markdown

Scores, curves and weights are fitted to 256 training images, drawn by seed 0; the 10,000 test images measure the
result, before and after recovery. Seconds include scores, curves and rounds. The curves of every criterion go to
OUT.CRITERION.svg. An interrupted run goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import THREADS, TRAIN, accuracy, drawn, images, left
from latency import arguments, carry_on_jobs, recorded
from li2016 import markdown_table

from onnxprune.importance import Evidence, Scores, score
from onnxprune.model import load
from onnxprune.normalise import normalise
from onnxprune.pipeline import Options
from onnxprune.pipeline.steps import SteppedPlans
from onnxprune.plan import Limits, Sharing, Target, across, plan, uniform
from onnxprune.progress import silent
from onnxprune.recover import recover
from onnxprune.report.svg import curves_svg
from onnxprune.rewrite import rewrite
from onnxprune.sensitivity import Curves, Question, Record, analyse, by_sensitivity, content
from onnxprune.trace import Dependencies, trace

RESULTS = Path(__file__).resolve().parent / "results" / "allocation.json"
COMMAND = "python benchmarks/allocation.py --shared ../shared"
MODEL, SAMPLES, BATCH, SEED, MACS = "resnet56_legacy_bn.onnx", 256, 32, 0, 0.5
CRITERIA, ALLOCATIONS, STEPS = ("l1", "reconstruction"), ("auto", "uniform", "global", "sensitivity"), (1, 2, 4)
KEYS = ("criterion", "allocation", "steps")
HEADERS = ["criterion", "allocation", "rounds", "without recovery", "recovered", "seconds"]


def jobs() -> Iterator[tuple[str, str, int]]:
    """Criterion, allocation and rounds of every row."""
    yield from ((c, a, 1) for c in CRITERIA for a in ALLOCATIONS)
    yield from (
        (c, a, n) for n in STEPS[1:] for c, a in (("l1", "sensitivity"), ("l1", "auto"), ("reconstruction", "auto"))
    )


def curves(dependencies: Dependencies, scores: Scores, question: Question, out: Path) -> Curves:
    """The curves of a criterion, measured or read from the file that an earlier row wrote; as a picture, too."""
    name = out.with_suffix(f".{scores.criterion}")
    record = Record.opened(Path(f"{name}.curves.json"), {"model": content(dependencies.model), "images": SAMPLES})
    found = analyse(dependencies, scores, question, record, model="ResNet-56", threads=THREADS)
    Path(f"{name}.svg").write_text(curves_svg(found), encoding="utf-8")
    return found


def measure(shared: Path, out: Path, job: tuple[str, str, int], test: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    """One row."""
    criterion, allocate, steps = job
    batches, labels = drawn(shared, TRAIN, SAMPLES, SEED, BATCH)
    dependencies, began = trace(normalise(load(shared / "cifar10" / MODEL))), time.perf_counter()
    rescore: Callable[[Dependencies], Scores] = partial(
        score, criterion=criterion, evidence=Evidence(batches, threads=THREADS, seed=SEED)
    )
    scores = rescore(dependencies)
    question = Question(batches, labels=labels)
    sharings: Mapping[str, Callable[[], Sharing | None]] = {
        "auto": lambda: None,
        "uniform": lambda: uniform(dependencies),
        "global": lambda: across(dependencies, scores),
        "sensitivity": lambda: by_sensitivity(curves(dependencies, scores, question, out)),
    }
    sharing, target = sharings[allocate](), Target(macs=MACS)
    if steps == 1:
        chosen = plan(dependencies, scores, target, None, sharing)
    else:
        how = Limits(), Options(threads=THREADS, steps=steps), sharing, batches, rescore, silent, True
        chosen = SteppedPlans(dependencies, scores, target, *how)(())
    removed = chosen.removed(dependencies)
    pruned = rewrite(dependencies, removed)
    model = recover(dependencies, removed, pruned, batches, threads=THREADS, seed=SEED).model
    seconds = round(time.perf_counter() - began, 1)
    row = {"criterion": criterion, "allocation": allocate, "steps": steps, "seconds": seconds}
    row["macs"] = left(dependencies, removed)
    return row | {"pruned": accuracy(pruned, *test), "recovered": accuracy(model, *test)}


def markdown(held: Mapping[str, Any]) -> str:
    """The table."""
    rows = []
    for r in held["records"]:
        figures = (f"{100 * r[key]:.2f}" for key in ("pruned", "recovered"))
        rows.append([r["criterion"], r["allocation"], str(r["steps"]), *figures, f"{r['seconds']:.0f}"])
    return str(markdown_table([HEADERS, *rows]))


def main() -> None:
    """Run what is missing, or print the table."""
    given = arguments(__doc__, RESULTS).parse_args()
    if given.markdown:
        print(markdown(recorded(given.out)))
        return
    test = images(given.shared, "cifar10_test.npz")
    measured = partial(measure, given.shared, given.out, test=test)
    carry_on_jobs(given, COMMAND, KEYS, jobs(), measured, lambda job: "/".join(map(str, job)))


if __name__ == "__main__":
    main()
