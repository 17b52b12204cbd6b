"""What a parent and its workers hand to each other, as files. Law: what is read is what was written, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxprune import errors
from onnxprune.bench.measure import Samples
from onnxprune.bench.pair import Measured
from onnxprune.errors import OnnxpruneError
from onnxprune.runtime import Feeds

Entry = dict[str, Any]  # a file, and the name and ONNX type of each array in it


def write_feeds(feeds: Feeds, path: Path) -> Entry:
    """Store arrays; under numbers, as inputs may bear any name, and as bytes where numpy lacks the type (bfloat16)."""
    arrays = [np.asarray(a, order="C") for a in feeds.values()]
    kinds = [onnx.helper.np_dtype_to_tensor_dtype(a.dtype) for a in arrays]
    plain = {str(n): a if a.dtype.isbuiltin == 1 else a.view(f"u{a.itemsize}") for n, a in enumerate(arrays)}
    np.savez(path, **plain)  # type: ignore[arg-type]
    return {"file": str(path), "names": list(feeds), "kinds": kinds}


def read_feeds(entry: Entry) -> Feeds:
    """The arrays that `write_feeds` stored."""
    with np.load(entry["file"], allow_pickle=False) as held:
        arrays = [held[str(n)] for n in range(len(entry["names"]))]
    dtypes = [onnx.helper.tensor_dtype_to_np_dtype(kind) for kind in entry["kinds"]]
    return {n: a.view(d) for n, a, d in zip(entry["names"], arrays, dtypes, strict=True)}


def write_measured(found: Measured, folder: Path) -> dict[str, Any]:
    """JSON of what a process measured; single inferences, which may be millions, go to an archive."""
    singles = {f"{n} {name}": np.asarray(a) for n, s in enumerate(found.samples) for name, a in s.singles.items()}
    np.savez(folder / "singles.npz", **singles)  # type: ignore[arg-type]
    samples = [{"times": dict(s.times), "inner": s.inner} for s in found.samples]
    return {"samples": samples, "provider": found.provider, "options": found.options, "nodes": found.nodes}


def read_measured(result: Mapping[str, Any], folder: Path) -> Measured:
    """What `write_measured` stored, with the cores the worker ran on."""
    samples = []
    with np.load(folder / "singles.npz", allow_pickle=False) as held:
        for n, entry in enumerate(result["samples"]):
            times = {name: tuple(values) for name, values in entry["times"].items()}
            samples.append(Samples(times, entry["inner"], {name: held[f"{n} {name}"] for name in times}))
    return Measured(tuple(samples), result["provider"], result["options"], tuple(result["cores"]), result["nodes"])


def error_entry(error: OnnxpruneError) -> dict[str, Any]:
    """An error of ours as JSON."""
    return {"error": type(error).__name__, "parts": [error.what, error.where, error.remedy]}


def read_result(path: Path) -> dict[str, Any]:
    """A worker's result.

    Raises:
        OnnxpruneError: The one the worker met.
    """
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if "error" in result:
        what, where, remedy = result["parts"]
        raise getattr(errors, result["error"])(what, where=where, remedy=remedy)
    return result
