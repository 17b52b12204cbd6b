"""Large models: 36,702 nodes, and 3 GB of weights in a file of their own.

    python benchmarks/large.py [--shared FOLDER] [--repeats N] [--out FILE]
    python benchmarks/large.py --markdown

Every run is a fresh process that prunes one file as `onnxprune prune --ratio 0.5 --align 1 --no-bench` does, loading,
verification and saving included, on one thread. While it runs, its memory is read every 20 ms: what it allocated
("own"), and that with what of mapped files happens to be resident, which the system takes back whenever something else
needs it ("resident"). Both are counted from what the process held before. The exit status is 1 when tracing and
rewriting the graph of many nodes take more than 20 s, or the heavy model more than 1.5 times its size.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
from coverage import inflated
from li2016 import SHARED, Rows, described, markdown_table, print_table, write
from onnx import TensorProto, helper

from onnxprune.pipeline import Options, prune
from onnxprune.plan import Target

RESULTS = Path(__file__).resolve().parent / "results" / "large.json"
SECONDS, MEMORY = 20.0, 1.5  # promised
WIDTH, LAYERS = 8192, 12  # 12 matrices of 268 MB
NODES = "skeletons/swin3d_s_ts.onnx"
STAGES = ("load", "trace", "plan", "rewrite", "verify", "save")


def heavy(path: Path) -> Path:
    """A chain of matrix products and ReLUs with 3.2 GB of weights in a file beside it, written piece by piece."""
    rng, data = np.random.default_rng(0), path.with_suffix(".data")
    nodes, weights, x = [], [], "x"
    with data.open("wb") as file:
        for k in range(LAYERS):
            tensor = TensorProto(name=f"w{k}", data_type=TensorProto.FLOAT, dims=[WIDTH, WIDTH])
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", data.name), ("offset", file.tell()), ("length", 4 * WIDTH * WIDTH)):
                tensor.external_data.add(key=key, value=str(value))
            for _ in range(8):
                file.write((rng.standard_normal((WIDTH // 8, WIDTH), np.float32) * WIDTH**-0.5).tobytes())
            weights.append(tensor)
            nodes.append(helper.make_node("MatMul", [x, f"w{k}"], [f"h{k}"], name=f"fc{k}"))
            nodes.append(helper.make_node("Relu", [f"h{k}"], [f"r{k}"], name=f"relu{k}"))
            x = f"r{k}"
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ("N", WIDTH)) for n in ("x", x)]
    graph = helper.make_graph(nodes, "heavy", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


# --- one run, in a process of its own --------------------------------------------------------------------------------


def held() -> tuple[int, int]:
    """Bytes of this process: its own, and all that is resident."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    own, whole = (int(lines[key].split()[0]) * 1024 for key in ("RssAnon", "VmRSS"))
    return own, whole


@contextmanager
def watched(peaks: dict[str, list[int]], stage: list[str]) -> Iterator[None]:
    """Note the most memory of each stage while the block runs."""
    base, done = held(), threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            now = [max(0, a - b) for a, b in zip(held(), base, strict=True)]
            peaks[stage[0]] = [max(a, b) for a, b in zip(now, peaks.get(stage[0], [0, 0]), strict=True)]

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def measure(path: Path) -> dict[str, Any]:
    """Prune one file in this process: seconds and peak memory of every stage."""
    from onnxprune.runtime.sessions import onnxruntime

    onnxruntime()  # what it takes to import is not the model's
    peaks: dict[str, list[int]] = {}
    stage, starts = ["load"], {"load": time.perf_counter()}

    def observe(name: str, _: float) -> None:
        if name != stage[0]:
            stage[0] = name
            starts[name] = time.perf_counter()

    out = path.with_name("pruned.onnx")
    with watched(peaks, stage):
        options = Options(align=1, time=False, overwrite=True)
        done = prune(path, out, Target(ratio=0.5), options=options, observe=observe)
        ends = [*list(starts.values())[1:], time.perf_counter()]
    seconds = {name: round(end - start, 3) for (name, start), end in zip(starts.items(), ends, strict=True)}
    report = done.report
    return {
        "seconds": seconds,
        "own_bytes": {name: peak[0] for name, peak in peaks.items()},
        "resident_bytes": {name: peak[1] for name, peak in peaks.items()},
        "verified": report.verified.kind,
        "macs_kept": report.after.macs / report.before.macs,
        "bytes": report.before.bytes,
        "nodes": len(done.model.proto.graph.node),
    }


# --- many runs -------------------------------------------------------------------------------------------------------


def child(path: Path) -> dict[str, Any]:
    """One run."""
    own = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    command = [sys.executable, __file__, "--measure", str(path)]
    done = subprocess.run(command, env={**os.environ, **own}, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def experiment(given: argparse.Namespace) -> dict[str, Any]:
    """All runs."""
    with tempfile.TemporaryDirectory(prefix="onnxprune-large-") as folder:
        path = Path(folder) / "model.onnx"
        made = {"3 GB": lambda: heavy(path)}
        if (given.shared / NODES).exists():
            made = {"swin3d_s, 36,702 nodes": lambda: inflated(given.shared / NODES, False, path), **made}
        runs: dict[str, list[dict[str, Any]]] = {}
        for name, make in made.items():
            make()
            runs[name] = [child(path) for _ in range(given.repeats)]
    return {**described(), "runs": runs}


def table(results: Mapping[str, Any]) -> Rows:
    """Medians of every stage, and the most memory."""
    rows: Rows = [["model", *STAGES, "trace + rewrite, s", "own memory, x size", "resident, x size", "MACs kept"]]
    for name, runs in results["runs"].items():
        stages = [f"{median(r['seconds'].get(stage, 0.0) for r in runs):.2f}" for stage in STAGES]
        both = max(r["seconds"]["trace"] + r["seconds"]["rewrite"] for r in runs)
        memory = [f"{most(runs, key):.2f}" for key in ("own_bytes", "resident_bytes")]
        rows.append([name, *stages, f"{both:.2f}", *memory, f"{runs[0]['macs_kept']:.2f}"])
    return rows


def most(runs: Sequence[Mapping[str, Any]], key: str) -> float:
    """The most memory over all stages and runs, in sizes of the model."""
    return max(max(r[key].values()) / r["bytes"] for r in runs)


def broken(results: Mapping[str, Any]) -> list[str]:
    """The promises that do not hold."""
    found = []
    for name, runs in results["runs"].items():
        if "nodes" in name and any(r["seconds"]["trace"] + r["seconds"]["rewrite"] > SECONDS for r in runs):
            found.append(f"{SECONDS} s for {name}")
        if "GB" in name and most(runs, "own_bytes") > MEMORY:
            found.append(f"{MEMORY} x the size of {name}")
    return found


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of real models")
    parser.add_argument("--repeats", type=int, default=3, help="processes for each model")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the figures go, as JSON")
    parser.add_argument("--markdown", action="store_true", help="print the committed table and run nothing")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def markdown(results: Mapping[str, Any]) -> str:
    """The committed figures as Markdown."""
    return markdown_table(table(results))


def main() -> int:
    """Run, print, write; 1 when a promise is broken."""
    given = arguments()
    if given.measure:
        print(json.dumps(measure(given.measure)))
        return 0
    if given.markdown:
        print(markdown(json.loads(given.out.read_text(encoding="utf-8"))))
        return 0
    results = {"command": f"python benchmarks/large.py --repeats {given.repeats}", **experiment(given)}
    print_table(table(results), "Large models: seconds of every stage, and memory")
    write(given.out, results)
    missed = broken(results)
    print(f"broken: {'; '.join(missed)}" if missed else "every promise holds")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
