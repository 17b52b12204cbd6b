"""Cut every group alone. Law: a curve starts at 0, and what was measured before an interrupt is not measured again.

Every layer is cut by itself over a grid of ratios, without retraining (Li et al. 2017, arXiv 1608.08710, section 3.2).
The channels are those that a criterion would take. Ratios of one group run side by side, each in one thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxprune.calibrate import Walk
from onnxprune.calibrate.walk import MEMORY
from onnxprune.cost import cost
from onnxprune.data.samples import samples_in
from onnxprune.errors import DataError
from onnxprune.importance import Scores
from onnxprune.labels import Ids
from onnxprune.model import Array, Model
from onnxprune.plan import Limits, fingerprint
from onnxprune.plan.choose import Chooser, chooser_of
from onnxprune.plan.document import describe
from onnxprune.progress import Observer, silent
from onnxprune.rewrite import rewrite
from onnxprune.runtime import Feeds, run, session
from onnxprune.sensitivity.below import Below, firsts, variants
from onnxprune.sensitivity.curves import Curve, Curves, Point
from onnxprune.sensitivity.divergence import Kind, Sums, kind_of
from onnxprune.sensitivity.record import Record
from onnxprune.trace import Dependencies

RATIOS = tuple(n / 10 for n in range(1, 10))


@dataclass(frozen=True, eq=False)
class Question:
    """What is measured, and on what.

    Attributes:
        batches: Samples.
        ratios: The grid, each in (0, 1).
        labels: The class of every sample, for top-1 accuracy. Shape (samples,).
        metric: The user's metric of a model, larger is better.
        rows: As of `Limits`.
    """

    batches: Sequence[Feeds]
    ratios: Sequence[float] = RATIOS
    labels: Array | None = None
    metric: Callable[[Model], float] | None = None
    rows: str = "auto"


@dataclass(eq=False)
class Analysis:
    """The state of one analysis.

    Attributes:
        chooser: Chooses the channels of a group.
        question: What is measured.
        record: What is known.
        threads: Ratios at a time.
        dense: The dense model's outputs, batch by batch.
        kinds: What these are.
    """

    chooser: Chooser
    question: Question
    record: Record
    threads: int
    dense: list[dict[str, Array]]
    kinds: Mapping[str, Kind]

    def point(self, g: int, ratio: float, below: Below) -> Point:
        """Cut group number `g` alone."""
        dependencies, group = self.chooser.dependencies, self.chooser.groups[g]
        positions, _ = self.chooser.group(g, ratio)
        removed = group.units[positions]
        sums, accuracy = self.diverged(removed, below)
        values = {name: sums[name].value if name in sums else 0.0 for name in self.kinds}
        saved = 1 - cost(dependencies, dependencies.keep(removed)).macs / max(1, self.chooser.dense.macs)
        metric = self.question.metric
        own = metric(rewrite(dependencies, removed)) if metric else None
        return Point(ratio, int(removed.size), saved, values, accuracy, own)

    def diverged(self, removed: Ids, below: Below) -> tuple[dict[str, Sums], float | None]:
        """What became of the outputs, and the accuracy."""
        sums: dict[str, Sums] = {}
        accuracy = None
        for model in variants(self.chooser.dependencies, removed):
            sums, right = {name: Sums(self.kinds[name]) for name in below.outputs}, Hits(self.question.labels)
            for dense, found in zip(self.dense, below.run(model), strict=bool(below.outputs)):
                for name in below.outputs:
                    sums[name].add(dense[name], found[name])
                right.add({**dense, **found}, self.kinds)
            accuracy = right.share if below.outputs else self.record.dense.get("accuracy")
            if all(math.isfinite(s.total) for s in sums.values()):
                break
        return sums, accuracy

    def run(self, walk: Walk, observe: Observer) -> None:
        """Cut every group by what is missing, those first that are met first."""
        starts = firsts(self.chooser.dependencies)
        for number, g in enumerate(np.argsort(starts, kind="stable").tolist()):
            observe("sensitivity", number / len(starts))
            if missing := self.missing(g):
                for _ in walk.values(int(starts[g]), []):
                    pass
                self.group(g, missing, Below.of(walk))

    def missing(self, g: int) -> list[float]:
        """The ratios at which a group is still to be cut."""
        name = self.chooser.groups[g].name
        return [ratio for ratio in self.question.ratios if self.record.get(name, ratio) is None]

    def group(self, g: int, ratios: Sequence[float], below: Below) -> None:
        """Cut one group by all ratios that are missing; ratios that come to the same cut are measured once."""
        name = self.chooser.groups[g].name
        cuts: dict[bytes, list[float]] = {}
        for ratio in ratios:
            cuts.setdefault(self.chooser.group(g, ratio)[0].tobytes(), []).append(ratio)
        with ThreadPoolExecutor(self.threads) as pool:
            waiting = {pool.submit(self.point, g, same[0], below): same for same in cuts.values()}
            try:
                for done in as_completed(waiting):
                    held = done.result()
                    for ratio in waiting[done]:
                        self.record.put(name, Point(ratio, *list(vars(held).values())[1:]))
            finally:
                for future in waiting:
                    future.cancel()

    def curve(self, g: int) -> Curve:
        """What is known of a group."""
        group = self.chooser.groups[g]
        points = [self.record.get(group.name, ratio) for ratio in sorted(self.question.ratios)]
        found = tuple(point for point in points if point is not None)
        return Curve(group.name, describe(group.sources), int(group.units.size), found)


@dataclass
class Hits:
    """Right answers of a table of scores, the first among the outputs."""

    labels: Array | None
    right: int = 0
    seen: int = 0

    def add(self, outputs: Mapping[str, Array], kinds: Mapping[str, Kind]) -> None:
        """Count one batch."""
        if self.labels is None:
            return
        table = outputs[next(name for name, kind in kinds.items() if kind.startswith("kl"))]
        found = np.argmax(np.where(np.isnan(table), -np.inf, table), axis=1)
        self.right += int((found == self.labels[self.seen : self.seen + len(found)]).sum())
        self.seen += len(found)

    @property
    def share(self) -> float | None:
        """Top-1; None without labels."""
        return self.right / self.seen if self.seen else None


def analyse(
    dependencies: Dependencies,
    scores: Scores,
    question: Question,
    record: Record | None = None,
    *,
    model: str = "model",
    threads: int = 1,
    memory: int = MEMORY,
    observe: Observer = silent,
) -> Curves:
    """How far the outputs go from the dense ones when each group is cut alone.

    Args:
        dependencies: A traced model.
        scores: What chooses the channels.
        question: What is measured.
        record: What was measured before, and what is now; by default nothing is kept.
        model: Its name.
        threads: Cores to use.
        memory: Bytes of activations held in memory; what is beyond lies in temporary files.
        observe: Called with a stage's name and the share of it that is done.

    Raises:
        DataError: Labels do not fit the samples, or no output is a table of scores.
        UnprunableError: Nothing in the model can be removed.
    """
    limits, record = Limits(rows=question.rows), record or Record()
    chooser = chooser_of(dependencies, scores, limits)
    state = Analysis(chooser, question, record, threads, *dense_outputs(dependencies, question, threads))
    state.record.dense.update(dense_facts(state, dependencies))
    state.run(Walk(dependencies.model, question.batches, threads=threads, memory=memory), observe)
    samples = samples_in(question.batches)
    facts = model, fingerprint(dependencies.model), scores.criterion, samples, dict(state.kinds)
    curves = tuple(state.curve(g) for g in range(len(chooser.groups)))
    return Curves(*facts, curves, record.dense.get("accuracy"), record.dense.get("metric"))


def dense_outputs(
    dependencies: Dependencies, question: Question, threads: int
) -> tuple[list[dict[str, Array]], dict[str, Kind]]:
    """The dense model's outputs, batch by batch, and what they are.

    Raises:
        DataError: Labels do not fit.
    """
    opened = session(dependencies.model, threads=threads)
    found = [run(opened, batch) for batch in question.batches]
    kinds = {name: kind_of(batch[name] for batch in found) for name in found[0]}
    if question.labels is not None:
        check_labels(question.labels, found, kinds)
    return found, kinds


def check_labels(labels: Array, found: Sequence[Mapping[str, Array]], kinds: Mapping[str, Kind]) -> None:
    """Refuse labels that are not the class of each sample."""
    table = next((name for name, kind in kinds.items() if kind.startswith("kl")), None)
    if table is None:
        what = "the model has no output that is a table of scores, which --labels could be compared with"
        raise DataError(what, remedy="leave --labels out, or measure with --eval script.py")
    rows, classes = sum(len(batch[table]) for batch in found), found[0][table].shape[1]
    fits = labels.ndim == 1 and labels.dtype.kind in "iu" and len(labels) == rows
    if not fits or labels.min() < 0 or labels.max() >= classes:
        what = f"the labels are {labels.dtype} of shape {list(labels.shape)}, the model's table is {rows} x {classes}"
        raise DataError(what, remedy=f"give one integer from 0 to {classes - 1} for each sample")


def dense_facts(state: Analysis, dependencies: Dependencies) -> dict[str, Any]:
    """The dense model's own figures, unless they are known."""
    right = Hits(state.question.labels)
    for outputs in state.dense:
        right.add(outputs, state.kinds)
    metric = state.question.metric
    known = state.record.dense.get("metric")
    own = metric(dependencies.model) if metric and known is None else known
    return {"accuracy": right.share, "metric": own}
