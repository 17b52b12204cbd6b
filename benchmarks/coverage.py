"""Prune every graph at hand at ratio 0.5: what exits with 0, what is left of the work, and why the rest stays.

    python benchmarks/coverage.py [--shared FOLDER] [--only GLOB] [--jobs N] [--out FILE]
    python benchmarks/coverage.py --markdown

The graphs are the exported architectures and trained files of the folder of real models (see ../README.md) and the
graphs inside the onnx wheel. An architecture comes without weights; it is given seeded random ones, once with a copy of
a shared parameter for every reader and once as exported (tied). Each graph goes through the command line in a process
of its own,

    onnxprune prune IN.onnx -o OUT.onnx --ratio 0.5 --align 1 --no-bench

which verifies that the masked and the pruned model agree; then the written file is opened and run in onnxruntime with
all its optimisations, and what is left is recounted from it. Interrupted runs go on where they were.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import onnx
from li2016 import SHARED, Rows, described, markdown_table, print_table, write

RESULTS = Path(__file__).resolve().parent / "results" / "coverage.json"
RATIO = 0.5
OPTIONS = ("--ratio", str(RATIO), "--align", "1", "--no-bench", "--overwrite", "--json")
PART = re.compile(r"\d+ of \d+ channels: ")  # how the report says that only part of a layer is held
NOTHING = {  # files in which nothing can be removed: exit 1, with the reason in one line
    "qonnx__espcn_nn_resize_quant_model": "onnx.brevitas.Quant",  # every weight passes through this custom operator
    "dtln__model_1": "the model's input",  # the caller feeds the states of all its recurrent layers
}
RUN = """
import sys
from onnxprune.runtime import random_feeds, run, session
feeds = random_feeds(sys.argv[1], batch=1, seed=1)
found = run(session(sys.argv[2]), feeds)
assert all(v.size for v in found.values())
"""


# --- the graphs ------------------------------------------------------------------------------------------------------


def graphs(shared: Path) -> Iterator[tuple[str, str, Path, bool]]:
    """(set, name, file, tied) of everything there is."""
    for path in sorted(shared.glob("skeletons/*.onnx")):
        yield "skeletons", path.stem, path, False
        yield "skeletons", path.stem, path, True
    for path in sorted(shared.glob("wild/*.onnx")):
        yield "wild", path.stem, path, False
    for path in sorted((Path(onnx.__file__).parent / "backend" / "test" / "data" / "light").glob("*.onnx")):
        yield "light", path.stem, path, False


def inflated(path: Path, tied: bool, out: Path) -> Path:
    """An exported architecture with weights."""
    spec = importlib.util.spec_from_file_location("inflate", path.with_name("inflate.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    onnx.save(module.inflate(str(path), 0, tied), out)
    return out


# --- one graph -------------------------------------------------------------------------------------------------------


def measure(family: str, name: str, path: Path, tied: bool) -> dict[str, Any]:
    """Prune one graph in a process of its own, and run what it wrote."""
    with tempfile.TemporaryDirectory(prefix="onnxprune-coverage-") as folder:
        out = Path(folder) / "pruned.onnx"
        source = inflated(path, tied, Path(folder) / "model.onnx") if family == "skeletons" else path
        began = time.perf_counter()
        command = [sys.executable, "-m", "onnxprune", "prune", str(source), "-o", str(out), *OPTIONS]
        done = subprocess.run(command, capture_output=True, text=True, env=single_threaded())
        record: dict[str, Any] = {"set": family, "name": name, "tied": tied, "exit": done.returncode}
        record["seconds"] = round(time.perf_counter() - began, 2)
        if done.returncode:
            return record | {"error": done.stderr.strip().splitlines()[-1:]}
        check = subprocess.run(
            [sys.executable, "-c", RUN, str(source), str(out)], capture_output=True, text=True, env=single_threaded()
        )
        return record | summary(json.loads(done.stdout)) | {"runs": check.returncode == 0}


def single_threaded() -> dict[str, str]:
    """This environment with one thread for numpy's BLAS: two graphs are at work at a time."""
    return dict(os.environ) | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def summary(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the table shows of a report."""
    before, after = report["before"], report["after"]
    pruned = [g for g in report["groups"] if g["channels_after"] < g["channels_before"]]
    reasons = Counter(f["reason"] for f in report["frozen"] if not PART.match(f["reason"]))
    return {
        "macs": round(after["macs"] / max(1, before["macs"]), 4),
        "params": round(after["params"] / max(1, before["params"]), 4),
        "groups": len(pruned),
        "whole": len(report["groups"]) - len(pruned),
        "frozen": sum(reasons.values()),
        "reasons": [reason for reason, _ in reasons.most_common(3)],
        "verified": report["verified"]["kind"],
        "relative": report["verified"]["max_rel"],
        "isolated": len(report.get("isolated", ())),
    }


# --- tables ----------------------------------------------------------------------------------------------------------


def rows_of(records: Sequence[Mapping[str, Any]]) -> Rows:
    """One row for each graph; an architecture's tied form stands in brackets where it differs."""
    tied = {(r["set"], r["name"]): r for r in records if r["tied"]}
    rows: Rows = [("graph", "MACs kept", "groups pruned / held", "why layers are held", "seconds")]
    for record in (r for r in records if not r["tied"]):
        other = tied.get((record["set"], record["name"]), record)
        kept = percent(record) if percent(record) == percent(other) else f"{percent(record)} ({percent(other)})"
        if record["exit"]:
            rows.append((record["name"], "-", "-", " ".join(record["error"])[:160], f"{record['seconds']:.1f}"))
            continue
        groups = f"{record['groups']} / {record['whole'] + record['frozen']}"
        rows.append((record["name"], kept, groups, "; ".join(record["reasons"]), f"{record['seconds']:.1f}"))
    return rows


def percent(record: Mapping[str, Any]) -> str:
    """MACs kept."""
    return "-" if record["exit"] else f"{record['macs']:.2f}"


def tables(results: Mapping[str, Any]) -> dict[str, Rows]:
    """A table for each set of graphs."""
    sets = {"skeletons": "Exported architectures", "wild": "Trained files", "light": "Graphs of the onnx wheel"}
    return {title: rows_of([r for r in results["records"] if r["set"] == key]) for key, title in sets.items()}


def markdown(results: Mapping[str, Any]) -> str:
    """The tables as they stand in the README."""
    return "\n\n".join(f"**{title}**\n\n{markdown_table(rows)}" for title, rows in tables(results).items())


def broken(results: Mapping[str, Any]) -> list[str]:
    """Graphs that did not end as promised: exit 0, exact, nothing isolated, and a file that onnxruntime runs."""
    return [f"{r['name']}{' (tied)' if r['tied'] else ''}" for r in results["records"] if not kept(r)]


def kept(record: Mapping[str, Any]) -> bool:
    """Whether a graph ended as promised."""
    if record["exit"]:
        return NOTHING.get(record["name"], "?") in " ".join(record["error"])
    return bool(record["runs"] and record["verified"] == "exact" and not record["isolated"])


# --- command line ----------------------------------------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of real models")
    parser.add_argument("--only", default="*", help="names of graphs, as a glob")
    parser.add_argument("--jobs", type=int, default=2, help="graphs at a time")
    parser.add_argument("--again", action="store_true", help="measure graphs that have a record, too")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the figures go")
    parser.add_argument("--markdown", action="store_true", help="print the committed tables and stop")
    return parser.parse_args()


def experiment(given: argparse.Namespace, known: dict[tuple[str, str, bool], dict[str, Any]]) -> dict[str, Any]:
    """Measure what has no record yet; every record is written as soon as it is there."""
    every = list(graphs(given.shared))
    wanted = [g for g in every if fnmatchcase(g[1], given.only) and (given.again or (g[0], g[1], g[3]) not in known)]

    def results() -> dict[str, Any]:
        order = [(family, name, tied) for family, name, _, tied in every]
        return {**described(), "ratio": RATIO, "records": [known[key] for key in order if key in known]}

    with ThreadPoolExecutor(given.jobs) as pool:
        for record in pool.map(lambda g: measure(*g), wanted):
            known[record["set"], record["name"], record["tied"]] = record
            print(json.dumps(record), flush=True)
            write(given.out, results())
    return results()


def main() -> int:
    """Run, print and write."""
    given = arguments()
    stored = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else {"records": []}
    if given.markdown:
        print(markdown(stored))
        return 0
    known = {(r["set"], r["name"], r["tied"]): r for r in stored["records"]}
    results = experiment(given, known)
    for title, rows in tables(results).items():
        print_table(rows, title)
    bad = broken(results)
    print("\n".join(f"not as promised: {name}" for name in bad) or f"all {len(results['records'])} as promised")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
