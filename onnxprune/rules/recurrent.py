"""Recurrent layers. Law: a hidden unit is its row in every gate, its column of R, its state and its output, in one.

Gates, clipping and activations act on each unit alone, and only R mixes units, so a unit whose column of R is gone
feeds nothing but its own outputs. Each direction has units of its own; there is one `hidden_size`, so directions lose
equal numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnxprune.labels import Axes, Axis, Ids
from onnxprune.rules.edit import Edit
from onnxprune.rules.op import Op
from onnxprune.rules.records import CannotTrace
from onnxprune.rules.registry import resize, rule
from onnxprune.rules.zeros import contracted, keeps_zero

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
FUNCTIONS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
CANDIDATE = {"LSTM": 1, "GRU": 1, "RNN": 0}  # the first activation that must keep zero for the state to stay zero
ZERO_AT_ZERO = frozenset({"elu", "leakyrelu", "relu", "scaledtanh", "softsign", "tanh"})
ELEMENTWISE = ZERO_AT_ZERO | {"affine", "hardsigmoid", "sigmoid", "softplus", "thresholdedrelu"}
LAYOUTS = {  # layout -> where X, the states, Y and the last states keep their directions
    0: {"state": 0, "y": 1},
    1: {"state": 1, "y": 2},
}


@rule("LSTM", "GRU", "RNN")
def recurrent(op: Op) -> Sequence[Axes]:
    """A hidden unit takes its row in every gate of W, R, B and P, its column of R, its states and outputs with it."""
    functions = activations(op)
    if not keeps_zero(op, op.name_in(2)):
        raise CannotTrace(f"the recurrent weight '{op.name_in(2)}' is not zero where its weights are")
    contracted(op, op.plain(op.input(0), 2), op.plain(op.input(1), 2))
    hidden = open_units(op)
    gates = GATES[op.kind]
    for i, k, fields in ((1, 1, gates), (2, 1, gates), (2, 2, 1), (3, 1, 2 * gates), (7, 1, 3)):
        if op.has(i):
            tie_units(op, hidden, i, k, fields, 0)
    for i in (1, 2):
        op.source(op.input(i)[1])
    states = [i for i in (5, 6) if op.has(i)]
    for i in states:
        tie_units(op, hidden, i, 2, 1, LAYOUTS[op.attr("layout", 0)]["state"])
    keep_the_rest(op, states)
    silent = functions <= ZERO_AT_ZERO and all(keeps_zero(op, op.name_in(i)) for i in (1, 3, 7, *states) if op.has(i))
    op.records.zero.update(dict.fromkeys(op.node.output, silent))
    return outputs(op, hidden)


def activations(op: Op) -> set[str]:
    """The functions, in lower case, that a state passes on its way; a state at zero stays there if they keep zero.

    Raises:
        CannotTrace: Some function is none of the standard's, all of which act on each unit alone.
    """
    per_direction = len(FUNCTIONS[op.kind])
    given: list[bytes] = op.attr("activations", [])
    named = [name.lower() for name in [n.decode() for n in given] or FUNCTIONS[op.kind]]
    if unknown := set(named) - ELEMENTWISE:
        raise CannotTrace(f"{op.kind} applies '{unknown.pop()}', which may mix hidden units")
    return {name for t, name in enumerate(named) if t % per_direction >= CANDIDATE[op.kind]}


def open_units(op: Op) -> Ids:
    """New ids of the hidden units. Shape (directions, hidden)."""
    directions, _, hidden = op.shape(2)
    if not isinstance(directions, int) or not isinstance(hidden, int):
        raise CannotTrace(f"the shape of the recurrent weight '{op.name_in(2)}' is unknown")
    units = op.ties.fresh(directions * hidden).reshape(directions, hidden)
    if directions > 1:
        op.rows(units)
    return units


def tie_units(op: Op, hidden: Ids, i: int, k: int, fields: int, own: int) -> None:
    """Tie axis `k` of input `i`, which holds `fields` times the hidden units, to the units of each direction.

    An initializer has ids for each direction (axis `own`); in others the directions keep the same positions.
    """
    directions, width = hidden.shape
    blocks = op.weight_blocks(i, k, directions, own) if directions > 1 else None
    axis = op.input(i)[k]
    if blocks is None and not (axis.by == (own,) and axis.ids is not None and axis.ids.shape[0] == directions):
        axis = op.plain(op.input(i), k)
    if axis.ids is None:
        op.join_frozen(axis, Axis(hidden))
    else:
        op.ties.tie(axis.ids.reshape(-1, fields, width), hidden[:, None, :])


def keep_the_rest(op: Op, states: Sequence[int]) -> None:
    """Directions, steps and the batch stay."""
    free = {0: (2,), 1: (1, 2), 2: (1, 2), 3: (1,), 7: (1,)} | dict.fromkeys(states, (2,))
    for i in range(op.arity):
        if op.has(i):
            op.fix_rest(op.input(i), free.get(i, ()), op.name_in(i), f"{op.kind} runs along this axis")


def outputs(op: Op, hidden: Ids) -> list[Axes]:
    """Labels of Y and the last states, which differ in where they keep the directions."""
    places = LAYOUTS[op.attr("layout", 0)]
    found: list[Axes] = []
    for j in range(op.outputs):
        at = places["y"] if j == 0 else places["state"]
        axis = Axis(hidden, (at,)) if hidden.shape[0] > 1 else Axis(hidden[0])
        found.append((*[Axis()] * (3 if j == 0 else 2), axis))
    return found


@resize("LSTM", "GRU", "RNN")
def resize_hidden(edit: Edit) -> None:
    """`hidden_size` becomes the number of units that each direction keeps."""
    name = edit.node.input[2]
    edit.set_attr("hidden_size", edit.size(edit.axes(name)[2], edit.shape(name)[2]))
