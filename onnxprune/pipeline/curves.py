"""Sensitivity from a file to curves. Law: what was measured for a model, its data and its criterion is remembered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from onnxprune.cache import cache_path
from onnxprune.data import Feeds, Samples, read
from onnxprune.data.npz import read_arrays
from onnxprune.data.samples import samples_in
from onnxprune.errors import DataError, PlanError
from onnxprune.importance import Scores
from onnxprune.model import Array, Model
from onnxprune.pipeline.options import Options
from onnxprune.plan import Limits, Target, plan
from onnxprune.progress import Observer, silent
from onnxprune.report.data import version
from onnxprune.sensitivity import RATIOS, Curves, Question, Record, analyse, by_sensitivity, content
from onnxprune.sensitivity.record import digest
from onnxprune.trace import Dependencies

CURVE = 256  # samples that outputs are compared on, at most: curves of 1,024 look the same
BATCH, BYTES = 64, 2**22  # samples that run together, and bytes of input that do


@dataclass(frozen=True, eq=False)
class Wanted:
    """What is asked beside the divergence of the outputs.

    Attributes:
        ratios: The grid.
        labels: The class of every sample. Shape (samples,).
        metric: The user's metric of a model.
        key: What the metric depends on.
        fresh: Whether to measure again what is remembered.
    """

    ratios: Sequence[float] = RATIOS
    labels: Array | None = None
    metric: Callable[[Model], float] | None = None
    key: str = ""
    fresh: bool = False


def curve_batches(model: Model, samples: Samples) -> list[Feeds]:
    """The samples that outputs are compared on, in batches."""
    each = sum(array.nbytes // len(array) for array in samples.sets[0].values() if array.ndim)
    return list(samples.batches(model, size=max(1, min(BATCH, BYTES // max(1, each))), limit=CURVE))


def all_samples(model: Model, options: Options, wanted: Wanted) -> Samples:
    """The user's samples; all of them where they have labels, which are in the same order.

    Raises:
        DataError: There are none, or they do not fit.
    """
    if options.data is None:
        raise DataError("outputs are compared on samples", remedy="give typical inputs with --data")
    count = max(CURVE, options.samples, 0 if wanted.labels is None else len(wanted.labels))
    return read(model, options.data, count, preprocess=options.preprocess, seed=options.seed)


def curves_of(
    original: Model,
    dependencies: Dependencies,
    scores: Scores,
    options: Options,
    rows: str = "auto",
    wanted: Wanted | None = None,
    *,
    samples: Samples | None = None,
    observe: Observer = silent,
) -> Curves:
    """The curves of a model on the user's samples.

    Args:
        original: The model as it came.
        dependencies: Its trace.
        scores: What chooses the channels of a group.
        options: Data, seed, threads and so on.
        rows: As of `Limits`.
        wanted: The grid, and what is asked beside.
        samples: The user's, if they were read; in the order of the labels, if there are any.
        observe: Called with a stage's name and the share of it that is done.

    Raises:
        DataError: There is no data, or it does not fit.
    """
    wanted = wanted or Wanted()
    given = curve_batches(original, samples or all_samples(original, options, wanted))
    key = identity(dependencies, scores, options, rows, given, wanted)
    record = Record.opened(cache_path("sensitivity", key), key, fresh=wanted.fresh)
    labels = None if wanted.labels is None else wanted.labels[: samples_in(given)]
    question = Question(given, wanted.ratios, labels, wanted.metric, rows)
    name = str(original.path or "model")
    found = analyse(dependencies, scores, question, record, model=name, threads=options.threads, observe=observe)
    settings = {"seed": options.seed, "samples": options.samples, "rows": rows, "onnxprune": version()}
    return replace(found, settings=settings)


def identity(
    dependencies: Dependencies,
    scores: Scores,
    options: Options,
    rows: str,
    samples: Sequence[Feeds],
    wanted: Wanted,
) -> Mapping[str, object]:
    """All that a point depends on, beside its group and its ratio."""
    return {
        "onnxprune": version(),
        "model": content(dependencies.model),
        "data": [digest(batch[name] for name in sorted(batch)) for batch in samples],
        "criterion": [scores.criterion, options.seed, options.samples],
        "through_norms": dependencies.through_norms,
        "rows": rows,
        "labels": "" if wanted.labels is None else digest([wanted.labels]),
        "metric": wanted.key,
    }


def recommended(curves: Curves, dependencies: Dependencies, scores: Scores, target: Target, rows: str) -> Curves:
    """With what each group loses to meet a target in MACs; without, where that cannot be met."""
    try:
        found = plan(dependencies, scores, target, Limits(rows=rows), by_sensitivity(curves))
    except PlanError:
        return curves
    return curves.recommending([len(g.removed) / g.channels for g in found.groups], target.macs or 1.0)


def read_labels(data: Path, name: str) -> Array:
    """The class of every sample: an array of the data, or a file of its own.

    Raises:
        DataError: There is no such array.
    """
    if name.endswith(".npy"):
        try:
            return np.asarray(np.load(name, allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"cannot be read ({error})", where=name, remedy="write it with numpy.save") from error
    held, names = read_arrays(data, [name])
    if name not in held:
        what = f"has no array '{name}' (it has: {', '.join(names)})"
        raise DataError(what, where=str(data), remedy="name one with --labels, or give an .npy file")
    return held[name]
