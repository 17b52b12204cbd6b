"""Sensitivity from a file to curves. Law: what was measured for a model, its data and its criterion is remembered."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from onnxprune.cache import cache_path
from onnxprune.data import Feeds, Samples, read
from onnxprune.data.npz import read_arrays
from onnxprune.data.read import kind_of
from onnxprune.data.samples import taken
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
LABELS = "labels of --labels"  # beside the inputs, while samples are taken
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


def curve_batches(model: Model, samples: Samples, seed: int = 0) -> list[Feeds]:
    """The samples that outputs are compared on, in batches."""
    return compared(model, samples, None, seed)[0]


def compared(model: Model, samples: Samples, labels: Array | None, seed: int) -> tuple[list[Feeds], Array | None]:
    """The samples that outputs are compared on, in batches, spread over all there are; and their labels."""
    samples, labels = spread_over(model, samples, labels, CURVE, seed)
    each = sum(array.nbytes // len(array) for array in samples.sets[0].values() if array.ndim)
    return list(samples.batches(model, size=max(1, min(BATCH, BYTES // max(1, each))), limit=CURVE)), labels


def spread_over(
    model: Model, samples: Samples, labels: Array | None, limit: int, seed: int
) -> tuple[Samples, Array | None]:
    """As many samples as are wanted, spread over all if they have one shape, and their labels."""
    if len(samples.sets) > 1:
        return samples, labels
    held = {**samples.sets[0], **({} if labels is None else {LABELS: labels})}
    held = dict(taken(model, held, limit, seed))
    labels = held.pop(LABELS, None)
    return replace(samples, sets=(held,)), labels


def all_samples(model: Model, options: Options, wanted: Wanted) -> tuple[Samples, Wanted]:
    """The user's samples, and what is asked of them: with the labels of those that are taken.

    Raises:
        DataError: There are none, or they or the labels do not fit.
    """
    if options.data is None:
        raise DataError("outputs are compared on samples", remedy="give typical inputs with --data")
    how = {"preprocess": options.preprocess, "seed": options.seed}
    count, labels = max(CURVE, options.samples), wanted.labels
    if labels is None:
        return read(model, options.data, count, **how), wanted  # type: ignore[arg-type]
    if labels.ndim == 0:
        raise DataError("the labels are no list", remedy="give one integer for each sample")
    if kind_of(options.data) != "npz":
        what = "--labels go with an .npz: samples of files and scripts come in no order of labels"
        raise DataError(what, where=str(options.data), remedy="put samples and labels into one .npz, or use --eval")
    found = read(model, options.data, max(count, len(labels)), **how)  # type: ignore[arg-type]
    if found.about["of"] != len(labels):
        what = f"there are {len(labels):,} labels and {found.about['of']:,} samples"
        raise DataError(what, where=str(options.data), remedy="give one label for each sample, in their order")
    found, labels = spread_over(model, found, labels, count, options.seed)
    return found, replace(wanted, labels=labels)


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
        samples: The user's, if they were read; the labels are then those of these samples.
        observe: Called with a stage's name and the share of it that is done.

    Raises:
        DataError: There is no data, or it does not fit.
    """
    wanted = wanted or Wanted()
    if samples is None:
        samples, wanted = all_samples(original, options, wanted)
    given, labels = compared(original, samples, wanted.labels, options.seed)
    wanted = replace(wanted, labels=labels)
    key = identity(dependencies, scores, options, rows, given, wanted)
    record = Record.opened(cache_path("sensitivity", key), key, fresh=wanted.fresh)
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
        "criterion": [scores.criterion, options.seed, options.samples, gradients_key(options)],
        "through_norms": dependencies.through_norms,
        "rows": rows,
        "labels": "" if wanted.labels is None else digest([wanted.labels]),
        "metric": wanted.key,
    }


def gradients_key(options: Options) -> str:
    """The content of the gradients that channels are chosen by."""
    if options.gradients is None:
        return ""
    with options.gradients.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"cannot be read ({reason})", where=name, remedy="write it with numpy.save") from error
    held, names = read_arrays(data, [name])
    if name not in held:
        what = f"has no array '{name}' (it has: {', '.join(names)})"
        raise DataError(what, where=str(data), remedy="name one with --labels, or give an .npy file")
    return held[name]
