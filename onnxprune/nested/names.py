"""Names of tensors and how they are changed. Law: after a renaming, a name means one tensor wherever it is read."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from itertools import chain, count

import onnx

from onnxprune.graph import every_graph, own_names, replace_nodes, subgraphs


class Names:
    """The names of a model. They are collected when first asked for: most models need no new ones."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph

    @cached_property
    def taken(self) -> set[str]:
        """Names that stand for a tensor by now."""
        return {*own_names(self.graph), *(o.name for o in self.graph.output)}

    @cached_property
    def elsewhere(self) -> set[str]:
        """All names of tensors and nodes, in bodies too; no new name is made equal to one of them."""
        bodies = list(every_graph(self.graph))
        return {n.name for body in bodies for n in body.node} | {name for body in bodies for name in own_names(body)}

    def settle(self, name: str) -> str:
        """Take a name: itself while no other tensor has it, else one like it."""
        if name in self.taken:
            return self.fresh(name)
        self.taken.add(name)
        return name

    def fresh(self, base: str) -> str:
        """A name like `base` that nothing in the model has."""
        tried = chain([base], (f"{base}_{k}" for k in count(1)))
        name = next(n for n in tried if n not in self.taken and n not in self.elsewhere)
        self.taken.add(name)
        return name


def rename_graph(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename tensors in one graph, its infos and its nodes; bodies inside are left to the caller."""
    for info in (*graph.input, *graph.output, *graph.value_info):
        info.name = names.get(info.name, info.name)
    for tensor in (*graph.initializer, *(s.values for s in graph.sparse_initializer)):
        tensor.name = names.get(tensor.name, tensor.name)
    for node in graph.node:
        rename_ends(node, names)


def rename_ends(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Rename what a node reads and writes."""
    for side in (node.input, node.output):
        if any(names.get(name, name) != name for name in side):
            side[:] = [names.get(name, name) for name in side]


def renamed(node: onnx.NodeProto, names: Mapping[str, str], taken: Names | None = None) -> onnx.NodeProto:
    """A copy of a node with other tensor names, inside its bodies too.

    Args:
        node: The node.
        names: Old name -> new name.
        taken: Where given, tensors that its bodies define get new names as well, for the node has been copied before.
    """
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    rename_ends(copy, names)
    for body in subgraphs(copy):
        inner = dict(names)
        if taken is not None:
            inner |= {name: taken.fresh(name) for name in dict.fromkeys(own_names(body))}
        rename_graph(body, inner)
        replace_nodes(body, [renamed(n, inner, taken) for n in body.node])
    return copy
