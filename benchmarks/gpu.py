"""A GPU: what uniform pruning gains there at fixed alignments, in both precisions, and a search that times there.

    python benchmarks/gpu.py [--shared FOLDER] [--only GLOB] [--ep cuda] [--seconds S] [--out FILE]
    python benchmarks/gpu.py --markdown

ResNet-50 and MobileNetV2, with seeded random weights (the time does not depend on them), at batch 1 and 64:

- `uniform`: half of the multiply-accumulates go (`--macs 0.5`) at several alignments, in float32 (TensorFloat-32, which
  is onnxruntime's default) and in float16 (`bench --fp16`); the dense model, the same once more (the A/A control) and
  all pruned ones take turns in one process;
- `search`: `--speedup S --ep cuda` in float32, then the result against the dense model in fresh processes that the
  search knows nothing of.

Inputs and outputs lie on the device and every inference waits for it. Raw samples are kept, in ms. An interrupted run
goes on where it was; with --seconds nothing new is begun after that time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from coverage import inflated
from latency import MODELS, Case, arguments, recorded
from li2016 import markdown_table

from onnxprune import runtime
from onnxprune.align import width_step
from onnxprune.bench import FULL, QUICK, bench, interval
from onnxprune.bench.measure import measure
from onnxprune.errors import OnnxpruneError, PlanError
from onnxprune.fit import fit
from onnxprune.importance import score
from onnxprune.model import Model, load
from onnxprune.normalise import normalise
from onnxprune.plan import Limits, Target, plan
from onnxprune.profile import profiler_of, save
from onnxprune.rewrite import rewrite
from onnxprune.trace import trace

RESULTS = Path(__file__).resolve().parent / "results" / "gpu.json"
NAMES = ("ResNet-50", "MobileNetV2")
BATCHES = (64, 1)
PRECISIONS = ("fp32", "fp16")
ALIGNS = (1, 8, 32, 64)
MACS = 0.5
SEARCHES = (  # what counts most comes first
    ("ResNet-50", 64, 1.5),
    ("MobileNetV2", 64, 1.5),
    ("ResNet-50", 1, 1.5),
    ("ResNet-50", 64, 2.0),
)
PROTOCOL = replace(QUICK, budget_s=5.0, warm_s=0.5)
FRESH = replace(FULL, processes=3, budget_s=2.0, loads=0)
COMMAND = "python benchmarks/gpu.py --shared ../shared"


class OnDevice(Case):
    """One model at one batch size, traced, with what it is timed on."""

    def __init__(self, path: Path, batch: int, provider: str) -> None:
        self.provider = provider
        self.original: Model = load(path)
        self.dependencies = trace(normalise(self.original))
        self.scores = score(self.dependencies)
        self.feeds = runtime.random_feeds(self.original, batch=batch)
        self.step = width_step(provider=provider).step

    def uniform(self, precision: str) -> dict[str, Any]:
        """Half of the multiply-accumulates gone at every alignment, timed in one run."""
        pruned, plans = {}, {}
        for align in sorted({*ALIGNS, self.step}):
            try:
                chosen = plan(self.dependencies, self.scores, Target(macs=MACS), Limits(align=align))
            except PlanError:
                continue
            removed = chosen.removed(self.dependencies)
            pruned[f"align {align}"] = rewrite(self.dependencies, removed)
            plans[f"align {align}"] = {"macs": self.macs(removed), "kept": self.kept(removed)}
        return self.in_turn(pruned, precision) | {"plans": plans, "step": self.step}

    def in_turn(self, pruned: Mapping[str, Model], precision: str) -> dict[str, Any]:
        """Time models, the dense one and its control against each other."""
        models = {"dense": self.original, "control": self.original, **pruned}
        began = time.perf_counter()
        runners = {name: self.runner(model, precision) for name, model in models.items()}
        opening = time.perf_counter() - began
        found = measure(runners, protocol=PROTOCOL)
        times = {name: np.array(t) for name, t in found.times.items()}
        return {
            "open_s": round(opening / len(models), 2),
            "inner": found.inner,
            "speedups": {name: against(times["dense"], t) for name, t in times.items() if name != "dense"},
            "samples_ms": {name: np.round(t, 5).tolist() for name, t in times.items()},
        }

    def runner(self, model: Model, precision: str) -> Callable[[], None]:
        """One inference on the device."""
        half = precision == "fp16"
        opened = runtime.session(runtime.half(model) if half else model, provider=self.provider, fp16=half)
        return runtime.runner(opened, self.feeds)

    def search(self, speedup: float) -> dict[str, Any]:
        """Plan for a speedup by timing on the device, and measure what came of it."""
        began = time.perf_counter()
        profiler = profiler_of(self.dependencies, self.feeds, self.step, provider=self.provider)
        found = fit(self.original, profiler, self.scores, Target(speedup=speedup), Limits(align=self.step))
        seconds = round(time.perf_counter() - began, 1)
        save(profiler)
        removed = found.plan.removed(self.dependencies)
        pair = self.original, rewrite(self.dependencies, removed)
        again = bench(*pair, feeds=self.feeds, provider=self.provider, protocol=FRESH)
        kept = {k: v for k, v in again.to_dict().items() if k != "environment"}
        record = {"asked": speedup, "fit": found.to_dict(), "seconds": seconds, "measured": kept, "step": self.step}
        return record | {"macs": self.macs(removed), "kept": self.kept(removed)}


def against(dense: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    """How much faster another model is, paired round by round."""
    ratios = dense / other
    return {"speedup": float(np.median(ratios)), "ci95": list(interval(ratios))}


# --- everything ------------------------------------------------------------------------------------------------------


def wanted() -> Iterator[dict[str, Any]]:
    """Everything to measure, what says most first."""
    for batch, name, precision in product(BATCHES, NAMES, PRECISIONS):
        yield {"kind": "uniform", "model": name, "batch": batch, "precision": precision}
    for name, batch, speedup in SEARCHES:
        yield {"kind": "search", "model": name, "batch": batch, "asked": speedup}


def measured(head: Mapping[str, Any], given: argparse.Namespace) -> dict[str, Any]:
    """One record; an error of the tool is a result, too."""
    began = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(prefix="onnxprune-benchmark-") as folder:
            path = inflated(given.shared / MODELS[head["model"]], False, Path(folder) / "model.onnx")
            case = OnDevice(path, head["batch"], given.ep)
            found = case.search(head["asked"]) if head["kind"] == "search" else case.uniform(head["precision"])
    except OnnxpruneError as error:
        found = {"error": str(error)}
    return {**head, **found, "took_s": round(time.perf_counter() - began, 1)}


def environment(provider: str) -> dict[str, Any]:
    """Software, processor and device."""
    return runtime.environment() | runtime.device(runtime.provider_name(provider))


def carry_on(given: argparse.Namespace) -> None:
    """Measure what has no record yet, until the time is over; every record is kept at once."""
    held = recorded(given.out)
    records = list(held.get("records", ()))
    known = {label(record) for record in records}
    staircase = held.get("width_step") or vars(width_step(provider=given.ep))
    for head in wanted():
        if label(head) in known or not fnmatchcase(label(head), given.only) or time.perf_counter() > given.seconds:
            continue
        records.append(measured(head, given))
        print(line(records[-1]), flush=True)
        found = {"command": COMMAND, "environment": environment(given.ep), "width_step": staircase, "records": records}
        given.out.write_text(json.dumps(found) + "\n", encoding="utf-8")


def label(record: Mapping[str, Any]) -> str:
    """What a record is of."""
    last = f"{record['asked']}x" if record["kind"] == "search" else record["precision"]
    return f"{record['model']}, batch {record['batch']}, {last}"


def line(record: Mapping[str, Any]) -> str:
    """One record in words."""
    head = f"{label(record)} ({record['took_s']:.0f} s): "
    if "error" in record:
        return f"{head}{record['error']}"
    if record["kind"] == "search":
        return head + " | ".join(search_row(record)[3:])
    return head + f"{dense_ms(record):.3f} ms; " + "; ".join(f"{n} {cell(record, n)}" for n in record["speedups"])


# --- tables ----------------------------------------------------------------------------------------------------------


def dense_ms(record: Mapping[str, Any]) -> float:
    """Median time of the dense model."""
    return float(np.median(record["samples_ms"]["dense"]))


def cell(record: Mapping[str, Any], name: str) -> str:
    """A speedup with its interval; how many times fewer multiply-accumulates there are, and the importance kept."""
    if (found := record["speedups"].get(name)) is None:
        return "-"
    chosen = record["plans"].get(name)
    rest = f"; {chosen['macs']:.2f}, {chosen['kept']:.3f}" if chosen else ""
    return "{:.2f} ({:.2f} to {:.2f})".format(found["speedup"], *found["ci95"]) + rest


def uniform_row(record: Mapping[str, Any]) -> list[str]:
    """One line of the table of uniform plans."""
    head = [record["model"], str(record["batch"]), record["precision"]]
    if "error" in record:
        return [*head, record["error"], *["-"] * (len(ALIGNS) + 1)]
    return [*head, f"{dense_ms(record):.3f}", *(cell(record, n) for n in ["control", *(f"align {a}" for a in ALIGNS)])]


def search_row(record: Mapping[str, Any]) -> list[str]:
    """One line of the table of searches."""
    head = [record["model"], str(record["batch"]), f"{record['asked']}"]
    if "error" in record:
        return [*head, record["error"], *["-"] * 5]
    m, found = record["measured"], record["fit"]
    bounds = "{:.2f} ({:.2f} to {:.2f})".format(m["speedup"], *m["ci95"])
    control = "{:.2f} ({:.2f} to {:.2f})".format(m["control"], *m["control_ci95"])
    times = f"{m['before_ms']:.3f} to {m['after_ms']:.3f}"
    reached = "" if found["reached"] else " not met"
    return [*head, bounds + reached, times, control, f"{record['macs']:.2f}", f"{record['kept']:.3f}"]


UNIFORM_HEADERS = ["model", "batch", "precision", "dense, ms", "A/A control", *(f"align {a}" for a in ALIGNS)]
SEARCH_HEADERS = ["model", "batch", "asked", "measured (95%)", "ms", "A/A control", "MACs cut", "kept"]


def markdown(held: Mapping[str, Any]) -> str:
    """The tables of the README."""
    by: dict[str, Sequence[Mapping[str, Any]]] = {
        kind: [r for r in held["records"] if r["kind"] == kind] for kind in ("uniform", "search")
    }
    tables = [[UNIFORM_HEADERS, *map(uniform_row, by["uniform"])], [SEARCH_HEADERS, *map(search_row, by["search"])]]
    return "\n\n".join(markdown_table(table) for table in tables if len(table) > 1)


def main() -> None:
    """Run what is missing, or print the tables."""
    parser = arguments(__doc__, RESULTS)
    parser.add_argument("--ep", default="cuda")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    given = parser.parse_args()
    if given.markdown:
        print(markdown(recorded(given.out)))
    else:
        given.seconds += time.perf_counter()
        carry_on(given)


if __name__ == "__main__":
    main()
