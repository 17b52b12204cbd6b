"""Li's findings as pictures: every layer of ResNet-56 on CIFAR-10 cut alone, filter after filter, without recovery.

    python benchmarks/findings.py [--shared FOLDER] [--only GLOB] [--out FILE]
    python benchmarks/findings.py --pictures

Li et al. 2017 cut each layer alone: the smallest filters, random ones and the largest (their figure 6, of VGG-16), by
statistics of the feature maps instead of the filters (their figure 7), and see which layers of a ResNet are sensitive
(their figure 2). The same of ResNet-56, with `onnxprune.sensitivity`: top-1 accuracy on 256 test images, statistics of
256 training images. `--pictures` draws them beside the results, which takes matplotlib. `--only` takes a criterion. An
interrupted run goes on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import MODELS, THREADS, TRAIN, drawn
from latency import arguments, carry_on_jobs, recorded
from li2016 import markdown_table

from onnxprune.importance import Evidence, score
from onnxprune.model import load
from onnxprune.normalise import normalise
from onnxprune.sensitivity import Question, analyse
from onnxprune.trace import trace

RESULTS = Path(__file__).resolve().parent / "results" / "findings.json"
COMMAND = "python benchmarks/findings.py --shared ../shared"
SAMPLES, BATCH, SEED = 256, 64, 0
RATIOS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9)
KEYS = ("criterion",)
ORDERS = {"l1": "smallest L1 norm first", "random": "random", "largest": "largest L1 norm first"}
MAPS = {
    "l1": "L1 norm of the filter",
    "activation-mean": "mean of the map",
    "activation-std": "its standard deviation",
    "activation-l1": "its L1 norm",
    "activation-l2": "its L2 norm",
    "activation-variance": "its variance",
}
LOUD = ("#0072b2", "#d55e00", "#009e73")  # told apart by the colour-blind


def measure(shared: Path, criterion: str) -> dict[str, Any]:
    """The curves of all groups by one criterion."""
    (seen, _), (held, labels) = (drawn(shared, name, SAMPLES, SEED, BATCH) for name in (TRAIN, "cifar10_test.npz"))
    dependencies = trace(normalise(load(shared / "cifar10" / MODELS["ResNet-56"])))
    scores = score(dependencies, criterion, Evidence(seen, threads=THREADS, seed=SEED))
    question = Question(held, RATIOS, labels)
    found = analyse(dependencies, scores, question, model="ResNet-56", threads=THREADS)
    layers = {g.name: [[p.removed / g.channels, p.accuracy] for p in g.points] for g in found.groups}
    return {"criterion": criterion, "dense": found.accuracy, "layers": layers}


def inner(row: Mapping[str, Any]) -> dict[str, list[list[float]]]:
    """The first convolution of every block: all groups but the residual stream, the first of them."""
    return dict(list(row["layers"].items())[1:])


def loss(row: Mapping[str, Any], ratio: float) -> list[float]:
    """Points of accuracy that each layer loses when so much of it alone is gone."""
    near = RATIOS.index(ratio)
    return [100 * (row["dense"] - points[near][1]) for points in inner(row).values()]


def markdown(held: Mapping[str, Any]) -> str:
    """The table: what cutting one layer alone costs, over the layers."""
    at = (0.5, 0.9)
    table = [["ranked by", *(f"{r:.0%} of one layer gone" for r in at)]]
    for row in held["records"]:
        cells = [loss(row, r) for r in at]
        table.append([row["criterion"], *(f"{np.mean(c):.1f} (at most {max(c):.1f})" for c in cells)])
    return str(markdown_table(table))


def panels(rows: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str], across: int, out: Path) -> None:
    """One panel for each criterion, a line for each layer; the three that L1 finds most sensitive in colour."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "onnxprune", "font.size": 10}
    import matplotlib.pyplot as plt

    down = -(-len(titles) // across)
    figure, axes = plt.subplots(down, across, sharex=True, sharey=True, figsize=(3.4 * across, 2.9 * down))
    sensitive = worst(rows["l1"])
    for panel, (criterion, title) in zip(np.ravel(axes), titles.items(), strict=True):
        panel.set_title(title, fontsize=10)
        panel.grid(color="#e5e5e5")
        for name, points in sorted(inner(rows[criterion]).items(), key=lambda item: item[0] in sensitive):
            x, y = zip((0.0, rows[criterion]["dense"]), *points, strict=True)
            colour = LOUD[sensitive.index(name)] if name in sensitive else "#bbbbbb"
            style = {"lw": 1.8, "label": layer(name)} if name in sensitive else {"lw": 0.8}
            panel.plot(100 * np.array(x), 100 * np.array(y), color=colour, **style)
    np.ravel(axes)[0].legend(loc="lower left", frameon=False, fontsize=9)
    figure.supxlabel("% of the layer's filters removed", fontsize=10)
    figure.supylabel("top-1 accuracy, %", fontsize=10)
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None})


def worst(row: Mapping[str, Any]) -> list[str]:
    """The three layers that lose most on average."""
    means = {name: np.mean([accuracy for _, accuracy in points]) for name, points in inner(row).items()}
    return sorted(means, key=means.__getitem__)[: len(LOUD)]


def layer(name: str) -> str:
    """A layer's name without what the exporter added."""
    return name.strip("/").removesuffix("/Conv")


def pictures(held: Mapping[str, Any], out: Path) -> Sequence[Path]:
    """Both pictures, beside the results."""
    rows = {row["criterion"]: row for row in held["records"]}
    paths = [out.with_name(f"{out.stem}_{name}.svg") for name in ("order", "maps")]
    panels(rows, ORDERS, 3, paths[0])
    panels(rows, MAPS, 3, paths[1])
    return paths


def main() -> None:
    """Run what is missing, print the table, or draw the pictures."""
    parser = arguments(__doc__, RESULTS)
    parser.add_argument("--pictures", action="store_true", help="draw the results there are")
    given = parser.parse_args()
    if given.pictures:
        print(*pictures(recorded(given.out), given.out), sep="\n")
    elif given.markdown:
        print(markdown(recorded(given.out)))
    else:
        jobs = [(name,) for name in dict.fromkeys([*ORDERS, *MAPS])]
        carry_on_jobs(given, COMMAND, KEYS, jobs, lambda job: measure(given.shared, *job))


if __name__ == "__main__":
    main()
