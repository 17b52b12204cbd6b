"""Move constant terms to biases. Law: the model computes what it computed; only rounding tells them apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx

from onnxprune.dead.bias import Bias, shared
from onnxprune.dead.ranges import Floats, Mask
from onnxprune.dead.reads import Read
from onnxprune.graph import reads
from onnxprune.model import Array, Model, bare
from onnxprune.nested import Names


def constants(found: Sequence[Read], state: Mask) -> list[tuple[Read, Mask]]:
    """Contractions in which a unit that is to go has a constant term in what stays, and these inputs of theirs.

    Args:
        found: Contractions.
        state: Per unit, whether it stays. Shape (units + rows + 1,).
    """
    moved = []
    for read in found:
        if read.bias is None:
            continue
        hit = (read.matters & state[read.outputs][:, :, None]).any(axis=1)
        inputs = hit & ~state[read.inputs] & ~np.isnan(read.constant)
        if inputs.any():
            moved.append((read, inputs))
    return moved


def folded(model: Model, moved: Sequence[tuple[Read, Mask]]) -> Model:
    """The model with these terms in the biases, and their weights zero.

    Args:
        model: The model that was looked at.
        moved: Contractions and the inputs whose terms move.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    weights, shapes = dict(model.weights), dict(model.shapes)
    writes = {node.output[0]: node for node in proto.graph.node if node.output}
    count, fresh = Counter(reads(proto.graph)), Names(proto.graph).fresh
    for read, inputs in moved:
        assert read.bias is not None
        name, bias = read.node.input[1], read.bias
        added = terms(read, inputs) / bias.scale
        weights[name] = without(read, model.weights[name], inputs)
        target = bias.name
        if not target or count[target] > 1 or target in shared(model):
            target = fresh(bias.name or f"{read.node.output[0]}_bias")
            place(writes[bias.writes], bias, target)
        weights[target] = moved_into(weights.get(bias.name), added, weights[name].dtype)
        shapes[target] = weights[target].shape
        for changed in (name, target):
            rewrite_entry(proto.graph, changed, weights[changed])
    return replace(model, proto=proto, weights=weights, shapes=shapes)


def terms(read: Read, inputs: Mask) -> Floats:
    """The sum of the constant terms in each output. Shape (groups * outputs,)."""
    assert read.linear is not None
    weight = read.linear.weight
    found = np.zeros(weight.shape[:2])
    values = np.where(inputs, read.constant, 0.0)
    for g, o, block in read.linear.blocks():
        found[g, o] = np.einsum("goi,gi->go", block.sum(axis=-1, dtype=np.float64), values[g])
    return found.ravel()


def without(read: Read, array: Array, inputs: Mask) -> Array:
    """The stored weights with those of some inputs zero."""
    assert read.linear is not None
    made = array.copy()
    if array.ndim == 2:  # of a matrix product; a convolution's have taps
        own = 1 if transposed(read) else 0
        np.moveaxis(made, own, 0)[inputs[0]] = 0
    else:
        groups, outs, ins, taps = read.linear.weight.shape
        blocks = made.reshape(groups, outs, ins, taps)
        blocks[np.broadcast_to(inputs[:, None, :], blocks.shape[:3])] = 0
        made = blocks.reshape(array.shape)
    made.flags.writeable = False
    return made


def transposed(read: Read) -> bool:
    """Whether a Gemm's weights are stored with their outputs first."""
    return any(a.name == "transB" and a.i for a in read.node.attribute)


def place(node: onnx.NodeProto, bias: Bias, name: str) -> None:
    """Let a slot of a node read another tensor."""
    while len(node.input) <= bias.slot:
        node.input.append("")
    node.input[bias.slot] = name


def moved_into(before: Array | None, added: Floats, kind: np.dtype) -> Array:
    """A bias with what is added to it, in its own type and shape; one number for all becomes a vector."""
    if before is None:
        made = added.astype(kind)
    else:
        shape = before.shape if before.size == added.size else (*before.shape[:-1], added.size)
        made = (np.broadcast_to(before, shape).astype(np.float64) + added).astype(before.dtype)
    made.flags.writeable = False
    return made


def rewrite_entry(graph: onnx.GraphProto, name: str, array: Array) -> None:
    """The graph's entry of an initializer, true again or new."""
    for tensor in graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(bare(name, array))
            return
    graph.initializer.append(bare(name, array))
