"""Recover a cut model, and judge it as a whole. Law: outputs on samples held out never come out worse than they were.

A method of the registry changes the weights, layer by layer. Where that leaves the outputs further from the dense
model's, simpler ones are tried, which change less; where all do, the model is given back as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnxprune.calibrate.walk import MEMORY
from onnxprune.data.samples import samples_in
from onnxprune.errors import DataError
from onnxprune.fidelity import fidelity
from onnxprune.model import Array, Model
from onnxprune.progress import Observer, silent
from onnxprune.recover.answer import Layer, Recovered
from onnxprune.recover.registry import Task, method_of
from onnxprune.recover.state import HELD
from onnxprune.runtime import Feeds
from onnxprune.trace import Dependencies

AUTO, CHAIN = "auto", ("ridge", "statistics", "bias")  # the more a method changes, the more it brings, mostly
WORSE = "weights left as they were: refitted, the outputs were further from the dense model's on samples held out"


def recover(
    dependencies: Dependencies,
    removed: Array,
    pruned: Model,
    batches: Sequence[Feeds],
    *,
    method: str = AUTO,
    threads: int = 1,
    memory: int = MEMORY,
    seed: int = 0,
    observe: Observer = silent,
) -> Recovered:
    """Change the weights that are left so that the model comes near the dense one.

    Args:
        dependencies: The traced dense model.
        removed: Unit numbers.
        pruned: What `rewrite` made of them.
        batches: Calibration samples, unlabelled; at least four batches. None for a method that needs weights alone.
        method: A name in `METHODS`; auto: the first of `CHAIN` that does no harm.
        threads: Threads inside one operator.
        memory: Bytes of activations held in memory; what is beyond lies in temporary files.
        seed: Of the sites that are drawn.
        observe: Called with a stage's name and the share of it that is done.

    Raises:
        PlanError: Unknown method.
        DataError: It needs samples, and there are fewer than four batches.
    """
    methods = [method_of(name) for name in (CHAIN if method == AUTO else (method,))]
    if methods[0].needs == "samples" and len(batches) < HELD:
        raise DataError(f"recovery '{method}' needs samples in {HELD} batches", remedy="give more with --data X.npz")
    task = Task(dependencies, removed, pruned, batches, threads, memory, seed, observe)
    tried = list[Recovered]()
    for found in methods:
        tried.append(judged(task, *found.function(task), found.name))
        if not tried[-1].note:
            return tried[-1]
    return tried[0]


def judged(task: Task, model: Model, layers: Sequence[Layer], method: str) -> Recovered:
    """What came of it, or the model as it was, where outputs on samples held out were nearer then."""
    held = task.batches[HELD - 1 :: HELD]
    counts = samples_in(task.batches), samples_in(held)
    if not held:
        return Recovered(model, tuple(layers), *counts, {}, {}, method=method)
    pair = task.pruned, model
    before, after = (fidelity(task.dependencies.model, m, held, threads=task.threads) for m in pair)
    note = WORSE if worse(before, after) else ""
    return Recovered(task.pruned if note else model, tuple(layers), *counts, before, after, note, method)


def worse(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether outputs are further from the dense model's than they were, or no numbers any more."""
    errors = before["relative_l2"], after["relative_l2"]
    if None not in errors:
        return bool(errors[1] > errors[0])
    return errors[0] is not None or (after["agreement"] or 0.0) < (before["agreement"] or 0.0)
