"""Fidelity without training: image models as people published them, cut by MACs, scored and refitted without labels.

    python benchmarks/wild.py [--shared FOLDER] [--only GLOB] [--out FILE]
    python benchmarks/wild.py --markdown

No images came with these models. They are shown mosaics of CIFAR-10 pictures, enlarged twice, in the range of values
that each expects: training pictures to choose and fit by, test pictures to measure the relative L2 error of the worst
output against the dense model's, before recovery and behind it. l1 takes the same share of every group, the residual
stream's too; reconstruction also chooses where. An interrupted run goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import left
from latency import arguments, carry_on_jobs, recorded
from li2016 import markdown_table

from onnxprune.fidelity import fidelity
from onnxprune.importance import Evidence, Scores, score
from onnxprune.model import Model, load
from onnxprune.normalise import normalise
from onnxprune.plan import Target, plan
from onnxprune.recover import recover
from onnxprune.rewrite import rewrite
from onnxprune.trace import Dependencies, trace

RESULTS = Path(__file__).resolve().parent / "results" / "wild.json"
COMMAND = "python benchmarks/wild.py --shared ../shared"
# File, and how 0 to 255 becomes what the model expects: factor, shift.
MODELS: dict[str, tuple[str, float, float]] = {
    "MobileNetV1 (BodyPix)": ("bodypixsentis__MobileNetV1-x050-stride16.onnx", 2 / 255, -1.0),
    "PP-OCRv2 detection": ("ccf__ch_PP-OCRv2_det_infer.onnx", 4.4 / 255, -2.1),
    "PP-OCR direction": ("ccf__ch_ppocr_mobile_v2.0_cls_infer.onnx", 2 / 255, -1.0),
    "YOLOX-nano": ("object__yolox_nano.onnx", 1.0, 0.0),
    "OpenSeeFace landmarks": ("openseeface__lm_model0_opt.onnx", 4.4 / 255, -2.1),
    "OpenSeeFace detection": ("openseeface__mnv3_detection_opt.onnx", 4.4 / 255, -2.1),
    "ESPCN": ("qonnx__espcn_nn_resize_float_model.onnx", 1 / 255, 0.0),
    "UltraFace RFB-640": ("ultra__RFB-640-masked_face-v2.onnx", 1 / 128, -127 / 128),
    "UltraFace RFB-320": ("ultra__version-RFB-320.onnx", 1 / 128, -127 / 128),
    "UltraFace slim-320": ("ultra__version-slim-320.onnx", 1 / 128, -127 / 128),
    "CIFAR-10 classifier": ("windows__ImageClassifier.onnx", 1 / 255, 0.0),
    "SqueezeNet, float16": ("windows__SqueezeNet_fp16.onnx", 1.0, -115.0),
    "Style transfer (candy)": ("windows__fns-candy.onnx", 1.0, 0.0),
}
CUTS = (0.3, 0.5)  # of the MACs
CRITERIA = ("l1", "reconstruction")
FITTED, HELD = 64, 32  # images to fit to, and to measure by
OPEN = 224  # pixels where the model leaves the size open
THREADS, BATCH = 2, 8
KEYS = ("model", "criterion", "cut")
Batches = list[dict[str, np.ndarray]]


def mosaics(pictures: np.ndarray, count: int, height: int, width: int, seed: int) -> np.ndarray:
    """Pictures side by side, enlarged twice. Shape (count, height, width, 3)."""
    rng, size = np.random.default_rng(seed), 2 * pictures.shape[1]
    down, right = -(-height // size), -(-width // size)
    chosen = pictures[rng.integers(len(pictures), size=(count, down, right))]
    large = chosen.repeat(2, axis=3).repeat(2, axis=4)
    return large.transpose(0, 1, 3, 2, 4, 5).reshape(count, down * size, right * size, 3)[:, :height, :width]


def batches(model: Model, pictures: np.ndarray, count: int, factor: float, shift: float) -> Batches:
    """Inputs in the model's own layout, type and batch size."""
    (info,) = model.inputs
    dims = [d.dim_value for d in info.type.tensor_type.shape.dim]
    last = dims[3] == 3
    height, width, channels = (dims[1], dims[2], 3) if last else (dims[2], dims[3], dims[1])
    images = mosaics(pictures, count, height or OPEN, width or OPEN, seed=0) * factor + shift
    images = images if channels == 3 else images.mean(axis=3, keepdims=True)
    dtype = np.float16 if info.type.tensor_type.elem_type == 10 else np.float32
    images = (images if last else images.transpose(0, 3, 1, 2)).astype(dtype)
    step = dims[0] or BATCH
    return [{info.name: images[i : i + step]} for i in range(0, count, step)]


@lru_cache(maxsize=1)
def prepared(path: Path, scale: tuple[float, float]) -> tuple[Dependencies, Batches, Batches]:
    """A traced model, what is fitted to and what is measured by."""
    model = load(path)
    train, test = (np.load(path.parents[1] / "cifar10" / f"cifar10_{n}.npz")["x"] for n in ("train_10k", "test"))
    return trace(normalise(model)), batches(model, train, FITTED, *scale), batches(model, test, HELD, *scale)


@lru_cache(maxsize=1)
def scored(path: Path, scale: tuple[float, float], criterion: str) -> tuple[Scores, float]:
    """Scores, which serve all cuts, and the seconds they took."""
    dependencies, fitted, _ = prepared(path, scale)
    began = time.perf_counter()
    return score(dependencies, criterion, Evidence(fitted, threads=THREADS)), time.perf_counter() - began


def measure(shared: Path, job: tuple[str, str, float]) -> dict[str, Any]:
    """One row."""
    name, criterion, cut = job
    file, *scale = MODELS[name]
    case = shared / "wild" / file, (scale[0], scale[1])
    (dependencies, fitted, held), (scores, spent) = prepared(*case), scored(*case, criterion)
    began = time.perf_counter()
    removed = plan(dependencies, scores, Target(macs=1 - cut)).removed(dependencies)
    pruned = rewrite(dependencies, removed)
    found = recover(dependencies, removed, pruned, fitted, threads=THREADS)
    seconds = round(spent + time.perf_counter() - began, 1)
    errors = [fidelity(dependencies.model, m, held, threads=THREADS)["relative_l2"] for m in (pruned, found.model)]
    row = dict(zip(KEYS, job, strict=True)) | dict(zip(("error", "recovered"), errors, strict=True))
    return row | {
        "macs_cut": 1 - left(dependencies, removed),
        "seconds": seconds,
        "method": found.method,
        "note": found.note,
    }


def jobs() -> Iterator[tuple[str, str, float]]:
    """Model, criterion and MACs cut of every row."""
    yield from ((model, criterion, cut) for model in MODELS for criterion in CRITERIA for cut in CUTS)


def cells(row: Mapping[str, Any]) -> list[str]:
    """The error before and after recovery."""
    return [f"{row['error']:.3f}", "left" if row["note"] else f"{row['recovered']:.3f}"]


def markdown(held: Mapping[str, Any]) -> str:
    """The table of the README."""
    table = [["model", "MACs cut", *(f"{c}{more}" for c in CRITERIA for more in ("", ", recovered")), "seconds"]]
    for model in MODELS:
        for cut in CUTS:
            mine = {r["criterion"]: r for r in held["records"] if (r["model"], r["cut"]) == (model, cut)}
            if len(mine) == len(CRITERIA):
                found = [cell for c in CRITERIA for cell in cells(mine[c])]
                table.append([model, f"{cut:.0%}", *found, f"{mine[CRITERIA[-1]]['seconds']:.0f}"])
    return str(markdown_table(table))


def main() -> None:
    """Run what is missing, or print the table."""
    given = arguments(__doc__, RESULTS).parse_args()
    if given.markdown:
        print(markdown(recorded(given.out)))
        return
    carry_on_jobs(given, COMMAND, KEYS, jobs(), lambda job: measure(given.shared, job))


if __name__ == "__main__":
    main()
