"""The dead units of a model. Law: without them it gives the outputs it gave, for every input; what is alive stays.

That holds wherever the original's numbers are finite: a zero weight on an infinity is not a number, and no more
there once the weight is gone. A unit is looked for from both ends (Han et al. 2015, arXiv 1506.02626, section 3.1: "the
zero-input and zero-output neurons are removed", here for channels and transitively): from the outputs back, what no
reader needs; from the inputs on, what is zero, or constant, whatever comes in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from onnxprune.dead.fold import constants, folded
from onnxprune.dead.liveness import alive
from onnxprune.dead.ranges import Mask
from onnxprune.dead.reads import Readers, readers
from onnxprune.dead.walk import Walk
from onnxprune.labels import Ids
from onnxprune.trace import Dependencies, trace

CAUSES = ("zero filter", "never fires", "unread", "constant")
Place = tuple[str, int, int]  # a filter: weight, axis, index


@dataclass(frozen=True, eq=False)
class Dead:
    """The dead units of a traced model.

    Attributes:
        dependencies: The traced model.
        units: Their numbers, ascending; whole rows follow from their members.
        cause: For each, an index into `CAUSES`.
        padded: Units that are constant and stay all the same, because padding or a missing bias keeps them apart.
        found: Who reads the units.
        added: Initializers that the model got for biases it had none for.
    """

    dependencies: Dependencies
    units: Ids
    cause: Ids
    padded: int
    found: Readers
    added: frozenset[str] = frozenset()

    @property
    def counts(self) -> Mapping[str, int]:
        """Cause -> units."""
        return named(self.cause)

    @cached_property
    def mask(self) -> Mask:
        """Per unit, whether it is dead. Shape (units,)."""
        made = np.zeros(self.dependencies.unit_count, dtype=bool)
        made[self.units] = True
        return made

    def removable(self, removed: Ids) -> Ids:
        """Those of some units that can go while all others stay.

        A unit may be dead because another is: if that one has to stay, for its rows or a limit, so has this one.
        """
        count, removed = self.dependencies.unit_count, np.asarray(removed, dtype=np.int64)
        kept = np.setdiff1d(np.arange(count), removed)
        state = alive(self.dependencies, self.found, kept)
        return removed[~state[removed]]

    def counts_of(self, units: Ids) -> Mapping[str, int]:
        """Cause -> units, of some of them."""
        return named(self.cause[np.isin(self.units, units)])


def named(cause: Ids) -> dict[str, int]:
    """Cause -> how often, in the order of `CAUSES`."""
    count = Counter(cause.tolist())
    return {name: count[k] for k, name in enumerate(CAUSES) if count[k]}


def dead_units(dependencies: Dependencies) -> Dead:
    """The dead units of a traced model, some of which may need a constant moved to a bias before they can go.

    Args:
        dependencies: A traced model.
    """
    found = readers(Walk(dependencies))
    none = np.zeros(0, dtype=np.int64)
    count = dependencies.unit_count
    state = alive(dependencies, found, none)
    units = np.flatnonzero(~state[:count])
    could = int((~alive(dependencies, found, none, everywhere=True)[:count]).sum())
    cause = causes(dependencies, found, state)[units] if units.size else units
    return Dead(dependencies, units, cause, could - units.size, found)


def causes(dependencies: Dependencies, found: Readers, state: Mask) -> Ids:
    """Per unit why it is dead, if it is. Shape (units,)."""
    size = dependencies.unit_count + len(dependencies.whole) + 1
    seen, read_at_all, moved = np.zeros((3, size), dtype=bool)
    for read in found.reads:
        own = read.inputs == read.outputs if read.outputs.shape[1] == 1 else np.zeros(1, dtype=bool)
        read_at_all[read.inputs] = True
        seen[read.inputs[~(read.zero | own)]] = True  # depthwise filters hand a unit on to itself
    for read, inputs in constants(found.reads, state):
        moved[read.inputs[inputs]] = True
    silent = read_at_all & ~seen
    empty = silent & ~nonzero_filters(dependencies, size)
    cause = np.select([moved, empty, silent], [3, 0, 1], 2)
    return cause[: dependencies.unit_count].astype(np.int64)


def nonzero_filters(dependencies: Dependencies, size: int) -> Mask:
    """Per unit, whether any of its filters holds a number other than zero."""
    found = np.zeros(size, dtype=bool)
    for source in dependencies.sources:
        weight = dependencies.model.weights[source.tensor]
        others = tuple(k for k in range(weight.ndim) if k != source.axis)
        filled = (weight != 0).any(axis=others) if source.ids.ndim == 1 else np.ones(source.ids.shape, dtype=bool)
        found[dependencies.unit[source.ids][filled]] = True
    return found


@dataclass(eq=False)
class Settling:
    """A model on its way to one in which every dead unit can go as it is."""

    dependencies: Dependencies
    constant: set[Place] = field(default_factory=set)
    added: set[str] = field(default_factory=set)

    def fold(self, found: Dead) -> bool:
        """Move the constant terms of dead units to biases; whether there were any."""
        dependencies = self.dependencies
        state = np.ones(dependencies.unit_count + len(dependencies.whole) + 1, dtype=bool)
        state[: dependencies.unit_count] = ~found.mask
        state[dependencies.unit_count : -1] = ~dependencies.gone(found.units)[dependencies.unit_count : -1]
        moved = constants(found.found.reads, state)
        if not moved:
            return False
        self.constant |= set(places(dependencies, found.units[found.cause == CAUSES.index("constant")]))
        model = folded(dependencies.model, moved)
        self.added |= set(model.weights) - set(dependencies.model.weights)
        how = {"free_groups": False, "through_norms": dependencies.through_norms}
        self.dependencies = trace(model, **how)
        return True


def places(dependencies: Dependencies, units: Ids) -> list[Place]:
    """The filters of some units."""
    found = []
    for source in dependencies.sources:
        at = np.flatnonzero(np.isin(dependencies.unit[source.ids].ravel(), units))
        found += [(source.tensor, source.axis, int(index)) for index in at]
    return found


def settle(dependencies: Dependencies) -> Dead:
    """The dead units of a model whose biases have taken over what constant ones added.

    Args:
        dependencies: A traced model.

    Returns:
        The units, with the traced model to remove them from: `dependencies` itself where nothing had to move.
    """
    state = Settling(dependencies)
    found = dead_units(dependencies)
    while state.fold(found):
        found = dead_units(state.dependencies)
    if not state.constant:
        return found
    moved = [
        int(state.dependencies.unit[source.ids].ravel()[index])
        for source in state.dependencies.sources
        for index in range(source.ids.size)
        if (source.tensor, source.axis, index) in state.constant
    ]
    cause = np.where(np.isin(found.units, moved), CAUSES.index("constant"), found.cause)
    return replace(found, cause=cause, added=frozenset(state.added))
