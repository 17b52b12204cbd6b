"""What models are verified and timed on. Law: the user's samples if there are any, else seeded random ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.bench import Comparison, bench
from onnxprune.data import Feeds, batches, load_npz
from onnxprune.errors import DataError, RuntimeUnavailable
from onnxprune.importance import criterion_of
from onnxprune.model import Model, is_float
from onnxprune.pipeline.options import Options
from onnxprune.progress import Observer
from onnxprune.recover import method_of
from onnxprune.runtime import random_feeds, run, session

BATCH = 64  # samples that run together while activations are collected
FEWEST = 8  # batches to fit to: two of them are held out


def sample(model: Model, options: Options) -> Feeds:
    """The inputs to verify and time on: the user's, or seeded random ones.

    Raises:
        DataError: They do not fit, or the model computes nothing finite from them, which would prove nothing.
    """
    opened = session(model, threads=options.threads, optimise=False)
    if options.data is not None:
        feeds = load_npz(model, options.data)
        found = run(opened, next(iter(batches(model, feeds))))
    else:
        feeds = random_feeds(model, batch=2, seed=options.seed)
        try:
            found = run(opened, feeds)
        except (DataError, RuntimeUnavailable):  # exports with an open batch axis may still hold a batch of 1 inside
            feeds = random_feeds(model, batch=1, seed=options.seed)
            found = run(opened, feeds)
    for name, output in found.items():
        if is_float(output) and output.size and not np.isfinite(output).any():
            what = f"the model's output '{name}' is NaN or infinite on {options.data or 'random inputs'}"
            raise DataError(
                what, remedy="give typical samples with --data X.npz, or export a model with finite weights"
            )
    return feeds


def calibration(model: Model, options: Options) -> list[Feeds]:
    """The user's samples in batches to score and recover on; none where there are too few, or no data at all.

    Raises:
        DataError: They do not fit, or what was asked for needs more.
    """
    fitted = options.criterion != "auto" and criterion_of(options.criterion).needs == "samples"
    asked = wanted(options) or fitted
    if options.data is None:
        if asked:
            what = f"--criterion {options.criterion}" if fitted else f"--recovery {options.recovery}"
            raise DataError(f"{what} needs samples", remedy="give typical inputs, unlabelled, with --data X.npz")
        return []
    if options.recover is False and not fitted:
        return []  # nothing is fitted: `sample` reads what verification needs
    feeds = load_npz(model, options.data)
    count = min([options.samples, *(len(a) for a in feeds.values() if a.ndim)])
    found = list(batches(model, feeds, size=max(1, min(BATCH, count // FEWEST)), limit=count))
    if len(found) < FEWEST and asked:
        what = f"{count} samples are too few to fit to: at least {FEWEST} batches are needed"
        raise DataError(what, where=str(options.data), remedy="a few hundred unlabelled samples are enough")
    return found if len(found) >= FEWEST else []


def wanted(options: Options) -> bool:
    """Whether a recovery was asked for that needs samples.

    Raises:
        PlanError: An unknown one was.
    """
    if options.recovery == "auto":
        return bool(options.recover) and options.data is not None
    return options.recover is not False and method_of(options.recovery).needs == "samples"


def recovery(options: Options, samples: bool) -> str | None:
    """The method that weights are recovered by; None where they are left as they are.

    Without samples it has to be asked for: nothing tells whether the result is nearer to the dense model.
    """
    if options.recover is False:
        return None
    if options.recovery != "auto":
        return options.recovery
    return "ridge" if samples else ("merge" if options.recover else None)


def timing_feeds(model: Model, feeds: Feeds, options: Options) -> Feeds:
    """One batch of the size that is timed: of the user's samples, or of random ones."""
    if options.data is None and options.batch > 1:
        return random_feeds(model, batch=options.batch, seed=options.seed)
    one: Sequence[Feeds] = list(batches(model, feeds, size=options.batch, limit=1))
    return {k: np.asarray(v) for k, v in one[0].items()}


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
