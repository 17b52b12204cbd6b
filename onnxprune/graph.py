"""Walk the nodes of a GraphProto. Law: bodies nested in nodes are part of the graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx


def canonical(domain: str) -> str:
    """'ai.onnx' and '' are the same domain."""
    return "" if domain == "ai.onnx" else domain


def node_name(node: onnx.NodeProto) -> str:
    """The name that records, errors and reports use: a node without one goes by its first output."""
    return node.name or (node.output[0] if node.output else node.op_type)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The bodies directly inside a node (If, Loop, Scan)."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def every_graph(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all bodies nested in it."""
    yield graph
    for node in graph.node:
        for body in subgraphs(node):
            yield from every_graph(body)


def every_node(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes of a graph, those of nested bodies included; a body's nodes come before the node that holds it."""
    for node in graph.node:
        for body in subgraphs(node):
            yield from every_node(body)
        yield node


def own_names(graph: onnx.GraphProto) -> Iterator[str]:
    """The tensors a graph itself defines: inputs, initializers, and what its nodes write."""
    yield from (i.name for i in graph.input)
    yield from (t.name for t in graph.initializer)
    yield from (t.values.name for t in graph.sparse_initializer)
    for node in graph.node:
        yield from (name for name in node.output if name)


def reads(graph: onnx.GraphProto) -> Iterator[str]:
    """Every name read in a graph, in its bodies, and as an output of either; once for each reader."""
    for inner in every_graph(graph):
        yield from (o.name for o in inner.output)
        for node in inner.node:
            yield from (name for name in node.input if name)


def captured(node: onnx.NodeProto) -> set[str]:
    """Names that the bodies of a node read from outside themselves."""
    names: set[str] = set()
    for body in subgraphs(node):
        inside = {i.name for i in body.input} | {t.name for t in body.initializer}
        read = {o.name for o in body.output}
        for inner in body.node:
            read |= set(inner.input) | captured(inner)
            inside |= set(inner.output)
        names |= read - inside
    return names - {""}


def inputs_of(node: onnx.NodeProto) -> list[str]:
    """What a node reads, in its bodies too."""
    return [name for name in node.input if name] + sorted(captured(node))


def replace_nodes(graph: onnx.GraphProto, kept: Iterable[onnx.NodeProto]) -> None:
    """Leave only `kept` in the graph, in that order."""
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in kept]
    del graph.node[:]
    graph.node.extend(copies)
