"""Names for what is added to a graph. Law: a name given here is no other tensor's and no other node's."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, count

import onnx

from onnxprune.model import captured


def namer(graph: onnx.GraphProto) -> Callable[[str], str]:
    """A function that makes names unique in a graph: pruned files may be pruned again."""
    taken = {i.name for i in [*graph.input, *graph.output]} | {t.name for t in graph.initializer}
    taken |= {name for node in graph.node for name in (node.name, *node.input, *node.output, *captured(node))}

    def fresh(base: str) -> str:
        name = next(n for n in chain([base], (f"{base}_{k}" for k in count(1))) if n not in taken)
        taken.add(name)
        return name

    return fresh
