"""The part of a graph below a group. Law: what runs there gives the outputs of the whole model with the group masked.

No node before the first one that a group touches depends on it, so what crosses the cut in front of that node is what
it was in the dense model, and is computed once for all ratios (and, the walk going on from there, for later groups).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onnxprune.calibrate import Walk
from onnxprune.graph import inputs_of
from onnxprune.labels import Ids
from onnxprune.model import Array, Model
from onnxprune.reference import restricted
from onnxprune.rewrite import masked, severed
from onnxprune.runtime import run
from onnxprune.trace import Dependencies

CUTS = (masked, severed)  # the second where a channel of zeros would be divided by its own zero norm


def firsts(dependencies: Dependencies) -> Ids:
    """The number of the first node that each group touches. Shape (groups,)."""
    found = np.full(len(dependencies.groups), len(dependencies.model.proto.graph.node), dtype=np.int64)
    touched = {
        name: owners(dependencies, [a.ids for a in dependencies.labels[name] if a.ids is not None])
        for name in dependencies.model.weights
        if name in dependencies.labels
    }
    for at, node in enumerate(dependencies.model.proto.graph.node):
        groups = [touched[name] for name in inputs_of(node) if name in touched]
        groups += [owners(dependencies, dependencies.mixed[n]) for n in node.output if n in dependencies.mixed]
        for group in groups:
            found[group] = np.minimum(found[group], at)
    return found


def owners(dependencies: Dependencies, parts: object) -> Ids:
    """The groups that some of these ids belong to."""
    units = [dependencies.unit[np.ravel(ids)] for ids in parts]  # type: ignore[attr-defined]
    found = np.unique(dependencies.owner[np.concatenate(units)]) if units else np.zeros(0, np.int64)
    return found[found >= 0]


def variants(dependencies: Dependencies, removed: Ids) -> Iterator[Model]:
    """The model with units masked; a second one for where the first computes no numbers."""
    keep = dependencies.keep(removed)
    for cut in CUTS:
        yield restricted(dependencies, keep, cut(dependencies, removed))


@dataclass(frozen=True, eq=False)
class Below:
    """What lies behind a walk's place.

    Attributes:
        walk: Standing in front of the first node that counts.
        outputs: The model's outputs that are computed from there on.
    """

    walk: Walk
    outputs: list[str]

    @staticmethod
    def of(walk: Walk) -> Below:
        """What lies behind where a walk stands."""
        names = [o.name for o in walk.model.proto.graph.output]
        return Below(walk, [n for n in names if walk.made.get(n, -1) >= walk.at])

    def run(self, model: Model, threads: int = 1) -> Iterator[dict[str, Array]]:
        """The outputs of a model that differs from the walk's behind its place only, batch by batch."""
        if not self.outputs:
            return
        done = {name for node in self.walk.nodes[: self.walk.at] for name in node.output}
        nodes = [node for node in model.proto.graph.node if not done.intersection(node.output)]
        opened = self.walk.piece(nodes, self.outputs, model, threads)
        for feeds in self.walk.live:
            yield run(opened, {i.name: feeds[i.name] for i in opened.get_inputs()}, self.outputs)
