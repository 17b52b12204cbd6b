"""Accuracy without training: CIFAR-10 ResNets cut by MACs, scored and refitted on unlabelled training images.

    python benchmarks/accuracy.py [--shared FOLDER] [--only GLOB] [--out FILE]
    python benchmarks/accuracy.py --markdown

Calibration images are drawn from the training images, 1,024 unless another number is given, by three seeds. They choose
everything; the 10,000 test images measure the result, once for every row. Methods: filters ranked by their L1 norm, the
same ratio in the first layer of every block and the residual stream left whole (Li et al. 2017), or by
`reconstruction`, which also chooses where to cut; either without recovery and with it, as `onnxprune prune --macs M
--align 1 --data X.npz` does it. An interrupted run goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from latency import arguments, carry_on_jobs, recorded
from li2016 import markdown_table

from onnxprune import runtime
from onnxprune.cost import cost
from onnxprune.importance import Evidence, score
from onnxprune.model import Model, load
from onnxprune.normalise import normalise
from onnxprune.plan import Limits, Target, plan
from onnxprune.recover import recover
from onnxprune.rewrite import rewrite
from onnxprune.trace import Dependencies, trace

RESULTS = Path(__file__).resolve().parent / "results" / "accuracy.json"
COMMAND = "python benchmarks/accuracy.py --shared ../shared"
MODELS = {"ResNet-56": "resnet56_legacy_bn.onnx", "ResNet-20": "resnet20_legacy_bn.onnx"}
CUTS = (0.276, 0.5, 0.6)  # of the MACs; the first is that of ResNet-56-B (Li et al. 2017)
SEEDS = (0, 1, 2)
SAMPLES, CURVE = 1024, (32, 64, 128, 256, 512, 2048)  # calibration images; the curve is of one cut
METHODS = ("l1", "l1, recovered", "reconstruction", "reconstruction, recovered")
THREADS = 2
KEYS = ("model", "cut", "method", "seed", "samples")
BATCH = 64
TRAIN = "cifar10_train_10k.npz"
Batches = list[dict[str, np.ndarray]]


def images(shared: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Preprocessed images and their labels."""
    held = np.load(shared / "cifar10" / name)
    pixels = (held["x"] / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return pixels.transpose(0, 3, 1, 2).astype(np.float32), held["y"]


def drawn(shared: Path, name: str, samples: int, seed: int, size: int) -> tuple[Batches, np.ndarray]:
    """Some of the images, in batches, and their labels."""
    x, y = images(shared, name)
    order = np.random.default_rng(seed).permutation(len(x))[:samples]
    return [{"input": x[order[i : i + size]]} for i in range(0, samples, size)], y[order].astype(np.int64)


def left(dependencies: Dependencies, removed: np.ndarray) -> float:
    """The share of MACs that is left."""
    return cost(dependencies, dependencies.keep(removed)).macs / cost(dependencies).macs


def accuracy(model: Model, x: np.ndarray, y: np.ndarray) -> float:
    """Top-1."""
    opened, right = runtime.session(model, threads=THREADS), 0
    for start in range(0, len(x), 500):
        logits = runtime.run(opened, {"input": x[start : start + 500]})["logits"]
        right += int((logits.argmax(axis=1) == y[start : start + 500]).sum())
    return right / len(x)


def jobs() -> Iterator[tuple[str, float, str, int, int]]:
    """Model, MACs cut, method, seed, samples of every row; those that matter most first."""
    for model in MODELS:
        for method in METHODS[::-1]:
            for cut in CUTS:
                seeds = SEEDS[:1] if method == "l1" else SEEDS  # without samples there is nothing to draw
                yield from ((model, cut, method, seed, SAMPLES) for seed in seeds)
    yield from (("ResNet-56", 0.5, METHODS[-1], seed, n) for n in CURVE for seed in SEEDS)


def measure(shared: Path, job: tuple[str, float, str, int, int], test: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    """One row."""
    name, cut, method, seed, samples = job
    batches, _ = drawn(shared, TRAIN, samples, seed, max(1, min(BATCH, samples // 8)))
    dependencies = trace(normalise(load(shared / "cifar10" / MODELS[name])))
    began = time.perf_counter()
    by_data = method.startswith("reconstruction")
    scores = score(dependencies, "reconstruction" if by_data else "l1", Evidence(batches, threads=THREADS, seed=seed))
    coupled = [g for g in dependencies.groups if len(g.sources) > 1]  # no layer of these holds all their channels
    stream = () if by_data else tuple(s.tensor for g in coupled for s in g.sources)
    removed = plan(dependencies, scores, Target(macs=1 - cut), Limits(skip=stream)).removed(dependencies)
    model = rewrite(dependencies, removed)
    if method.endswith("recovered"):
        model = recover(dependencies, removed, model, batches, threads=THREADS, seed=seed).model
    seconds = round(time.perf_counter() - began, 1)
    row = dict(zip(KEYS, job, strict=True))
    return row | {"macs_cut": 1 - left(dependencies, removed), "accuracy": accuracy(model, *test), "seconds": seconds}


def cell(rows: Sequence[Mapping[str, Any]], key: str = "accuracy") -> str:
    """Mean and, of several seeds, least and most."""
    found = [100 * r[key] for r in rows]
    if not found:
        return "-"
    spread = f" ({min(found):.2f} to {max(found):.2f})" if len(found) > 1 else ""
    return f"{np.mean(found):.2f}{spread}"


def markdown(held: Mapping[str, Any]) -> str:
    """The tables of the README."""
    rows = held["records"]
    table = [["model", "MACs cut", *METHODS]]
    for model, dense in held["dense"].items():
        table.append([model, "0", f"{100 * dense:.2f}", *[""] * 3])
        for cut in CUTS:
            mine = [r for r in rows if (r["model"], r["cut"], r["samples"]) == (model, cut, SAMPLES)]
            table.append([model, f"{cut:.1%}", *(cell([r for r in mine if r["method"] == m]) for m in METHODS)])
    curve = [["calibration images", "accuracy"]]
    for n in sorted((*CURVE, SAMPLES)):
        mine = [
            r for r in rows if (r["model"], r["cut"], r["method"], r["samples"]) == ("ResNet-56", 0.5, METHODS[-1], n)
        ]
        if mine:
            curve.append([f"{n:,}", cell(mine)])
    return f"{markdown_table(table)}\n\n{markdown_table(curve)}"


def main() -> None:
    """Run what is missing, or print the tables."""
    given = arguments(__doc__, RESULTS).parse_args()
    held = recorded(given.out)
    if given.markdown:
        print(markdown(held))
        return
    test, dense = images(given.shared, "cifar10_test.npz"), held.get("dense", {})

    def measured(job: tuple[str, float, str, int, int]) -> dict[str, Any]:
        if job[0] not in dense:
            dense[job[0]] = accuracy(load(given.shared / "cifar10" / MODELS[job[0]]), *test)
        return measure(given.shared, job, test)

    carry_on_jobs(given, COMMAND, KEYS, jobs(), measured, dense=dense)


if __name__ == "__main__":
    main()
