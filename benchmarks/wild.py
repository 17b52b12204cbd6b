"""Fidelity without training: image models as people published them, cut by MACs, scored and refitted without labels.

    python benchmarks/wild.py [--shared FOLDER] [--only GLOB] [--out FILE]
    python benchmarks/wild.py --markdown

No images came with these models. They are shown mosaics of CIFAR-10 pictures, enlarged twice, in the range of values
that each expects: training pictures to choose and fit by, test pictures to measure the relative L2 error of the worst
output against the dense model's. Methods as in accuracy.py; l1 takes the same share of every group, the residual
stream's too. An interrupted run goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from latency import arguments, carry_on_jobs, recorded
from li2016 import markdown_table

from onnxprune.cost import cost
from onnxprune.fidelity import fidelity
from onnxprune.importance import Evidence, score
from onnxprune.model import Model, load
from onnxprune.normalise import normalise
from onnxprune.plan import Target, plan
from onnxprune.recover import recover
from onnxprune.rewrite import rewrite
from onnxprune.trace import trace

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
METHODS = ("l1", "l1, recovered", "reconstruction", "reconstruction, recovered")
FITTED, HELD = 128, 32  # images to fit to, and to measure by
OPEN = 224  # pixels where the model leaves the size open
THREADS, BATCH = 2, 16
KEYS = ("model", "cut", "method")
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


def measure(path: Path, job: tuple[str, float, str], given: tuple[Batches, Batches]) -> dict[str, Any]:
    """One row."""
    _, cut, method = job
    dependencies = trace(normalise(load(path)))
    began, fitted = time.perf_counter(), given[0]
    scores = score(dependencies, method.split(",")[0], Evidence(fitted, threads=THREADS))
    removed = plan(dependencies, scores, Target(macs=1 - cut)).removed(dependencies)
    model, notes = rewrite(dependencies, removed), []
    if method.endswith("recovered"):
        found = recover(dependencies, removed, model, fitted, threads=THREADS)
        model, notes = found.model, [found.note] if found.note else []
    seconds = round(time.perf_counter() - began, 1)
    macs = 1 - cost(dependencies, dependencies.keep(removed)).macs / cost(dependencies).macs
    error = fidelity(dependencies.model, model, given[1], threads=THREADS)["relative_l2"]
    row = dict(zip(KEYS, job, strict=True))
    return row | {"macs_cut": macs, "error": error, "seconds": seconds, "notes": notes}


def jobs() -> Iterator[tuple[str, float, str]]:
    """Model, MACs cut, method of every row."""
    yield from ((model, cut, method) for model in MODELS for cut in CUTS for method in METHODS)


def markdown(held: Mapping[str, Any]) -> str:
    """The table of the README."""
    table = [["model", "MACs cut", *METHODS, "seconds"]]
    for model in MODELS:
        for cut in CUTS:
            mine = {r["method"]: r for r in held["records"] if (r["model"], r["cut"]) == (model, cut)}
            if len(mine) == len(METHODS):
                errors = [f"{mine[m]['error']:.3f}" for m in METHODS]
                table.append([model, f"{cut:.0%}", *errors, f"{mine[METHODS[-1]]['seconds']:.0f}"])
    return markdown_table(table)


def main() -> None:
    """Run what is missing, or print the table."""
    given = arguments(__doc__, RESULTS).parse_args()
    if given.markdown:
        print(markdown(recorded(given.out)))
        return
    train, test = (np.load(given.shared / "cifar10" / f"cifar10_{n}.npz")["x"] for n in ("train_10k", "test"))

    @lru_cache(maxsize=1)
    def shown(name: str) -> tuple[Batches, Batches]:
        file, *scale = MODELS[name]
        model = load(given.shared / "wild" / file)
        return batches(model, train, FITTED, *scale), batches(model, test, HELD, *scale)

    def measured(job: tuple[str, float, str]) -> dict[str, Any]:
        return measure(given.shared / "wild" / MODELS[job[0]][0], job, shown(job[0]))

    carry_on_jobs(given, COMMAND, KEYS, jobs(), measured)


if __name__ == "__main__":
    main()
