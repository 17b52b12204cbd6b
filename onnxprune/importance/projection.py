"""Ranking a residual stream by its projection. Law: where a 1x1 shortcut makes the stream, it alone decides.

A *projection* is a 1x1 convolution whose output is added to that of another layer, which reads the same tensor only
through layers between. The last convolutions of the blocks write the same stream and lose the same channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx

from onnxprune.calibrate import anchor_of, contraction_of, readers_of
from onnxprune.graph import inputs_of, node_name
from onnxprune.importance.norms import by_filter, l1_norm
from onnxprune.importance.registry import Evidence, Scores, criterion
from onnxprune.model import Model
from onnxprune.trace import Dependencies, Source

Writers = Mapping[str, onnx.NodeProto]
SHORT = ("AveragePool", "MaxPool", "Identity", "Dropout", "Pad")  # a shortcut may do this before it projects


@criterion("l1-projection")
def l1_projection(dependencies: Dependencies, _: Evidence) -> Scores:
    """L1 norm of the 1x1 projection's filters alone where a residual stream has a projection, else as l1.

    Li et al. 2017, arXiv 1608.08710, section 3.3: the identity feature maps are chosen by the pruning of the shortcut.
    """
    found, short = by_filter(dependencies, l1_norm), projections(dependencies)
    if not short:
        return found
    alone = by_filter(dependencies, l1_norm, short)
    covered = np.concatenate([dependencies.unit[source.ids].ravel() for source in short])
    covered = covered[(covered >= 0) & (covered < dependencies.unit_count)]
    values = found.values.copy()
    values[covered] = alone.values[covered]
    return replace(found, values=values)


def projections(dependencies: Dependencies) -> list[Source]:
    """The sources that are projection shortcuts."""
    model = dependencies.model
    readers, writers = readers_of(model), {o: n for n in model.proto.graph.node for o in n.output}
    short = set()
    for node in model.proto.graph.node:
        layer = contraction_of(node, model)
        if isinstance(layer, str) or node.op_type != "Conv" or layer.groups > 1 or any(k != 1 for k in layer.kernel):
            continue
        join = writers.get(anchor_of(node.output[0], layer.channels, layer.axis, model, readers).tensor)
        if join is not None and join.op_type in ("Add", "Sum") and goes_around(node, join, writers, model):
            short.add(node_name(node))
    return [s for s in dependencies.sources if s.node in short and s.axis == 0]


def goes_around(node: onnx.NodeProto, join: onnx.NodeProto, writers: Writers, model: Model) -> bool:
    """Whether what a layer reads also reaches an addition behind it through other layers."""
    start = node.input[0]
    while (before := writers.get(start)) is not None and before.op_type in SHORT:
        start = before.input[0]
    pending, seen = [(name, False) for name in join.input], set[tuple[str, bool]]()
    while pending:
        name, layered = pending.pop()
        if name == start and layered:
            return True
        if name not in writers or name in (start, node.output[0]) or (name, layered) in seen:
            continue
        seen.add((name, layered))
        layered |= not isinstance(contraction_of(writers[name], model), str)
        pending += [(read, layered) for read in inputs_of(writers[name])]
    return False
