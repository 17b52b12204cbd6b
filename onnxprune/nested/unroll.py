"""Bodies whose run is known beforehand. Law: the nodes put in the place of an If or Loop compute its outputs.

An If whose condition is known is its branch. A Loop of known length is written out where it turns once, or where it
gathers a list, which no label can follow; others stay, for their bodies are traced as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx.helper import make_node

from onnxprune.graph import subgraphs
from onnxprune.model import Array
from onnxprune.nested.names import renamed
from onnxprune.nested.sequences import Nodes, Sequences
from onnxprune.shapes import Inference, told

NODES_LIMIT = 4096  # nodes: what a written-out Loop may grow to


def branch(node: onnx.NodeProto, condition: Array, sequences: Sequences) -> Nodes | None:
    """The nodes of the branch that an If with a known condition takes."""
    wanted = "then_branch" if bool(condition.ravel()[0]) else "else_branch"
    body = next(a.g for a in node.attribute if a.name == wanted)
    if body.initializer or body.sparse_initializer:  # text stays where it is
        return None
    names: dict[str, str] = {}
    copies = bind(body, [o.name for o in body.output], node.output, names, sequences)
    return [*(renamed(n, names) for n in body.node), *copies]


def bind(
    body: onnx.GraphProto, given: Sequence[str], wanted: Sequence[str], names: dict[str, str], sequences: Sequences
) -> Nodes:
    """Let a body's outputs go by the names of its node's; copies for those that no node of the body makes.

    Args:
        body: The body.
        given: Its outputs.
        wanted: What they shall be called; '' where nobody asks.
        names: Renamings, which are added to.
        sequences: Known lists; a copy of one is the list itself.
    """
    made = {name for node in body.node for name in node.output}
    late = []
    for inner, outer in zip(given, wanted, strict=True):
        if outer and inner in made and inner not in names:
            names[inner] = outer
        elif outer:
            late.append((inner, outer))
    return [make_node("Identity", [names.get(i, i)], [o], name=sequences.names.fresh(f"{o}_copy")) for i, o in late]


def turns(node: onnx.NodeProto, inference: Inference, sequences: Sequences) -> int | None:
    """How often a Loop's body is written out; None where it stays a Loop."""
    body = next(subgraphs(node))
    count, start = (inference.exact_value(node.input[i]) if node.input[i] else None for i in (0, 1))
    if body.initializer or body.sparse_initializer or count is None or (node.input[1] and start is None):
        return None
    goes_on = inference.exact_value(body.output[0].name)
    times = int(count.ravel()[0]) if start is None or start.ravel()[0] else 0
    lists = any(name in sequences.members for name in node.input[2:])
    if times == 1 or (lists and 0 < times * len(body.node) <= NODES_LIMIT and goes_on is not None and goes_on.all()):
        return times
    return None


def unrolled(node: onnx.NodeProto, times: int, sequences: Sequences) -> Nodes:
    """The nodes of a Loop that turns so many times (at least once)."""
    body, carried = next(subgraphs(node)), len(node.input) - 2
    states, nodes = list(node.input[2:]), Nodes()
    results, scans = ([o.name for o in part] for part in (body.output[1 : 1 + carried], body.output[1 + carried :]))
    wanted = [*node.output, *[""] * (carried + len(scans) - len(node.output))]
    parts: list[list[str]] = [[] for _ in scans]
    for turn in range(times):
        names = dict(zip((i.name for i in body.input), fed(node, turn, states, sequences), strict=True))
        copies = bind(body, results, wanted[:carried], names, sequences) if turn == times - 1 else []
        if turn:
            made = dict.fromkeys(name for n in body.node for name in n.output if name)
            names |= {name: sequences.names.fresh(f"{name}_{turn}") for name in made if name not in names}
        nodes += [*(renamed(n, names, sequences.names if turn else None) for n in body.node), *copies]
        states = [names.get(o, o) for o in results]
        for part, output in zip(parts, scans, strict=True):
            part.append(names.get(output, output))
    for part, output in zip(parts, wanted[carried:], strict=True):
        if output:
            nodes += sequences.stack(part, output, sequences.names.fresh(f"{output}_stack"), 0)
    return nodes


def fed(node: onnx.NodeProto, turn: int, states: Sequence[str], sequences: Sequences) -> list[str]:
    """What the body's inputs are called in one turn: its number, the condition, which holds, and the states."""
    body = next(subgraphs(node))
    number = np.full(told(body.input[0]), turn, dtype=np.int64)
    holds = sequences.constant(f"{node.output[0]}_holds", np.ones(told(body.input[1]), dtype=bool))
    return [sequences.constant(f"{node.output[0]}_turn", number), holds, *states]
