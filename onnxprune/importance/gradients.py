"""Criteria of gradients of the loss. Law: to remove a filter is to set its weights to 0, to first or second order.

A gradient goes by the name of the initializer in the user's file, in the shape of the weight, or with one axis of
samples before it. A weight that was a Constant node goes by its output's name. Where several layers share a small
vector that pruning tells apart, each is scored by the gradient of its own name, else by that of the shared one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxprune.data.npz import read_arrays
from onnxprune.errors import DataError
from onnxprune.importance.norms import by_row, filters, summed
from onnxprune.importance.registry import Evidence, Scores, criterion
from onnxprune.model import Array, Model
from onnxprune.trace import Dependencies, Source

EVERY = "give one gradient for every initializer that holds filters, under its name in the model file"
PER_SAMPLE = "stack the gradients of single samples: one more axis before those of the weight"
SHOWN = 3  # names in a message


@criterion("taylor", needs="gradients")
def taylor(dependencies: Dependencies, evidence: Evidence) -> Scores:
    """Squared change of the loss when a unit's filters go, to first order: (sum of gradient x weight)^2.

    Molchanov et al. 2019, arXiv 1906.10771, equation 8, over the filters of all of a unit's sources; the mean over
    samples where gradients have an axis of them.

    Raises:
        DataError: A gradient is missing, of another shape than its weight, or not finite.
    """
    each = {}
    for source, gradients in pairs(dependencies, evidence.gradients):
        weights = np.asarray(filters(dependencies, source), dtype=np.float64)  # a product of halves has fewer digits
        each[source] = np.stack([(by_row(g, source) * weights).sum(axis=1) for g in gradients], 1)
    return Scores("", np.square(summed(dependencies, each)).mean(axis=1), comparable=True)


@criterion("hessian", needs="gradients")
def hessian(dependencies: Dependencies, evidence: Evidence) -> Scores:
    """Change of the loss when a unit's filters go, to second order: half the Hessian's diagonal x weight^2, summed.

    Optimal brain damage, LeCun, Denker and Solla 1990 (NeurIPS 2), equation 5, with the empirical Fisher information
    for the Hessian: the mean over samples of squared gradients.

    Raises:
        DataError: A gradient is missing, of another shape than its weight, not finite, or has no axis of samples.
    """
    each = {}
    for source, gradients in pairs(dependencies, evidence.gradients, per_sample=True):
        fisher = np.zeros(gradients.shape[1:])
        for gradient in gradients:
            fisher += np.square(gradient, dtype=np.float64) / len(gradients)
        weights = np.asarray(filters(dependencies, source), dtype=np.float64)
        each[source] = np.asarray((by_row(fisher, source) * weights**2).sum(axis=1) / 2)
    return Scores("", summed(dependencies, each), each, additive=True, comparable=True)


def pairs(
    dependencies: Dependencies, gradients: Mapping[str, Array], *, per_sample: bool = False
) -> Iterator[tuple[Source, Array]]:
    """Every source of a group and the gradients of its weight. Shapes (samples, ...), one where there is no such axis.

    Raises:
        DataError: A gradient is missing or does not fit; or samples are missing that are needed.
    """
    samples: dict[int | None, str] = {}
    for group in dependencies.groups:
        for source in group.sources:
            name = name_of(dependencies.model, source.tensor, gradients)
            found = fitting(dependencies.model, source.tensor, name, gradients[name])
            alone = found.ndim == dependencies.model.weights[source.tensor].ndim
            if alone and per_sample:
                what = f"the gradient '{name}' has no axis of samples, so the Hessian's diagonal is not available"
                raise DataError(what, remedy=f"{PER_SAMPLE}; or use --criterion taylor")
            samples.setdefault(None if alone else len(found), name)
            if len(samples) > 1:
                what = "gradients differ in their number of samples: " + " and ".join(
                    f"'{n}'" for n in samples.values()
                )
                raise DataError(what, remedy="take all of them from the same samples")
            yield source, found[None] if alone else found


def name_of(model: Model, tensor: str, gradients: Mapping[str, Array]) -> str:
    """The name that the gradient of an initializer goes by.

    Raises:
        DataError: There is none.
    """
    for name in (tensor, model.copies.get(tensor, tensor)):
        if name in gradients:
            return name
    wanted, names = model.copies.get(tensor, tensor), list(gradients)
    near = difflib.get_close_matches(wanted, names, n=SHOWN, cutoff=0.6) or names[:SHOWN]
    there = ", ".join(f"'{name}'" for name in near) or "no arrays"
    raise DataError(f"there is no gradient for '{wanted}' (near it: {there})", remedy=EVERY)


def fitting(model: Model, tensor: str, name: str, gradient: Array) -> Array:
    """A gradient that fits its weight.

    Raises:
        DataError: It has another shape, is not real, or not finite.
    """
    shape = model.weights[tensor].shape
    if gradient.dtype.kind != "f":
        raise DataError(f"the gradient '{name}' is {gradient.dtype}, not real", remedy="convert it with .astype('f4')")
    if gradient.shape != shape and (gradient.shape[1:] != shape or not len(gradient)):
        same = [n for n, w in model.weights.items() if w.shape in (gradient.shape, gradient.shape[1:])]
        near = difflib.get_close_matches(name, same, n=1, cutoff=0.0)
        hint = f" (as '{near[0]}' has)" if near else ""
        what = f"the gradient '{name}' has shape {gradient.shape}{hint}, its weight has {shape}"
        raise DataError(what, remedy="save it as the weight lies in the file; an axis of samples comes first")
    if not np.isfinite(gradient).all():
        raise DataError(f"the gradient '{name}' holds NaN or infinity", remedy="compute it in float32, loss unscaled")
    return gradient


@dataclass(frozen=True)
class Archive(Mapping[str, Array]):
    """Gradients in an `.npz`, each read when it is asked for: those of single samples can be larger than memory."""

    path: Path
    names: tuple[str, ...]

    def __getitem__(self, name: str) -> Array:
        if name not in self.names:
            raise KeyError(name)
        return read_arrays(self.path, [name])[0][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def load_gradients(path: Path) -> Archive:
    """Gradients of an `.npz`, by the name of the initializer.

    Raises:
        DataError: The file cannot be read, or is empty.
    """
    names = tuple(read_arrays(path, [])[1])
    if not names:
        raise DataError("holds no arrays", where=str(path), remedy=EVERY)
    return Archive(path, names)
