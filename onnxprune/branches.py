"""The branches of If. Law: inputs alone may never lead into one of them, so each can be taken by force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx

from onnxprune.graph import reads, subgraphs
from onnxprune.model import Model, bare
from onnxprune.rewrite import touched
from onnxprune.trace import Dependencies, Mask

MOST = 64  # If nodes looked at


def pruned_branches(dependencies: Dependencies, keep: Mask) -> list[str]:
    """The main graph's If nodes whose branches hold or read something that became smaller, by first output."""
    nodes = [n for n in dependencies.model.proto.graph.node if n.op_type == "If"]
    reached = {n.output[0]: [name for body in subgraphs(n) for name in reads(body)] for n in nodes}
    small = {o: any(touched(dependencies.labels.get(name, ()), keep) for name in read) for o, read in reached.items()}
    return [name for name in small if small[name]][:MOST]


def forced(model: Model, name: str, taken: bool) -> Model:
    """The model with one If of the main graph, known by its first output, taking the branch `taken`."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    held = f"{name}_forced"
    for node in proto.graph.node:
        if name in node.output[:1]:
            node.input[0] = held
    proto.graph.initializer.append(bare(held, np.array(taken)))
    return replace(model, proto=proto, weights={**model.weights, held: np.array(taken)})
