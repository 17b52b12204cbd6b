"""Random graphs by the thousand: the laws hold on each, under random plans.

    python benchmarks/property.py [--graphs N] [--first NUMBER] [--workers N] [--out FILE]
    python benchmarks/property.py --replay NUMBER
    python benchmarks/property.py --markdown

A graph is made from its number alone (`tests/property`), of operators of the registry, and checked in float64 on onnx's
reference implementation; every fourth whose functions do not jump is also pruned by the command line, in float32 in
onnxruntime. The exit status is 1 when a law is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))  # the graphs are shared with the tests
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

from li2016 import described, markdown_table, print_table, write  # noqa: E402

from onnxprune.rules import RULES  # noqa: E402
from tests.property.check import check, check_command, steady  # noqa: E402
from tests.property.graphs import UNMADE, numbered  # noqa: E402

RESULTS = REPO / "benchmarks" / "results" / "property.json"
COMMAND = 4  # one graph in so many goes through the command line, too


def attempt(number: int) -> dict[str, Any]:
    """Check one graph: its operators, how many plans removed something, and what failed."""
    case = numbered(number)
    nodes = list(case.proto().graph.node)
    found: dict[str, Any] = {"number": number, "kinds": sorted({n.op_type for n in nodes}), "nodes": len(nodes)}
    try:
        found["plans"] = check(case, number)
        if number % COMMAND == 0 and steady(nodes):
            found["command"] = "pruned" if check_command(case) == "pruned" else "refused"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        found["failure"] = f"{type(error).__name__} in {last.name}: {' '.join(str(error).split())[:300]}"
    return found


def summarise(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts over all graphs."""
    used = Counter(kind for r in results for kind in r["kinds"])
    pruned = Counter(kind for r in results if r.get("plans") for kind in r["kinds"])
    known = {name for _, name in RULES}
    return {
        "graphs": len(results),
        "nodes": sum(r["nodes"] for r in results),
        "graphs pruned": sum(bool(r.get("plans")) for r in results),
        "plans": sum(r.get("plans", 0) for r in results),
        "command line": dict(Counter(r["command"] for r in results if "command" in r)),
        "failures": [{"number": r["number"], "failure": r["failure"]} for r in results if "failure" in r],
        "operators": {kind: [used[kind], pruned[kind]] for kind in sorted(used)},
        "not generated": {name: UNMADE.get(name, "no move makes it") for name in sorted(known - set(used))},
    }


def table(results: Mapping[str, Any]) -> list[list[str]]:
    """Rows for printing."""
    rows = [["operator", "graphs", "of them pruned"]]
    return rows + [[kind, *map(str, counts)] for kind, counts in results["operators"].items()]


def replay(number: int) -> int:
    """Print a graph, and check it without catching anything."""
    case = numbered(number)
    print(f"operator set {case.opset}: {case.signature}\n{case.body}", flush=True)
    print(f"{check(case, number)} plans hold; command line: {check_command(case)}")
    return 0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--graphs", type=int, default=3000, help="how many graphs")
    parser.add_argument("--first", type=int, default=0, help="the first graph's number")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time")
    parser.add_argument("--replay", type=int, help="check this one graph alone")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the record goes, as JSON")
    parser.add_argument("--markdown", action="store_true", help="print the record in --out and run nothing")
    return parser.parse_args()


def main() -> int:
    """Run, print, write; 1 when a law was broken."""
    options = arguments()
    if options.replay is not None:
        return replay(options.replay)
    if options.markdown:
        print(markdown_table(table(json.loads(options.out.read_text(encoding="utf-8")))))
        return 0
    started, numbers = time.perf_counter(), range(options.first, options.first + options.graphs)
    with ProcessPoolExecutor(options.workers) as pool:
        results = summarise(list(pool.map(attempt, numbers, chunksize=10)))
    command = f"python benchmarks/property.py --graphs {options.graphs} --first {options.first}"
    facts = {"command": command, "environment": described(), "seconds": round(time.perf_counter() - started)}
    write(options.out, {**facts, **results})
    print_table(table(results), f"{results['graphs']:,} random graphs")
    print(f"failures: {len(results['failures'])}")
    return 1 if results["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
