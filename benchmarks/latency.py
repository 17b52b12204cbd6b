"""Targets in time: what is asked, what is measured, and what it costs, beside uniform pruning.

    python benchmarks/latency.py [--shared FOLDER] [--only GLOB] [--peers FOLDER] [--out FILE]
    python benchmarks/latency.py --markdown

Every architecture, with seeded random weights where it comes without, is planned for 1.5, 2 and 3 times the speed on
this machine, one thread, batch 1, as `onnxprune prune --speedup S` does it. Then, independent of the search,

- `measured`: the pruned model against the dense one in fresh processes (`onnxprune bench`'s protocol, with 3 of them);
- `uniform`: `--ratio R` at the fixed alignments 8 and 16, with an R that is measured to be as fast within 3%, or the
  one of five that comes nearest, faster before slower; dense, ours and both are timed in one run, interleaved. `kept`
  is the geometric mean over all layers of the share of the L1 norm of the layer's filters that stays;
- `peers` (with --peers, the folder that peers.py writes): each of Torch-Pruning's outputs against our plan that keeps
  as much importance, again in one run.

Raw samples are kept, in ms. An interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from coverage import inflated
from li2016 import SHARED, markdown_table

from onnxprune import runtime
from onnxprune.align import width_step
from onnxprune.bench import FULL, QUICK, bench, interval
from onnxprune.bench.measure import measure
from onnxprune.cost import cost
from onnxprune.errors import PlanError
from onnxprune.fit import NEAR, Fitted, fit
from onnxprune.fit.bracket import Bracket
from onnxprune.importance import Scores, score
from onnxprune.importance.norms import filters, l1_norm
from onnxprune.model import Model, load
from onnxprune.normalise import normalise
from onnxprune.plan import Limits, Target, plan
from onnxprune.plan.knapsack import Search, within
from onnxprune.plan.levels import choices_of, choosers_of, levels_of
from onnxprune.profile import Profiler, profiler_of, removed_by, save
from onnxprune.rewrite import rewrite
from onnxprune.trace import Dependencies, trace

RESULTS = Path(__file__).resolve().parent / "results" / "latency.json"
MODELS = {
    "ResNet-50": "skeletons/resnet50_ts.onnx",
    "MobileNetV2": "skeletons/mobilenet_v2_ts.onnx",
    "EfficientNet-B0": "skeletons/efficientnet_b0_ts.onnx",
    "MnasNet-1.0": "skeletons/mnasnet1_0_ts.onnx",
    "DenseNet-121": "skeletons/densenet121_ts.onnx",
    "GoogLeNet": "skeletons/googlenet_ts.onnx",
    "RegNet-Y-400MF": "skeletons/regnet_y_400mf_ts.onnx",
    "ShuffleNetV2": "skeletons/shufflenet_v2_x1_0_ts.onnx",
    "YOLOX-nano": "wild/object__yolox_nano.onnx",
    "ResNet-56": "cifar10/resnet56_legacy_bn.onnx",
}
SPEEDUPS = (1.5, 2.0, 3.0)
EASY = {"ResNet-56": (1.2,)}  # where accuracy is measured: what it can lose without any recovery
ALIGNS = (8, 16)
PROCESSES, BUDGET_S = 3, 2.0
MATCHES = 5  # uniform plans measured, to find the one that is as fast
COMMAND = "python benchmarks/latency.py --shared ../shared --peers FOLDER"


class Case:
    """One model, traced, with what is measured of it."""

    def __init__(self, path: Path) -> None:
        self.original: Model = load(path)
        self.dependencies: Dependencies = trace(normalise(self.original))
        self.scores: Scores = score(self.dependencies)
        self.feeds = runtime.random_feeds(self.original)
        self.step = width_step().step
        self.profiler: Profiler = profiler_of(self.dependencies, self.feeds, self.step)
        choosers = choosers_of(self.dependencies, self.scores, Limits(align=self.step), finer=True)
        self.levels = levels_of(choosers)

    def kept(self, removed: np.ndarray) -> float:
        """Geometric mean over all layers of the share of the L1 norm of its filters that stays."""
        keep, shares = self.dependencies.keep(removed), []
        for source in self.dependencies.sources:
            if (self.dependencies.unit[source.ids] >= 0).any():
                norms = l1_norm(filters(self.dependencies, source))
                shares.append(float(norms[keep[source.ids].ravel()].sum() / norms.sum()))
        return float(np.exp(np.mean(np.log(shares))))

    def macs(self, removed: np.ndarray) -> float:
        """Multiply-accumulates of the dense model over those of the pruned one."""
        keep = self.dependencies.keep(removed)
        return cost(self.dependencies).macs / cost(self.dependencies, keep).macs

    def predicted(self, removed: np.ndarray) -> float:
        """The speedup that the table of times expects."""
        widths = self.profiler.terms.measure(self.dependencies.keep(removed))
        return self.profiler.dense_ms / float(self.profiler.table().price.total(widths))

    def together(self, models: Mapping[str, Any]) -> dict[str, Any]:
        """Time models against the dense one, all in one run: speedup, interval and raw samples of each."""
        sessions = {name: runtime.session(m) for name, m in ({"dense": self.original} | dict(models)).items()}
        runners = {name: runtime.runner(opened, self.feeds) for name, opened in sessions.items()}
        times = {name: np.array(t) for name, t in measure(runners, protocol=replace(QUICK, budget_s=3.0)).times.items()}
        found = {}
        for name in models:
            ratios = times["dense"] / times[name]
            found[name] = {"speedup": float(np.median(ratios)), "ci95": list(interval(ratios))}
        return {"speedups": found, "samples_ms": {name: np.round(t, 4).tolist() for name, t in times.items()}}


# --- one target ------------------------------------------------------------------------------------------------------


def asked_for(case: Case, speedup: float) -> dict[str, Any]:
    """Plan for a speedup, and measure what came of it."""
    began = time.perf_counter()
    found = fit(case.original, case.profiler, case.scores, Target(speedup=speedup), Limits(align=case.step))
    seconds = round(time.perf_counter() - began, 1)
    save(case.profiler)
    removed = found.plan.removed(case.dependencies)
    pruned = rewrite(case.dependencies, removed)
    again = bench(case.original, pruned, feeds=case.feeds, protocol=FULL, processes=PROCESSES, budget_s=BUDGET_S)
    kept = {k: v for k, v in again.to_dict().items() if k != "environment"}
    record = {
        "asked": speedup,
        "fit": found.to_dict(),
        "seconds": seconds,
        "measured": kept,
        "macs": case.macs(removed),
    }
    record |= {"kept": case.kept(removed), "uniform": uniform(case, found, pruned), "accuracy": accuracy(case, pruned)}
    return record


def uniform(case: Case, found: Fitted, ours: Model) -> dict[str, Any]:
    """Uniform ratios that are as fast as the plan, timed beside it."""
    plans = {align: matched(case, found.comparison.speedup, align) for align in ALIGNS}
    models: dict[str, Any] = {"ours": ours}
    facts: dict[str, Any] = {}
    for align, chosen in plans.items():
        if chosen is not None:
            models[f"align {align}"] = rewrite(case.dependencies, chosen[1])
            fact = {"ratio": chosen[0], "kept": case.kept(chosen[1]), "macs": case.macs(chosen[1])}
            facts[f"align {align}"] = fact | {"accuracy": accuracy(case, models[f"align {align}"])}
    return case.together(models) | {"plans": facts}


def matched(case: Case, speedup: float, align: int) -> tuple[float, np.ndarray] | None:
    """The uniform ratio that is measured to be so fast, and the units that go: what the table expects, corrected."""
    bracket, tried = Bracket(), []
    for _ in range(MATCHES):
        aim = bracket.aim
        if (chosen := ratio_for(case, speedup / aim, align)) is None:
            break
        model = rewrite(case.dependencies, chosen[1])
        off = bench(case.original, model, feeds=case.feeds, budget_s=1.0).speedup / speedup
        tried.append((off < 1 - NEAR, abs(np.log(off)), chosen))
        if abs(off - 1) <= NEAR or bracket.closed:
            break
        bracket = bracket.narrowed(aim, off - 1)
    return min(tried, key=lambda t: t[:2])[2] if tried else None


def ratio_for(case: Case, speedup: float, align: int) -> tuple[float, np.ndarray] | None:
    """The smallest uniform ratio that the table expects to be so fast, and the units that go."""
    low, high, best = 0.0, 1.0, None
    for _ in range(10):
        ratio = (low + high) / 2
        try:
            chosen = plan(case.dependencies, case.scores, Target(ratio=ratio), Limits(align=align))
        except PlanError:
            return best
        removed = chosen.removed(case.dependencies)
        if case.predicted(removed) >= speedup:
            high, best = ratio, (ratio, removed)
        else:
            low = ratio
    return best


def accuracy(case: Case, model: Model) -> float | None:
    """Top-1 on the CIFAR-10 test images, for the models trained on them."""
    folder = case.original.path.parent if case.original.path else Path()
    if folder.name != "cifar10":
        return None
    held = np.load(folder / "cifar10_test.npz")
    images = (held["x"] / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    images, right, opened = images.transpose(0, 3, 1, 2).astype(np.float32), 0, runtime.session(model)
    for start in range(0, len(images), 500):
        logits = runtime.run(opened, {"input": images[start : start + 500]})["logits"]
        right += int((logits.argmax(axis=1) == held["y"][start : start + 500]).sum())
    return right / len(images)


# --- peers -----------------------------------------------------------------------------------------------------------


def beside(case: Case, path: Path) -> dict[str, Any] | None:
    """One of a peer's outputs against our plan that keeps as much importance."""
    facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    removed = keeping(case, float(facts["file_kept_geometric_mean"]))  # on the file's weights, as `Case.kept`
    if removed is None:
        return None
    timed = case.together({"peer": str(path), "ours": rewrite(case.dependencies, removed)})
    facts = {k: v for k, v in facts.items() if k.startswith(("file_kept", "kept", "macs", "params", "ratio"))}
    return {"file": path.name, "peer": facts, "kept": case.kept(removed), "macs": case.macs(removed)} | timed


def keeping(case: Case, kept: float) -> np.ndarray | None:
    """The fastest plan that keeps at least so much importance: bisection over the time."""
    choices = choices_of(case.dependencies, case.profiler.terms, case.levels)
    whole = Search.of(case.profiler.table().price, choices)
    low, high, best = 0.0, case.profiler.dense_ms, None
    for _ in range(12):
        limit = (low + high) / 2
        search = within(whole, limit)
        removed = None if search is None else removed_by(case.dependencies, case.levels, search.chosen.tolist())
        if removed is not None and removed.size and case.kept(removed) >= kept:
            high, best = limit, removed
        else:
            low = limit
    return best


# --- everything ------------------------------------------------------------------------------------------------------


@contextmanager
def opened(path: Path) -> Iterator[Case]:
    """A model as a case, with seeded random weights where it comes without."""
    with tempfile.TemporaryDirectory(prefix="onnxprune-benchmark-") as folder:
        yield Case(inflated(path, False, Path(folder) / "model.onnx") if path.parent.name == "skeletons" else path)


def measure_model(name: str, path: Path, peers: Path | None) -> dict[str, Any]:
    """All targets for one model."""
    with opened(path) as case:
        print(f"{name}: {case.profiler.dense_ms:.2f} ms", flush=True)
        targets = []
        for speedup in (*EASY.get(name, ()), *SPEEDUPS):
            targets.append(asked_for(case, speedup))
            print("  " + line(targets[-1]), flush=True)
        found = {"model": name, "file": f"{path.parent.name}/{path.name}", "step": case.step, "targets": targets}
    return found | ({"peers": against(peers / name)} if peers and (peers / name).is_dir() else {})


def against(folder: Path) -> list[dict[str, Any]]:
    """All outputs of a peer for one model, on the dense file it started from."""
    case = Case(folder / "dense.onnx")
    fit(case.original, case.profiler, case.scores, Target(speedup=1.5), Limits(align=case.step))  # fills the table
    return [found for path in sorted(folder.glob("tp_*.onnx")) if (found := beside(case, path))]


def line(target: Mapping[str, Any]) -> str:
    """One target in words."""
    measured = target["measured"]
    bounds = "{:.2f} to {:.2f}".format(*measured["ci95"])
    ours = f"{target['asked']}x: {measured['speedup']:.2f}x ({bounds}), MACs {target['macs']:.2f}x"
    ours += f", kept {target['kept']:.3f}"
    rest = [
        f"{name}: {target['uniform']['speedups'][name]['speedup']:.2f}x kept {fact['kept']:.3f}"
        for name, fact in target["uniform"]["plans"].items()
    ]
    return "; ".join([ours, *rest])


def rows(records: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The table of targets: one row for each model and target."""
    found = []
    for record in records:
        for target in record["targets"]:
            m = target["measured"]
            met = "" if target["fit"]["reached"] else " not met"
            bounds = f"{m['speedup']:.2f} ({m['ci95'][0]:.2f} to {m['ci95'][1]:.2f}){met}"
            macs = [f"{target['macs']:.2f}", f"{m['speedup'] / target['macs']:.2f}"]
            found.append([record["model"], f"{target['asked']}", bounds, *macs, f"{target['kept']:.3f}", other(target)])
    return found


def other(target: Mapping[str, Any]) -> str:
    """The best of the uniform plans: its speedup in the run it was timed in, and what it keeps."""
    plans, speeds = target["uniform"]["plans"], target["uniform"]["speedups"]
    best = max(plans, key=lambda n: plans[n]["kept"], default=None)
    if best is None:
        return "none so fast"
    return f"{speeds[best]['speedup']:.2f}, keeps {plans[best]['kept']:.3f} ({best})"


def peer_rows(records: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The table of peers: one row for each model and ratio, their variants side by side."""
    found = []
    for record in records:
        files = {p["file"]: p for p in record.get("peers", ())}
        for ratio in ("0.3", "0.5"):
            each = [files.get(f"tp_r{ratio}_{variant}.onnx") for variant in VARIANTS]
            if any(each):
                found.append([record["model"], ratio, *(against_each(p) if p else "-" for p in each)])
    return found


def against_each(p: Mapping[str, Any]) -> str:
    """A peer's speedup and ours, at the importance both keep."""
    peer, ours = (p["speedups"][name]["speedup"] for name in ("peer", "ours"))
    return f"{peer:.2f} / {ours:.2f} at {p['kept']:.3f}"


def accuracies(records: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Top-1 where it is known: ours, and the uniform plans'."""
    found = []
    for record in records:
        for target in record["targets"]:
            if target["accuracy"] is not None:
                plans, speeds = target["uniform"]["plans"], target["uniform"]["speedups"]
                cells = [
                    f"{plans[n]['accuracy']:.1%} at {speeds[n]['speedup']:.2f}" if n in plans else "-"
                    for n in (f"align {align}" for align in ALIGNS)
                ]
                ours = f"{target['accuracy']:.1%} at {speeds['ours']['speedup']:.2f}"
                found.append([record["model"], f"{target['asked']}", ours, *cells])
    return found


def summary(records: Sequence[Mapping[str, Any]]) -> str:
    """What the tables come to."""
    targets = [t for r in records for t in r["targets"]]
    met = [t for t in targets if t["fit"]["reached"]]
    near = sum(abs(t["measured"]["speedup"] / t["asked"] - 1) <= 0.03 for t in met)
    ratios = [t["measured"]["speedup"] / t["macs"] for t in targets]
    more = sum(t["kept"] > max((p["kept"] for p in t["uniform"]["plans"].values()), default=0.0) for t in targets)
    peers = [p["speedups"] for r in records for p in r.get("peers", ())]
    won = sum(s["ours"]["ci95"][0] > s["peer"]["ci95"][1] for s in peers)
    return (
        f"Met by the search: {len(met)} of {len(targets)}; in fresh processes afterwards {near} of these are "
        f"within 3%. Speedup / MACs cut: geometric mean {np.exp(np.mean(np.log(ratios))):.2f}, from {min(ratios):.2f} "
        f"to {max(ratios):.2f}; at least 0.9 for {sum(q >= 0.9 for q in ratios)} of {len(ratios)}. More importance "
        f"than the best uniform plan: {more} of {len(targets)}. Faster than Torch-Pruning at equal importance, "
        f"intervals apart: {won} of {len(peers)}."
    )


VARIANTS = ("as_is", "round8", "round16")
HEADERS = ["model", "asked", "measured (95%)", "MACs cut", "speedup / MACs", "kept", "uniform"]
PEER_HEADERS = ["model", "ratio", "as is", "round_to 8", "round_to 16"]
ACCURACY_HEADERS = ["model", "asked", "ours", *(f"uniform, align {align}" for align in ALIGNS)]


def markdown(held: Mapping[str, Any]) -> str:
    """The tables of the README."""
    records = held["records"]
    tables = [[HEADERS, *rows(records)], [ACCURACY_HEADERS, *accuracies(records)], [PEER_HEADERS, *peer_rows(records)]]
    return "\n\n".join([*(markdown_table(table) for table in tables), summary(records)])


def arguments(text: str | None, results: Path) -> argparse.ArgumentParser:
    """The options that benchmarks over these models share."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=SHARED)
    parser.add_argument("--only", default="*")
    parser.add_argument("--out", type=Path, default=results)
    parser.add_argument("--markdown", action="store_true")
    return parser


def carry_on(given: argparse.Namespace, command: str, measured: Callable[[str, Path], dict[str, Any]]) -> None:
    """Measure the models that have no record yet; every record is kept at once."""
    held = recorded(given.out)
    records = {r["model"]: r for r in held.get("records", ())}
    for name, path in MODELS.items():
        if fnmatchcase(name, given.only) and name not in records:
            records[name] = measured(name, given.shared / path)
            inside = [records[n] for n in MODELS if n in records]
            found = {"command": command, "environment": runtime.environment(), "records": inside}
            given.out.write_text(json.dumps(found) + "\n", encoding="utf-8")


def carry_on_jobs(
    given: argparse.Namespace,
    command: str,
    keys: Sequence[str],
    jobs: Iterable[tuple[Any, ...]],
    measured: Callable[[Any], dict[str, Any] | None],
    name: Callable[[Any], str] = lambda job: str(job[0]),
    **beside: Any,
) -> None:
    """Measure the jobs that have no record yet; every record is kept at once.

    Args:
        given: Options.
        command: What the results came from.
        keys: A record's entries that say which job it is of.
        jobs: All that should be measured, in order.
        measured: Gives the record of a job; None where it cannot be had.
        name: What `--only` is matched against; by default the first part of a job.
        beside: What else is written; it may change while jobs are measured.
    """
    records = recorded(given.out).get("records", [])
    for job in jobs:
        done = any(tuple(r[k] for k in keys) == job for r in records)
        if done or not fnmatchcase(name(job), given.only) or (row := measured(job)) is None:
            continue
        records.append(row)
        print(row, flush=True)
        found = {"command": command, "environment": runtime.environment(), **beside, "records": records}
        given.out.write_text(json.dumps(found) + "\n", encoding="utf-8")


def recorded(path: Path) -> dict[str, Any]:
    """What was measured before; empty if nothing was."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def main() -> None:
    """Run what is missing, or print the table."""
    parser = arguments(__doc__, RESULTS)
    parser.add_argument("--peers", type=Path)
    given = parser.parse_args()
    if given.markdown:
        print(markdown(recorded(given.out)))
    else:
        carry_on(given, COMMAND, lambda name, path: measure_model(name, path, given.peers))


if __name__ == "__main__":
    main()
