"""Criteria side by side: ResNet-56 on CIFAR-10, cut by half its MACs, without labels or training.

    python benchmarks/criteria.py [--shared FOLDER] [--only GLOB] [--out FILE]
    python benchmarks/criteria.py --markdown

Every criterion that needs no gradients ranks the filters of the first convolution of every block; all of these lose the
same share, the residual stream stays whole (Li et al. 2017), so that only the ranking differs. One share moves all
layers of a width at once, so that 53.5% of the MACs are gone. Below them, ways to choose where: `reconstruction` with
its own budget of errors, as `onnxprune prune --macs 0.5 --data X` does it, and at the work that one share leaves; the
redundancy of SRR-GR with the smallest and with random filters, and one ranking over all layers. Accuracy on the 10,000
test images, before recovery and behind it (ridge), with 256 unlabelled training images; random three times.
`--only` takes a criterion. An interrupted run goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import MODELS, THREADS, TRAIN, accuracy, cell, drawn, images, left
from latency import arguments, carry_on_jobs, recorded
from li2016 import markdown_table

from onnxprune.errors import OnnxpruneError
from onnxprune.importance import CRITERIA, Evidence, Scores, score
from onnxprune.model import load
from onnxprune.normalise import normalise
from onnxprune.plan import Limits, Plan, Target, across, plan, uniform
from onnxprune.plan.redundancy import redundancy
from onnxprune.recover import recover
from onnxprune.rewrite import rewrite
from onnxprune.trace import Dependencies, trace

RESULTS = Path(__file__).resolve().parent / "results" / "criteria.json"
COMMAND = "python benchmarks/criteria.py --shared ../shared"
MACS, SAMPLES, BATCH = 0.5, 256, 32
RANKED = tuple(name for name, entry in CRITERIA.items() if entry.needs != "gradients")
SAME = "auto, same work"  # as one share for all layers leaves
ELSEWHERE = {
    "reconstruction": ("auto", SAME),
    "l1": ("redundancy", "global"),
    "random": ("redundancy",),
    "bn-scale": ("global",),
    "flap": ("global",),
}
KEYS = ("criterion", "allocate", "seed")
SEEDS = {"random": (0, 1, 2)}


def jobs() -> Iterator[tuple[str, str, int]]:
    """Criterion, allocation, seed of every row."""
    for name in RANKED:
        yield from ((name, "uniform", seed) for seed in SEEDS.get(name, (0,)))
    for name, others in ELSEWHERE.items():
        yield from ((name, other, seed) for other in others for seed in SEEDS.get(name, (0,)))


def planned(dependencies: Dependencies, scores: Scores, allocate: str, skip: tuple[str, ...]) -> Plan:
    """The plan that an allocation makes of scores; the budget of errors may touch the residual stream."""
    if allocate == "auto":
        return plan(dependencies, scores, Target(macs=MACS))
    if allocate == SAME:
        macs = left(dependencies, planned(dependencies, scores, "uniform", skip).removed(dependencies))
        return plan(dependencies, scores, Target(macs=macs))
    ways = {"uniform": lambda d, _: uniform(d), "redundancy": redundancy, "global": across}
    sharing = ways[allocate](dependencies, scores)
    return plan(dependencies, scores, Target(macs=MACS), Limits(skip=skip), sharing)


def measure(shared: Path, job: tuple[str, str, int], test: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    """One row."""
    name, allocate, seed = job
    batches, _ = drawn(shared, TRAIN, SAMPLES, seed, BATCH)
    dependencies = trace(normalise(load(shared / "cifar10" / MODELS["ResNet-56"])))
    skip = tuple(s.tensor for g in dependencies.groups if len(g.sources) > 1 for s in g.sources)
    evidence = Evidence(batches, threads=THREADS, seed=seed)
    scores = score(dependencies, name, evidence)
    chosen = planned(dependencies, scores, allocate, skip)
    if CRITERIA[name].revises:
        scores = score(dependencies, name, replace(evidence, removed=chosen.removed(dependencies)))
        chosen = planned(dependencies, scores, allocate, skip)
    removed = chosen.removed(dependencies)
    model = rewrite(dependencies, removed)
    better = recover(dependencies, removed, model, batches, threads=THREADS, seed=seed).model
    row = dict(zip(KEYS, job, strict=True))
    return row | {
        "macs_cut": 1 - left(dependencies, removed),
        "accuracy": accuracy(model, *test),
        "recovered": accuracy(better, *test),
    }


def markdown(held: Mapping[str, Any]) -> str:
    """The table of the README, best first."""
    kinds: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in held["records"]:
        kinds.setdefault((row["criterion"], row["allocate"]), []).append(row)
    order = sorted(kinds, key=lambda kind: -np.mean([r["recovered"] for r in kinds[kind]]))
    table = [["criterion", "where", "MACs cut", "no recovery", "recovered"]]
    for name, allocate in order:
        rows = kinds[name, allocate]
        table.append(
            [name, allocate, f"{np.mean([r['macs_cut'] for r in rows]):.1%}", cell(rows), cell(rows, "recovered")]
        )
    return markdown_table(table)


def main() -> None:
    """Run what is missing, or print the table."""
    given = arguments(__doc__, RESULTS).parse_args()
    if given.markdown:
        print(markdown(recorded(given.out)))
        return
    test = images(given.shared, "cifar10_test.npz")

    def measured(job: tuple[str, str, int]) -> dict[str, Any] | None:
        try:
            return measure(given.shared, job, test)
        except OnnxpruneError as error:  # one that cannot be had at this target is told, and no row
            print(job, error, flush=True)
            return None

    carry_on_jobs(given, COMMAND, KEYS, jobs(), measured)


if __name__ == "__main__":
    main()
