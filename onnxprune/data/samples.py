"""Samples in memory. Law: only samples are joined and cut, along the first axis; what belongs together stays so.

Samples of one shape are joined into one set of arrays. Those of other sizes (sentences, clips) are sets of their own,
and what has no common number of samples (a recurrent state beside a sequence) goes into the model as it came.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxprune.data.spread import spread
from onnxprune.errors import DataError
from onnxprune.model import Array, Model

Feeds = Mapping[str, Array]
MEMORY = 2**31  # bytes of one array; what is larger lies in a file without a name, which goes with its last reader


@dataclass(frozen=True, eq=False)
class Samples:
    """The user's samples.

    Attributes:
        sets: Input name -> samples along the first axis; one set for every combination of shapes.
        about: What a report says of them: `source`, `kind`, `samples`, `of` (how many there are; absent where that is
            open), `unreadable` and `first_unreadable`, `preprocess` and `assumed`; of a run, `too_few` to fit to.
    """

    sets: tuple[Feeds, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many samples there are."""
        return samples_in(self.sets)

    def batches(self, model: Model, *, size: int = 8, limit: int = 16) -> Iterator[Feeds]:
        """Batches the model takes, see `batches`; none holds samples of different shapes."""
        left = limit
        for feeds in self.sets:
            for batch in batches(model, feeds, size=size, limit=left):
                yield batch
                left -= count_of(batch) or 1
            if left <= 0:
                return


def count_of(feeds: Feeds) -> int | None:
    """The common number of samples; None where there is none."""
    counts = {a.shape[0] for a in feeds.values() if a.ndim}
    return counts.pop() if len(counts) == 1 else None


def samples_in(feeds: Iterable[Feeds]) -> int:
    """Samples in some batches; a batch without a common number of samples is one."""
    return sum(count_of(batch) or 1 for batch in feeds)


def step_of(model: Model) -> int | None:
    """The model's own batch; 0 where it leaves that open, None where its inputs have several."""
    firsts = [i.type.tensor_type.shape.dim[0].dim_value for i in model.inputs if i.type.tensor_type.shape.dim]
    fixed = {d for d in firsts if d > 0}
    return (fixed.pop() if fixed else 0) if len(fixed) <= 1 else None


def batches(model: Model, feeds: Feeds, *, size: int = 8, limit: int = 16) -> Iterator[Feeds]:
    """Cut samples into batches the model takes: its own batch size if fixed, else `size`.

    Args:
        model: Its inputs' first axes say whether the batch is fixed.
        feeds: Input name -> samples along the first axis; without a common number of samples, one batch.
        size: Samples per batch where the model leaves that open.
        limit: Samples to use at most, rounded up to a whole batch.
    """
    own, total = step_of(model), count_of(feeds)
    if total is None or own is None:
        yield feeds
        return
    step = own or size
    for start in range(0, min(total, limit), step):
        yield {name: a[start : start + step] if a.ndim else a for name, a in feeds.items()}


def taken(model: Model, feeds: Feeds, limit: int, seed: int) -> Feeds:
    """As many samples as are wanted, spread over all, in their order; whole batches where the model's is fixed."""
    own, total = step_of(model), count_of(feeds)
    if total is None or own is None or total <= limit:
        return feeds
    step = own or 1
    first = spread(total // step, -(-limit // step), seed) * step
    rows = (first[:, None] + np.arange(step)).ravel()
    return {name: a[rows] if a.ndim else a for name, a in feeds.items()}


def joined(model: Model, parts: Sequence[Feeds], where: str) -> tuple[Feeds, ...]:
    """Feeds of the same shapes as one set, in their order.

    Args:
        model: Its inputs say which arrays have no axis to join along.
        parts: Feeds that fit the model, each with whatever number of samples.
        where: The file they come from.

    Raises:
        DataError: An input without axes has different values, so that no batch can hold both.
    """
    groups: dict[Any, list[Feeds]] = {}
    for n, feeds in enumerate(parts):
        free = count_of(feeds) is not None and step_of(model) is not None
        key = tuple(a.shape[1:] for a in feeds.values()) if free else n
        groups.setdefault(key, []).append(feeds)
    return tuple(together(group, where) for group in groups.values())


def together(group: Sequence[Feeds], where: str) -> Feeds:
    """One set of feeds of equal shapes."""
    if len(group) == 1:
        return group[0]
    found = {}
    for name, first in group[0].items():
        if first.ndim:
            found[name] = concatenated([feeds[name] for feeds in group])
            continue
        if any(feeds[name] != first for feeds in group):
            what = f"the input '{name}', which has no axis of samples, has several values"
            raise DataError(what, where=where, remedy="give it one value, the same for all samples")
        found[name] = first
    return found


def concatenated(arrays: Sequence[Array]) -> Array:
    """Arrays one after the other along their first axis."""
    held = room((sum(len(a) for a in arrays), *arrays[0].shape[1:]), arrays[0].dtype)
    start = 0
    for array in arrays:
        held[start : start + len(array)] = array
        start += len(array)
    return held


def room(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array to fill; a large one lies in a file that is gone when nobody reads it any more, however that ends."""
    if np.prod(shape, dtype=np.float64) * dtype.itemsize <= MEMORY or dtype.hasobject:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(prefix="onnxprune-samples-") as file:
        return np.memmap(file, dtype=dtype, shape=shape)
