"""Compare models piece by piece. Law: by induction over the cuts all of it is compared, and no error can grow.

Sums of different length differ in their last bit. Where activations are rounded, a last bit may turn a value into its
neighbour, a whole step away; and some networks enlarge any difference from layer to layer. So the graph is cut where
values are about to be rounded, or else behind its contractions: there the pruned model is fed what the masked one
holds, and what it computed itself, up to there, is compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import onnx

from onnxprune.labels import Axes
from onnxprune.model import Array, Model, is_float
from onnxprune.rewrite import take
from onnxprune.runtime import capture
from onnxprune.trace import Dependencies, Mask

# Operators that are not continuous in their first input.
ROUNDS = frozenset(
    "Ceil DynamicQuantizeLinear DynamicQuantizeLSTM DynamicQuantizeMatMul Floor QuantizeLinear Round Sign".split()
)


CONTRACTIONS = frozenset("Conv ConvTranspose Gemm MatMul".split())
CUTS = 64  # behind contractions, evenly spread


def cuts(model: Model, labels: Mapping[str, Axes]) -> list[str]:
    """Where to cut: before every rounding, or behind contractions in a model that rounds nothing."""
    if found := rounded(model, labels):
        return found
    made = [n.output[0] for n in model.proto.graph.node if n.op_type in CONTRACTIONS]
    made = [name for name in made if (axes := labels.get(name)) is not None and not any(a.by for a in axes)]
    return made[:: -(-len(made) // CUTS)] if made else []


def rounded(model: Model, labels: Mapping[str, Axes]) -> list[str]:
    """Tensors that are about to be rounded, in the order of the nodes; weights and the model's inputs aside."""
    given = {i.name for i in model.proto.graph.input} | set(model.weights)
    found = [n.input[0] for n in model.proto.graph.node if n.op_type in ROUNDS and n.input[0] not in given]
    return [name for name in dict.fromkeys(found) if sliceable(labels.get(name))]


def sliceable(axes: Axes | None) -> bool:
    """Whether `take` can cut a tensor with these labels."""
    return axes is not None and all(len(axis.by) < 2 for axis in axes)


def between(
    dependencies: Dependencies,
    keep: Mask,
    reference: Model,
    pruned: Model,
    feeds: Mapping[str, Array],
    threads: int = 1,
) -> Iterator[tuple[str, Array, Array]]:
    """What both models hold where they are cut, and their outputs, given the same numbers before.

    Yields:
        Name of a tensor, its kept part in the reference, its value in the pruned model.
    """
    outputs = [o.name for o in pruned.proto.graph.output]
    names = cuts(pruned, dependencies.labels)
    dense = capture(reference, feeds, [*names, *outputs], threads=threads)
    whole = {name: take(dense[name], dependencies.labels[name], keep) for name in names}
    whole = {name: value for name, value in whole.items() if is_float(value)}
    cut = cut_apart(pruned, whole)
    held = {fed(name): value for name, value in whole.items()}
    small = capture(cut, {**feeds, **held}, [*whole, *outputs], threads=threads)
    for name in (*whole, *outputs):
        yield name, whole.get(name, dense[name]), small[name]


def fed(name: str) -> str:
    """The graph input that stands for a tensor behind a cut."""
    return f"{name}/fed"


def cut_apart(model: Model, values: Mapping[str, Array]) -> Model:
    """The model with the readers of some tensors reading new graph inputs, which take arrays like `values`."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for node in proto.graph.node:
        for i, name in enumerate(node.input):
            if name in values:
                node.input[i] = fed(name)
    for name, value in values.items():
        kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        proto.graph.input.append(onnx.helper.make_tensor_value_info(fed(name), kind, value.shape))
    return replace(model, proto=proto)
