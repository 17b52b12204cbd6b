"""The scores to plan by. Law: `auto` is the criterion that keeps most accuracy with what there is to look at."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from onnxprune.dead import Dead
from onnxprune.errors import OnnxpruneError
from onnxprune.importance import NOTHING, Evidence, Scores, score
from onnxprune.lossless import spared
from onnxprune.pipeline.inputs import loss_gradients
from onnxprune.pipeline.options import Options
from onnxprune.plan import Plan
from onnxprune.progress import Observer
from onnxprune.runtime import Feeds
from onnxprune.trace import Dependencies


def ranked(
    dependencies: Dependencies,
    samples: Sequence[Feeds],
    options: Options,
    observe: Observer,
    first: Plan | None = None,
    dead: Dead | None = None,
) -> Scores:
    """The scores to plan by.

    Args:
        dependencies: A traced model.
        samples: To look at; without enough of them, none.
        options: Criterion, seed and so on.
        observe: Called with a stage's name and the share of it that is done.
        first: A provisional plan, if there is one.
        dead: The dead units, if they were looked for: they are worth nothing.
    """
    observe("score", 0.0)
    name = options.criterion
    if name == "auto":
        name = "reconstruction" if samples and options.recover is not False else "l1"
    how = partial(Evidence, threads=options.threads, memory=options.memory, seed=options.seed, observe=observe)
    removed = first.removed(dependencies) if first else NOTHING
    found = score(dependencies, name, how(samples, loss_gradients(options), removed=removed))
    return spared(found, dead) if dead else found


def ranked_by(dependencies: Dependencies, chosen: Plan) -> Scores | None:
    """The scores a plan was made from; None where it names no criterion, or one that does not fit these weights."""
    try:
        seed = int(str(chosen.settings.get("seed", 0)))
        evidence = Evidence(seed=seed, removed=chosen.removed(dependencies))
        return score(dependencies, str(chosen.settings.get("criterion")), evidence)
    except OnnxpruneError:  # the report does without; the plan itself is all that counts
        return None
