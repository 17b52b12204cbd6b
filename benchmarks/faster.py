"""Accuracy without training at a speed: what `onnxprune prune --speedup S --data X.npz` delivers, as it is delivered.

    python benchmarks/faster.py [--shared FOLDER] [--only GLOB] [--out FILE]
    python benchmarks/faster.py --markdown

Trained CIFAR-10 ResNets are pruned to be 1.5 and 2 times as fast, one thread, batch 1, on 1,024 unlabelled training
images (seed 0), and to the share of MACs that is left then, for comparison; the 10,000 test images measure the result.
The speedup is the median of interleaved rounds that `prune` reports, with its 95% interval. An idle machine, please. An
interrupted run goes on where it was.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import MODELS, accuracy, images
from latency import arguments, carry_on_jobs, recorded
from li2016 import markdown_table

from onnxprune.pipeline import Options, prune
from onnxprune.plan import Target

RESULTS = Path(__file__).resolve().parent / "results" / "faster.json"
COMMAND = "python benchmarks/faster.py --shared ../shared"
SPEEDUPS, SAMPLES, SEED = (1.5, 2.0), 1024, 0
KEYS = ("model", "asked")


def delivered(path: Path, target: Target, options: Options, shared: Path) -> dict[str, Any]:
    """What a run of `prune` comes to."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = prune(path, Path(folder) / "small.onnx", target, options=options)
    seconds = round(time.perf_counter() - began, 1)
    left = found.report.after.macs / found.report.before.macs
    row = {"macs": left, "accuracy": accuracy(found.model, *images(shared, "cifar10_test.npz")), "seconds": seconds}
    timed = found.report.latency
    return row | ({} if timed is None else {"speedup": timed.speedup, "ci95": list(timed.ci95)})


def measure(shared: Path, job: tuple[str, float]) -> dict[str, Any]:
    """One row: to a speed, and to the same work."""
    name, asked = job
    x, _ = images(shared, "cifar10_train_10k.npz")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "x.npz"
        np.savez(data, input=x[np.random.default_rng(SEED).permutation(len(x))[:SAMPLES]])
        how, path = Options(data=data, force=True), shared / "cifar10" / MODELS[name]
        timed = delivered(path, Target(speedup=asked), how, shared)
        by_macs = delivered(path, Target(macs=timed["macs"]), how, shared)
    return dict(zip(KEYS, job, strict=True)) | {"timed": timed, "by_macs": by_macs}


def cells(row: Mapping[str, Any]) -> list[str]:
    """Speedup, MACs left, accuracy."""
    low, high = row["ci95"]
    return [f"{row['speedup']:.2f} ({low:.2f} to {high:.2f})", f"{row['macs']:.0%}", f"{100 * row['accuracy']:.2f}"]


def markdown(held: Mapping[str, Any]) -> str:
    """The table of the README."""
    head = ["model", "asked", "speedup", "MACs left", "accuracy", "by MACs: speedup", "MACs left", "accuracy"]
    rows = [[r["model"], f"{r['asked']:g}x", *cells(r["timed"]), *cells(r["by_macs"])] for r in held["records"]]
    return str(markdown_table([head, *rows]))


def main() -> None:
    """Run what is missing, or print the table."""
    given = arguments(__doc__, RESULTS).parse_args()
    if given.markdown:
        print(markdown(recorded(given.out)))
        return
    jobs = [(name, asked) for name in MODELS for asked in SPEEDUPS]
    carry_on_jobs(given, COMMAND, KEYS, jobs, lambda job: measure(given.shared, job))


if __name__ == "__main__":
    main()
