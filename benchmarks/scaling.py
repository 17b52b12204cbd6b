"""Time and memory of trace, score, plan and rewrite: a ResNet-50, and growth with depth and width.

    python benchmarks/scaling.py [--repeats N] [--out FILE]
    python benchmarks/scaling.py --markdown

Every measurement is a process of its own. It imports everything, prunes a tiny model once (what is loaded or built on
first use is then there), notes its memory, and only then loads the model. Peak memory is counted from that note, so it
includes the loaded model itself, and the loaded and the normalised model are held to the end, as `onnxprune prune`
holds them; it is divided by the bytes of the model's weights. The exit status is 1 when a ResNet-50 takes longer, or
more memory, than promised, or when growth is faster than linear.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from li2016 import Network, Rows, described, markdown_table, print_table, write

from onnxprune.importance import score
from onnxprune.model import from_proto, load
from onnxprune.normalise import normalise
from onnxprune.plan import Limits, Target, plan
from onnxprune.rewrite import rewrite
from onnxprune.trace import trace

RESULTS = Path(__file__).resolve().parent / "results" / "scaling.json"
RATIO, ALIGN = 0.3, 8

SECONDS, MEMORY = 1.5, 2.5  # promised for a ResNet-50, memory in sizes of the model
EXPONENT = 1.1  # promised for growth, to the one decimal that the fit is good for
STAGES = ("trace", "score", "plan", "rewrite")  # what the promise counts
BEFORE = ("load", "normalise")
DEPTHS, WIDTHS = (50, 100, 200, 400, 800), (64, 128, 256, 512)
THIN, SHALLOW = 8, 16  # width of the deep networks, blocks of the wide ones


# --- the networks ----------------------------------------------------------------------------------------------------


def bottlenecks(depths: Sequence[int], width: int) -> onnx.ModelProto:
    """A ResNet of bottleneck blocks for 224 x 224 images; (3, 4, 6, 3) and 64 is ResNet-50.

    Args:
        depths: Blocks in each stage; every stage but the first halves the image and doubles the width.
        width: Channels inside the first stage's blocks.
    """
    net = Network()
    net.width["input"] = 3
    x = net.conv("input", "stem", width, kernel=7, stride=2)
    x = net.add("MaxPool", [x], width, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for stage, blocks in enumerate(depths):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            x = bottleneck(net, x, f"stage{stage}.{block}", width << stage, stride)
    x = net.add("Flatten", [net.add("GlobalAveragePool", [x], net.width[x])], net.width[x])
    return net.model("resnet", net.dense(x, "fc", 1000), 224)


def bottleneck(net: Network, x: str, name: str, width: int, stride: int) -> str:
    """1x1, 3x3 and 1x1 convolutions beside a shortcut, which is projected where the shape changes."""
    shortcut = x
    if stride != 1 or net.width[x] != 4 * width:
        shortcut = net.conv(x, f"{name}.shortcut", 4 * width, kernel=1, stride=stride, relu=False)
    x = net.conv(x, f"{name}.conv1", width, kernel=1)
    x = net.conv(x, f"{name}.conv2", width, stride=stride)
    x = net.conv(x, f"{name}.conv3", 4 * width, kernel=1, relu=False)
    return net.relu(net.add("Add", [x, shortcut], 4 * width))


# --- one measurement, in a process of its own ------------------------------------------------------------------------


def memory(field: str) -> int:
    """Bytes of this process: VmRSS is what it holds now, VmHWM the most it ever held.

    The kernel's own figures are read where it has them: `ru_maxrss` of a child starts at what its parent held.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak() -> None:
    """Let the kernel count the peak anew; where it cannot, the peak of a stage includes those before it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def stages(source: Callable[[], Any]) -> tuple[Any, dict[str, dict[str, float]]]:
    """Run every stage; the rewritten model, and for each stage its seconds, processor seconds and peak memory."""
    spent: dict[str, dict[str, float]] = {}

    def timed(name: str, call: Callable[..., Any], *given: Any) -> Any:
        forget_peak()
        wall, processor = time.perf_counter(), time.process_time()
        result = call(*given)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        spent[name] = {"seconds": wall, "processor_seconds": processor, "peak_bytes": memory("VmHWM")}
        return result

    original = timed("load", source)
    dependencies = timed("trace", trace, timed("normalise", normalise, original))
    scores = timed("score", score, dependencies)
    chosen = timed("plan", plan, dependencies, scores, Target(ratio=RATIO), Limits(align=ALIGN))
    pruned = timed("rewrite", lambda: rewrite(dependencies, chosen.removed(dependencies)))
    return pruned, spent


def measure(path: Path) -> dict[str, Any]:
    """Measure one model file in this process."""
    stages(lambda: from_proto(bottlenecks((1, 1), 8)))
    before = memory("VmRSS")
    pruned, spent = stages(lambda: load(path))
    for stage in spent.values():
        stage["peak_bytes"] = max(0, stage["peak_bytes"] - before)
    return {"params_kept": pruned.params, "stages": spent}


# --- many measurements -----------------------------------------------------------------------------------------------


CASES: dict[str, tuple[tuple[int, ...], int]] = {  # blocks in each stage, width
    "ResNet-50": ((3, 4, 6, 3), 64),
    **{f"{n} blocks": ((n,), THIN) for n in DEPTHS},
    **{f"width {w}": ((SHALLOW,), w) for w in WIDTHS},
}


def experiment(repeats: int) -> dict[str, Any]:
    """All measurements, the models taking turns: what happens to the machine meanwhile happens to all of them."""
    raw: dict[str, list[dict[str, Any]]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory() as folder:
        facts = {name: store(path_of(folder, name), name) for name in CASES}
        for _ in range(repeats):
            for name in CASES:
                raw[name].append(child(path_of(folder, name)))
    cases = {
        name: {**facts[name], **summary(raw[name], facts[name]["bytes"]), "raw": columns(raw[name])} for name in CASES
    }
    depth, width = [[cases[name] for name in cases if word in name] for word in ("blocks", "width")]
    return {
        "settings": {"ratio": RATIO, "align": ALIGN, "criterion": "l1", "repeats": repeats, "threads": 1},
        "environment": described(),
        "cases": list(cases.values()),
        "exponent": {"nodes": growth(depth, "nodes"), "params": growth(width, "params")},
    }


def columns(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """The raw measurements: stage -> clock -> one figure a process, times to the microsecond."""
    first = runs[0]["stages"]
    return {n: {c: [round(r["stages"][n][c], 6) for r in runs] for c in clocks} for n, clocks in first.items()}


def path_of(folder: str, name: str) -> Path:
    """Where a case's model lies."""
    return Path(folder) / f"{name.replace(' ', '_')}.onnx"


def store(path: Path, name: str) -> dict[str, Any]:
    """Write a case's model; its facts."""
    depths, width = CASES[name]
    proto = bottlenecks(depths, width)
    path.write_bytes(proto.SerializeToString())
    model = from_proto(proto)
    sizes = {"nodes": len(model.proto.graph.node), "params": model.params, "bytes": model.nbytes}
    return {"name": name, "depths": list(depths), "width": width, **sizes}


def child(path: Path) -> dict[str, Any]:
    """One measurement, on one thread."""
    own = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    own["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # the package that this process imported
    command = [sys.executable, __file__, "--measure", str(path)]
    done = subprocess.run(command, env={**os.environ, **own}, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def summary(runs: Sequence[Mapping[str, Any]], size: int) -> dict[str, Any]:
    """Median and range of the seconds and of the peak memory: of the whole run, and of the stages after loading."""
    peaks = [max(stage["peak_bytes"] for stage in r["stages"].values()) for r in runs]
    after = [max(r["stages"][name]["peak_bytes"] for name in STAGES) for r in runs]
    return {
        "seconds": clocked(runs, "seconds"),
        "processor_seconds": clocked(runs, "processor_seconds"),
        "peak_bytes": spans(peaks),
        "peak_over_size": spans([peak / size for peak in peaks]),
        "stages_peak_over_size": spans([peak / size for peak in after]),
    }


def clocked(runs: Sequence[Mapping[str, Any]], clock: str) -> dict[str, dict[str, float]]:
    """Median and range of one clock for every stage, and for the sum of those that count."""
    times = {name: [r["stages"][name][clock] for r in runs] for name in (*BEFORE, *STAGES)}
    times["total"] = [sum(r["stages"][name][clock] for name in STAGES) for r in runs]
    return {name: spans(values) for name, values in times.items()}


def spans(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": round(float(np.median(values)), 6), "least": round(min(values), 6), "most": round(max(values), 6)}


def exponent(cases: Sequence[Mapping[str, Any]], size: str, cost: Callable[[Mapping[str, Any]], float]) -> float:
    """Slope of log cost over log size by least squares: 1 is linear growth."""
    x, y = [c[size] for c in cases], [cost(c) for c in cases]
    return round(float(np.polyfit(np.log(x), np.log(y), 1)[0]), 3)


def least(stage: str, case: Mapping[str, Any]) -> float:
    """The least processor time of a stage."""
    return float(case["processor_seconds"][stage]["least"])


def growth(cases: Sequence[Mapping[str, Any]], size: str) -> dict[str, dict[str, float]]:
    """Exponents of every cost over all cases, and over the two largest, where constants count least.

    Times are the processor's, and the least of each: other programs can only add to it.
    """
    costs: dict[str, Callable[[Mapping[str, Any]], float]] = {n: partial(least, n) for n in (*BEFORE, *STAGES, "total")}
    costs["peak"] = lambda c: float(c["peak_bytes"]["median"])
    ranges = {"all": cases, "largest": cases[-2:]}
    return {over: {n: exponent(some, size, cost) for n, cost in costs.items()} for over, some in ranges.items()}


def broken(results: Mapping[str, Any]) -> list[str]:
    """The promises that do not hold."""
    case, grown = results["cases"][0], results["exponent"]
    found = {
        f"{SECONDS} s for a ResNet-50": case["seconds"]["total"]["median"] / SECONDS,
        f"{MEMORY} x the model's size in memory": case["peak_over_size"]["most"] / MEMORY,
        "linear in nodes": round(grown["nodes"]["all"]["total"], 1) / EXPONENT,
        "linear in weights": round(grown["params"]["all"]["total"], 1) / EXPONENT,
    }
    return [promise for promise, share in found.items() if share > 1]


# --- results ---------------------------------------------------------------------------------------------------------


def case_table(cases: Sequence[Mapping[str, Any]]) -> Rows:
    """Times and memory of cases, the header first."""
    rows = [
        ["model", "nodes", "params", *BEFORE, *STAGES, "total", "least to most", "peak, MB", "x size", "stages, x size"]
    ]
    for c in cases:
        total = c["seconds"]["total"]
        cells = [milliseconds(c["seconds"][name]["median"]) for name in (*BEFORE, *STAGES, "total")]
        span = f"{milliseconds(total['least'])} to {milliseconds(total['most'])}"
        sizes = [f"{c[key]['median']:.2f}" for key in ("peak_over_size", "stages_peak_over_size")]
        last = [span, f"{c['peak_bytes']['median'] / 1e6:.0f}", *sizes]
        rows.append([c["name"], f"{c['nodes']:,}", f"{c['params'] / 1e6:.2f} M", *cells, *last])
    return rows


def milliseconds(seconds: float) -> str:
    """Whole milliseconds, or tenths of small ones."""
    return f"{1000 * seconds:.0f}" if seconds >= 0.01 else f"{1000 * seconds:.1f}"


def growth_table(exponents: Mapping[str, Any]) -> Rows:
    """Exponents, the header first."""
    names = list(exponents["nodes"]["all"])
    rows = [["growth in", "over", *names]]
    for size, kinds in exponents.items():
        rows += [[size, over, *(f"{values[n]:.2f}" for n in names)] for over, values in kinds.items()]
    return rows


def tables(results: Mapping[str, Any]) -> dict[str, Rows]:
    """Every table by its title."""
    return {
        "Milliseconds (total: trace + score + plan + rewrite) and peak memory": case_table(results["cases"]),
        "Growth of processor time and peak memory, as exponents (1: linear)": growth_table(results["exponent"]),
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7, help="processes for each model")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the figures go, as JSON")
    parser.add_argument("--markdown", action="store_true", help="print the figures in --out and run nothing")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)  # what a child process is called with
    return parser.parse_args()


def markdown(results: Mapping[str, Any]) -> str:
    """The committed figures as Markdown."""
    return "\n\n".join(f"{title}:\n\n{markdown_table(rows)}" for title, rows in tables(results).items())


def main() -> int:
    """Run, print, write; 1 when a promise is broken."""
    options = arguments()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return 0
    if options.markdown:
        print(markdown(json.loads(options.out.read_text(encoding="utf-8"))))
        return 0
    results = {"command": f"python benchmarks/scaling.py --repeats {options.repeats}", **experiment(options.repeats)}
    for title, rows in tables(results).items():
        print_table(rows, title)
    write(options.out, results)
    missed = broken(results)
    print(f"broken: {'; '.join(missed)}" if missed else "every promise holds")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
