"""What a plan for a time could keep of the multiply-accumulates, and what that costs in importance and accuracy.

    python benchmarks/macs.py [--shared FOLDER] [--only GLOB] [--out FILE]
    python benchmarks/macs.py --markdown

The search maximises the importance that stays; here it maximises importance + weight x MACs, both as logarithms of the
share that stays (importance: mean over layers). Weight 0 is what `onnxprune prune --speedup` plans with; "only" counts
MACs alone, and is the most that any plan found keeps at that time. Speedups are those that the table of measured times
expects, the same table for all weights; nothing is measured again. Accuracy is that of the trained ResNet-56 on the
10,000 test images, without any recovery.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from latency import SPEEDUPS, Case, accuracy, arguments, carry_on, opened, recorded
from li2016 import markdown_table

from onnxprune.latency import Price
from onnxprune.latency.terms import KINDS
from onnxprune.plan.knapsack import Search, choices_of, within
from onnxprune.profile import profile, removed_by, save
from onnxprune.rewrite import rewrite

RESULTS = Path(__file__).resolve().parent / "results" / "macs.json"
COMMAND = "python benchmarks/macs.py --shared ../shared"
ONLY = 1e6  # a weight beside which importance does not count
WEIGHTS = {"0": 0.0, "0.1": 0.1, "0.3": 0.3, "1": 1.0, "only": ONLY}
MILD = {"ResNet-56": (1.1, 1.2, 1.3)}  # speedups at which accuracy is not lost altogether


@dataclass(eq=False)
class Weighed(Search):
    """A search that counts multiply-accumulates, too.

    Attributes:
        macs: Their number as a price.
        parts: Per group, the price of the products that it changes.
        weight: Of the logarithm of the share of them that stays, in layers.
        mine: Per group, its MACs at each level as far as they are known at present.
        left: MACs of what is chosen, if they are known at present.
    """

    macs: Price
    parts: Sequence[Price]
    weight: float
    mine: list[np.ndarray | None]
    left: float | None = None

    @staticmethod
    def beside(search: Search, weight: float) -> Weighed:
        """The same search with another aim."""
        terms, change = search.price.terms, search.choices.change
        macs = Price(terms, (terms.kind == KINDS.index("macs")).astype(float))
        touched = [macs.touched(np.flatnonzero(c.any(axis=1))) for c in change]
        held = {f.name: getattr(search, f.name) for f in fields(Search)}
        both = np.stack(touched).astype(np.float32)
        held["near"] = [np.union1d(n, np.flatnonzero(m)) for n, m in zip(search.near, both @ both.T > 0, strict=True)]
        parts, own = [macs.part(t) for t in touched], weight * sum(search.choices.layers)
        return Weighed(**held, macs=macs, parts=parts, weight=own, mine=[None] * len(change))

    def values(self, g: int) -> np.ndarray:
        """Importance and MACs at each level of a group, the others as they are."""
        if (mine := self.mine[g]) is None:
            change, now = self.choices.change[g], self.chosen[g]
            mine = self.mine[g] = self.parts[g].total((self.widths - change[:, now])[:, None] + change)
        return super().values(g) + self.weight * np.log(np.maximum(self.total_macs - mine[self.chosen[g]] + mine, 1.0))

    @property
    def total_macs(self) -> float:
        """MACs of what is chosen."""
        if self.left is None:
            self.left = float(self.macs.total(self.widths))
        return self.left

    def move(self, g: int, level: int) -> None:
        """Choose another level for a group."""
        if level != self.chosen[g]:
            super().move(g, level)
            self.left = None
            for other in self.near[g]:
                self.mine[other] = None

    def copy(self) -> Weighed:
        """The same choice, to go on from."""
        found = super().copy()
        assert isinstance(found, Weighed)
        found.mine = list(self.mine)
        return found

    @property
    def value(self) -> float:
        """Importance and MACs of what is chosen."""
        return self.importance + self.weight * float(np.log(self.total_macs))


def planned(case: Case, speedup: float, weight: float) -> dict[str, Any] | None:
    """The plan for a time with a weight on MACs; None where none is that fast."""
    price = case.profiler.table().price
    whole = Search.of(price, choices_of(case.dependencies, case.profiler.terms, case.levels))
    found = within(Weighed.beside(whole, weight), case.profiler.dense_ms / speedup)
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
