"""Which nodes of the model run as one kernel. Law: every node is in exactly one region.

onnxruntime fuses nodes: a convolution, the BatchNormalization and the activation after it are one kernel, which is
called after the last of them. A region is such a set, found on the dense model: the node a kernel is called after, and
the nodes before it that no other kernel is called after. A change of layout belongs to the region whose tensor it
changes. Kernels of a pruned model, which may be fused in other ways, are counted to the region of the node they are
called after.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx

from onnxprune.graph import inputs_of
from onnxprune.runtime import Kernel

NCHWC_CONV = "com.microsoft.nchwc.Conv"
ACTIVATIONS = ("Relu", "Sigmoid", "Tanh", "LeakyRelu", "Clip", "HardSigmoid")


@dataclass(frozen=True)
class Regions:
    """A partition of a graph's nodes.

    Attributes:
        names: Per region, the tensor its kernel computes.
        nodes: Per region, the places of its nodes in the graph.
        of: Tensor -> its region.
    """

    names: tuple[str, ...]
    nodes: tuple[tuple[int, ...], ...]
    of: dict[str, int]

    def times(self, kernels: Iterable[Kernel]) -> list[float]:
        """Time of each region, ms, and last that of kernels that belong to none."""
        found = [0.0] * (len(self.names) + 1)
        for kernel in kernels:
            found[self.of.get(kernel.origin, -1)] += kernel.typical_ms
        return found


def regions_of(graph: onnx.GraphProto, kernels: Sequence[Kernel]) -> Regions:
    """The regions of a dense graph, from the kernels that it ran as."""
    maker = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    anchors = sorted({maker[k.origin] for k in kernels if k.origin in maker})
    if not anchors:  # the runtime folded the whole graph away, or names nothing that we know
        return whole_region(graph)
    owner = dict(zip(anchors, range(len(anchors)), strict=True))
    claim_sums(graph, kernels, owner, maker)
    for region, anchor in enumerate(anchors):
        gather(graph, anchor, region, owner, maker)
    for i, node in enumerate(graph.node):  # what no kernel needs runs in none; it counts to where its input is made
        if i not in owner:
            owner[i] = next((owner[maker[name]] for name in inputs_of(node) if maker.get(name) in owner), 0)
    members: list[list[int]] = [[] for _ in anchors]
    for i, region in sorted(owner.items()):
        members[region].append(i)
    names = tuple(next(o for o in graph.node[a].output if o) for a in anchors)
    return Regions(names, tuple(map(tuple, members)), {name: owner[i] for name, i in maker.items()})


def claim_sums(graph: onnx.GraphProto, kernels: Sequence[Kernel], owner: dict[int, int], maker: dict[str, int]) -> None:
    """Give convolutions the Add, and the activation after it, that they compute but are not called after.

    In the NCHWc layout a residual sum is one more input of a convolution that keeps its name. Of two convolutions
    that are added, it is the one with more inputs.
    """
    inputs = {k.origin: len(k.inputs) for k in kernels if k.op == NCHWC_CONV}
    for i, node in enumerate(graph.node):
        if i in owner:
            continue
        fused = [name for name in node.input if name in inputs] if node.op_type == "Add" else []
        before = maker.get(node.input[0], -1) if node.op_type in ACTIVATIONS and node.input else -1
        if fused:
            owner[i] = owner[maker[max(fused, key=lambda name: inputs[name])]]
        elif before in owner and graph.node[before].op_type == "Add":
            owner[i] = owner[before]


def whole_region(graph: onnx.GraphProto) -> Regions:
    """The whole graph as one region, for providers that do not tell what a kernel takes."""
    every = {name: 0 for node in graph.node for name in node.output if name}
    return Regions((graph.name or "model",), (tuple(range(len(graph.node))),), every)


def gather(graph: onnx.GraphProto, anchor: int, region: int, owner: dict[int, int], maker: dict[str, int]) -> None:
    """Give a region the nodes before its anchor that have no owner yet."""
    waiting = [anchor]
    while waiting:
        for name in inputs_of(graph.node[waiting.pop()]):
            before = maker.get(name)
            if before is not None and before not in owner:
                owner[before] = region
                waiting.append(before)
