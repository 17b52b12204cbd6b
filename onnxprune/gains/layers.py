"""What each layer ran as, before and after. Law: both sides hold the same nodes, and widths are those of the files.

A layer is a region of the dense model (`latency.regions`): the nodes that run as one kernel there. What the pruned
model runs for the same tensors is set beside it. Runtimes pad widths, so these are read from weights and shapes of the
two models, while the kernels, their padded shapes and their times are read from what onnxruntime ran.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx

from onnxprune.gains.work import Contraction, contraction, dims_of, elements
from onnxprune.latency.regions import Regions, regions_of
from onnxprune.model import Model
from onnxprune.runtime import Kernel

FAST = "com.microsoft.nchwc."  # onnxruntime's blocked layout
CHANGES = ("ReorderInput", "ReorderOutput")
PRODUCTS = ("Conv", "Gemm", "MatMul", "LSTM", "GRU", "RNN")
RESOLUTION_MS = 1e-3  # the profile counts whole microseconds


def short(op: str) -> str:
    """An operator without its domain."""
    return op.rpartition(".")[2]


def is_fast(kernel: Kernel) -> bool:
    """Whether a kernel computes in the blocked layout."""
    return kernel.op.startswith(FAST) and not is_change(kernel)


def is_change(kernel: Kernel) -> bool:
    """Whether a kernel only changes the layout."""
    return short(kernel.op) in CHANGES


def is_product(kernel: Kernel) -> bool:
    """Whether a kernel is a convolution or a matrix product."""
    return any(kind in short(kernel.op) for kind in PRODUCTS)


@dataclass(frozen=True)
class Side:
    """A layer in one of the two models.

    Attributes:
        kernels: What ran, changes of layout included.
        shape: Of the tensor it computes; open sizes are 1.
        into: Channels its convolution or matrix product reads; 0 where it has none.
        out: Channels it writes.
        groups: Groups of the convolution.
        work: Multiply-accumulates, or elements read and written where it has none, up to a factor that is the same on
            both sides; None where the shapes are not known.
        readers: Operators that read its result and run outside the blocked layout.
    """

    kernels: tuple[Kernel, ...]
    shape: tuple[int, ...] = ()
    into: int = 0
    out: int = 0
    groups: int = 1
    work: float | None = None
    readers: tuple[str, ...] = ()

    @property
    def ms(self) -> float:
        """Time, ms: the sum of the kernels' typical times."""
        return sum(k.typical_ms for k in self.kernels)

    @property
    def noise_ms(self) -> float:
        """How far that may be off, ms: the distance from lower quartile to median of each kernel, as if independent."""
        each = [sorted(k.ms)[len(k.ms) // 2] - k.typical_ms for k in self.kernels]
        return math.hypot(*each) + RESOLUTION_MS * len(each)

    @property
    def main(self) -> Kernel | None:
        """The kernel that does the layer's work: its product, or else the longest; None where nothing ran."""
        does = [k for k in self.kernels if is_product(k)] or [k for k in self.kernels if not is_change(k)]
        return max(does or self.kernels, key=lambda k: k.typical_ms, default=None)


@dataclass(frozen=True)
class Pair:
    """A layer in both models.

    Attributes:
        name: The tensor it computes.
        node: The node that does its work: its convolution or matrix product, or the one that computes `name`.
        before: In the dense model.
        after: In the pruned model.
    """

    name: str
    node: str
    before: Side
    after: Side


def pair_layers(
    dense: Model, pruned: Model, kernels: tuple[Sequence[Kernel], Sequence[Kernel]], regions: Regions | None = None
) -> list[Pair]:
    """The layers of two models that share the names of their tensors, in the order of the graph.

    Args:
        dense: With `shapes` filled.
        pruned: The same.
        kernels: What each of them ran.
        regions: Of the dense graph; found from its kernels if not given.

    Returns:
        Empty where less than half of the kernels have a counterpart: the two are not a model and its pruning.
    """
    regions = regions or regions_of(dense.proto.graph, kernels[0])
    known = sum(k.origin in regions.of for k in kernels[1])
    if known * 2 < len(kernels[1]):
        return []
    sides = [sides_of(model, ran, regions) for model, ran in zip((dense, pruned), kernels, strict=True)]
    nodes = [main_node(dense, regions.nodes[r], name) for r, name in enumerate(regions.names)]
    found = zip(regions.names, nodes, *sides, strict=True)
    return [Pair(*entry) for entry in found]


def sides_of(model: Model, kernels: Iterable[Kernel], regions: Regions) -> list[Side]:
    """Every region in one of the models."""
    count = len(regions.names)
    ran: list[list[Kernel]] = [[] for _ in range(count)]
    for kernel in kernels:
        if kernel.origin in regions.of:
            ran[regions.of[kernel.origin]].append(kernel)
    nodes: list[list[onnx.NodeProto]] = [[] for _ in range(count)]
    for node in model.proto.graph.node:
        if places := [regions.of[o] for o in node.output if o in regions.of]:
            nodes[places[0]].append(node)
    readers = readers_of(nodes, ran, regions)
    return [side(model, regions.names[r], nodes[r], ran[r], readers[r]) for r in range(count)]


def side(
    model: Model, name: str, nodes: Sequence[onnx.NodeProto], ran: Sequence[Kernel], readers: Sequence[str]
) -> Side:
    """One region in one of the models."""
    shape = dims_of(model, name) or ()
    products = [c for node in nodes if (c := contraction(node, model))]
    if products:
        heaviest = max(products, key=lambda c: c.macs)
        work: float | None = sum(c.macs for c in products)
    else:
        width = shape[1] if len(shape) > 2 else shape[-1] if shape else 0
        heaviest, work = Contraction(0.0, 0, width), elements(nodes, model)
    return Side(tuple(ran), shape, heaviest.into, heaviest.out, heaviest.groups, work, tuple(readers))


def readers_of(
    nodes: Sequence[Sequence[onnx.NodeProto]], ran: Sequence[Sequence[Kernel]], regions: Regions
) -> list[list[str]]:
    """Per region, the operators of other regions that read it and run outside the blocked layout."""
    found: list[dict[str, None]] = [{} for _ in nodes]
    for region, members in enumerate(nodes):
        if not ran[region] or any(map(is_fast, ran[region])):
            continue
        for node in members:
            for source in {regions.of[name] for name in node.input if name in regions.of} - {region}:
                found[source][node.op_type] = None
    return [list(kinds) for kinds in found]


def main_node(model: Model, places: Sequence[int], name: str) -> str:
    """What users call the node that does a region's work."""
    nodes = [model.proto.graph.node[i] for i in places]
    products = [(c.macs, node) for node in nodes if (c := contraction(node, model))]
    chosen = max(products, key=lambda entry: entry[0])[1] if products else next(n for n in nodes if name in n.output)
    return chosen.name or name
