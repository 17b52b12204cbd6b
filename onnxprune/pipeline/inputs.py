"""What models are verified and timed on. Law: the user's samples if there are any, else seeded random ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxprune.bench import Comparison, bench
from onnxprune.data import Feeds, Samples, read
from onnxprune.errors import DataError, PlanError, RuntimeUnavailable
from onnxprune.importance import CRITERIA, criterion_of, load_gradients
from onnxprune.importance.registry import Needs
from onnxprune.model import Array, Model, is_float
from onnxprune.pipeline.options import Options
from onnxprune.progress import Observer, silent
from onnxprune.recover import method_of
from onnxprune.runtime import leaves, random_feeds, run, session

BATCH = 64  # samples that run together while activations are collected
VERIFIED = 16  # samples that masked and pruned are compared on
FEWEST = 8  # batches to fit to: two of them are held out


def read_samples(model: Model, options: Options, observe: Observer = silent, *, least: int = 0) -> Samples | None:
    """The user's samples, read once for all that needs them: none if there are none.

    Args:
        model: The model they are for.
        options: Where they lie, and how many are wanted.
        observe: Called with a stage's name and the share of it that is done.
        least: How many are wanted beside what the options need.

    Raises:
        DataError: They cannot be read, or do not fit.
    """
    if options.data is None:
        if options.preprocess is not None:
            raise DataError("--preprocess is for images", remedy="give a folder of them with --data")
        return None
    observe("read samples", 0.0)
    wanted = max(least, VERIFIED, options.batch, options.samples if fits(options) else 0)
    how = {"preprocess": options.preprocess, "seed": options.seed, "observe": observe}
    return read(model, options.data, wanted, **how)  # type: ignore[arg-type]


def fits(options: Options) -> bool:
    """Whether anything is fitted to samples."""
    return options.recover is not False or needs(options) == "samples"


def needs(options: Options) -> Needs:
    """What the criterion that was asked for has to look at; `auto` makes do with weights."""
    return "weights" if options.criterion == "auto" else criterion_of(options.criterion).needs


def sample(model: Model, options: Options, samples: Samples | None) -> Samples:
    """The inputs to verify and time on: the user's, or seeded random ones.

    Raises:
        DataError: They do not fit, or the model computes nothing finite from them, which would prove nothing.
    """
    opened = session(model, threads=options.threads, optimise=False)
    if samples is not None:
        found = run(opened, next(samples.batches(model)))
    else:
        feeds = random_feeds(model, batch=2, seed=options.seed)
        try:
            found = run(opened, feeds)
        except (DataError, RuntimeUnavailable):  # exports with an open batch axis may still hold a batch of 1 inside
            feeds = random_feeds(model, batch=1, seed=options.seed)
            found = run(opened, feeds)
        samples = Samples((feeds,))
    for name, output in ((name, leaf) for name, value in found.items() for leaf in leaves(value)):
        if is_float(output) and output.size and not np.isfinite(output).any():
            what = f"the model's output '{name}' is NaN or infinite on {options.data or 'random inputs'}"
            raise DataError(what, remedy="give typical samples with --data, or export a model with finite weights")
    return samples


def calibration(model: Model, options: Options, samples: Samples | None) -> list[Feeds]:
    """The user's samples in batches to score and recover on; none where there are too few, or no data at all.

    Raises:
        DataError: What was asked for needs more.
    """
    fitted = needs(options) == "samples"
    asked = wanted(options) or fitted
    if samples is None:
        if asked:
            what = f"--criterion {options.criterion}" if fitted else f"--recovery {options.recovery}"
            raise DataError(f"{what} needs samples", remedy="give typical inputs, unlabelled, with --data")
        return []
    if not fits(options):
        return []
    count = min(options.samples, samples.count)
    found = list(samples.batches(model, size=max(1, min(BATCH, count // FEWEST)), limit=count))
    if len(found) < FEWEST and asked:
        raise DataError(
            too_few(options, samples), where=str(options.data), remedy="a few hundred unlabelled samples are enough"
        )
    return found if len(found) >= FEWEST else []


def too_few(options: Options, samples: Samples) -> str:
    """What is wrong where there are too few samples to fit to."""
    count = min(options.samples, samples.count)
    return (
        f"{count} {'samples are' if count > 1 else 'sample is'} too few to fit to: at least {FEWEST} batches are needed"
    )


def loss_gradients(options: Options) -> Mapping[str, Array]:
    """The user's gradients of the loss, each read when it is asked for; none where none are given.

    Raises:
        DataError: The file cannot be read, or the criterion looks at no gradients.
    """
    if options.gradients is None:
        return {}
    if needs(options) != "gradients":
        names = " or ".join(sorted(name for name, entry in CRITERIA.items() if entry.needs == "gradients"))
        what = f"criterion '{options.criterion}' does not look at gradients"
        raise DataError(what, where=str(options.gradients), remedy=f"use --criterion {names}, or leave --gradients out")
    return load_gradients(options.gradients)


def wanted(options: Options) -> bool:
    """Whether a recovery was asked for that needs samples.

    Raises:
        PlanError: An unknown one was, or none at the same time.
    """
    if options.recover is False and options.recovery != "auto":
        what = f"--no-recover and --recovery {options.recovery} contradict each other"
        raise PlanError(what, remedy="leave one of them out")
    if options.recovery == "auto":
        return bool(options.recover) and options.data is not None
    return options.recover is not False and method_of(options.recovery).needs == "samples"


def timing_feeds(model: Model, samples: Samples, options: Options) -> Feeds:
    """One batch of the size that is timed: of the user's samples, or of random ones."""
    if options.data is None and options.batch > 1:
        return random_feeds(model, batch=options.batch, seed=options.seed)
    one = next(samples.batches(model, size=options.batch, limit=1))
    return {k: np.asarray(v) for k, v in one.items()}


def time_pair(original: Model, pruned: Model, feeds: Feeds, options: Options, observe: Observer) -> Comparison:
    """Time dense against pruned on one batch, see `timing_feeds`."""
    return bench(
        original,
        pruned,
        feeds=feeds,
        provider=options.ep,
        threads=options.threads,
        seed=options.seed,
        progress=lambda done: observe("time", done),
    )
