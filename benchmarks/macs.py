"""What a plan for a time could keep of the multiply-accumulates, and what that costs in importance and accuracy.

    python benchmarks/macs.py [--shared FOLDER] [--only GLOB] [--out FILE]
    python benchmarks/macs.py --markdown

The search maximises the importance that stays; here it maximises importance + weight x MACs, both as logarithms of the
share that stays (importance: mean over layers). Weight 1 is what `onnxprune prune --speedup` plans with; "only" counts
MACs alone, and is the most that any plan found keeps at that time. Speedups are those that the table of measured times
expects, the same table for all weights; nothing is measured again. Accuracy is that of the trained ResNet-56 on the
10,000 test images, without any recovery.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from latency import SPEEDUPS, Case, accuracy, arguments, carry_on, opened, recorded
from li2016 import markdown_table

from onnxprune.plan.knapsack import Search, within
from onnxprune.plan.levels import choices_of
from onnxprune.profile import profile, removed_by, save
from onnxprune.rewrite import rewrite

RESULTS = Path(__file__).resolve().parent / "results" / "macs.json"
COMMAND = "python benchmarks/macs.py --shared ../shared"
ONLY = 1e6  # a weight beside which importance does not count
WEIGHTS = {"0": 0.0, "0.1": 0.1, "0.3": 0.3, "1": 1.0, "only": ONLY}
MILD = {"ResNet-56": (1.1, 1.2, 1.3)}  # speedups at which accuracy is not lost altogether


def planned(case: Case, speedup: float, weight: float) -> dict[str, Any] | None:
    """The plan for a time with a weight on MACs; None where none is that fast."""
    choices = choices_of(case.dependencies, case.profiler.terms, case.levels)
    found = within(Search.of(case.profiler.table().price, choices, weight), case.profiler.dense_ms / speedup)
    if found is None:
        return None
    removed = removed_by(case.dependencies, case.levels, found.chosen.tolist())
    fact = {"speedup": case.profiler.dense_ms / found.total, "macs": case.macs(removed), "kept": case.kept(removed)}
    return fact | {"accuracy": accuracy(case, rewrite(case.dependencies, removed))}


def measure_model(name: str, path: Path) -> dict[str, Any]:
    """All targets and weights for one model."""
    with opened(path) as case:
        profile(case.profiler, case.levels)
        save(case.profiler)
        targets = []
        for speedup in (*MILD.get(name, ()), *SPEEDUPS):
            plans = {label: planned(case, speedup, weight) for label, weight in WEIGHTS.items()}
            targets.append({"asked": speedup, "plans": plans})
            print(name, cells(targets[-1]), flush=True)
    return {"model": name, "targets": targets}


def cells(target: Mapping[str, Any]) -> list[str]:
    """One row of the table: speedup / MACs cut, importance kept, accuracy, by weight."""
    found = [f"{target['asked']}"]
    for plan in target["plans"].values():
        if plan is None:
            found.append("-")
            continue
        right = "" if plan["accuracy"] is None else f", {plan['accuracy']:.1%}"
        found.append(f"{plan['speedup'] / plan['macs']:.2f}, {plan['kept']:.3f}{right}")
    return found


def markdown(held: Mapping[str, Any]) -> str:
    """The table of the README, and what it comes to."""
    rows = [[r["model"], *cells(t)] for r in held["records"] for t in r["targets"]]
    every = [t["plans"] for r in held["records"] for t in r["targets"] if t["asked"] in SPEEDUPS and t["plans"]["0"]]
    means = []
    for label in WEIGHTS:
        ratios = [p[label]["speedup"] / p[label]["macs"] for p in every]
        kept = np.exp(np.mean([np.log(p[label]["kept"] / p["0"]["kept"]) for p in every]))
        means.append(f"{label}: {np.exp(np.mean(np.log(ratios))):.2f} ({sum(q >= 0.9 for q in ratios)}, {kept:.3f})")
    head = ["model", "asked", *(f"weight {label}" for label in WEIGHTS)]
    what = f"Geometric mean of speedup / MACs over {len(every)} targets that are in reach"
    also = "how many are 0.9 or more, importance kept over that of weight 0"
    return f"{markdown_table([head, *rows])}\n\n{what} ({also}), by weight: {'; '.join(means)}."


def main() -> None:
    """Run what is missing, or print the table."""
    given = arguments(__doc__, RESULTS).parse_args()
    if given.markdown:
        print(markdown(recorded(given.out)))
    else:
        carry_on(given, COMMAND, measure_model)


if __name__ == "__main__":
    main()
