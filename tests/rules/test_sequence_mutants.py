"""Planted faults in the rules of recurrent layers, Einsum and Attention. Each must break a law on its case."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from onnxprune.labels import Axis, Ids
from onnxprune.rules import attention, einsum, recurrent
from onnxprune.rules.op import Op
from tests.rules.test_laws import LAWS
from tests.rules.test_mutants import Patch, forget_resize, holds

Fault = Callable[[Patch], None]
FAULTS: list[tuple[Fault, str]] = []


def fault(*cases: str) -> Callable[[Fault], Fault]:
    """Declare a fault and the cases it must show on."""

    def register(plant: Fault) -> Fault:
        FAULTS.extend((plant, case) for case in cases)
        return plant

    return register


@fault("LSTM", "LSTM-bidirectional", "GRU", "RNN")
def hidden_size_not_resized(patch: Patch) -> None:
    for kind in ("LSTM", "GRU", "RNN"):
        forget_resize(patch, kind)


def without(patch: Patch, skip: Callable[[int, int], bool]) -> None:
    """Leave out the ties of some axes of some inputs."""
    tie = recurrent.tie_units

    def some(op: Op, hidden: Ids, i: int, k: int, fields: int, own: int) -> None:
        if not skip(i, k):
            tie(op, hidden, i, k, fields, own)

    patch.setattr(recurrent, "tie_units", some)


@fault("LSTM", "GRU-linear", "RNN")
def columns_of_the_recurrent_weight_not_tied(patch: Patch) -> None:
    without(patch, lambda i, k: (i, k) == (2, 2))


@fault("LSTM-everything")
def peepholes_not_tied(patch: Patch) -> None:
    without(patch, lambda i, k: i == 7)


@fault("LSTM-everything", "GRU-batch-first", "LSTM-decoder")
def states_not_tied(patch: Patch) -> None:
    without(patch, lambda i, k: i in (5, 6))


@fault("LSTM", "GRU", "LSTM-bidirectional")
def gates_interleaved(patch: Patch) -> None:
    def tie(op: Op, hidden: Ids, i: int, k: int, fields: int, own: int) -> None:
        axis = op.plain(op.input(i), k)
        assert axis.ids is not None
        op.ties.tie(axis.ids.reshape(-1, hidden.shape[1], fields), hidden[:, :, None])

    patch.setattr(recurrent, "tie_units", tie)


@fault("LSTM-bidirectional", "GRU-bidirectional")
def directions_lose_what_they_like(patch: Patch) -> None:
    patch.setattr(Op, "rows", lambda op, ids, parents=None: None)


@fault("GRU-bidirectional", "LSTM-everything-bidirectional")
def outputs_of_one_direction_for_both(patch: Patch) -> None:
    outputs = recurrent.outputs
    patch.setattr(recurrent, "outputs", lambda op, hidden: outputs(op, hidden[::-1, ::-1]))


@fault("Einsum-unsound-sum", "Attention-unsound-keys")
def sums_that_do_not_vanish_pass(patch: Patch) -> None:
    patch.setattr(einsum, "keeps_zero", lambda op, name: True)
    patch.setattr(attention, "contracted", lambda op, a, b: op.join(a, b))


@fault("Einsum-sums-alone")
def a_sum_in_one_operand_passes(patch: Patch) -> None:
    patch.setattr(einsum, "summed", lambda op, equation, letter, axis, operands: axis)


@fault("Einsum-implicit")
def implicit_output_in_order_of_appearance(patch: Patch) -> None:
    patch.setattr(einsum, "sorted", lambda letters: list(letters), raising=False)


@fault("Einsum-attention", "Einsum-linear-attention")
def rows_not_renumbered(patch: Patch) -> None:
    patch.setattr(Axis, "moved", lambda axis, where: axis)


@fault("Attention", "Attention-heads-apart", "RotaryEmbedding")
def scale_follows_the_new_size(patch: Patch) -> None:
    patch.setattr(attention.math, "sqrt", lambda size: size**0.25)


@fault("Attention-shared-keys", "Attention-heads-apart-shared-keys")
def keys_shared_in_turn(patch: Patch) -> None:
    def tiled(axis: Axis, times: int) -> Axis:
        return axis if axis.ids is None else Axis(np.tile(axis.ids, (times, 1)), axis.by)

    patch.setattr(attention, "repeated", tiled)


@fault("Attention", "Attention-shared-keys")
def heads_lose_what_they_like(patch: Patch) -> None:
    patch.setattr(Op, "rows", lambda op, ids, parents=None: None)


@fault("RotaryEmbedding", "RotaryEmbedding-part-interleaved")
def pairs_of_the_other_kind(patch: Patch) -> None:
    pairs = attention.pairs_of
    patch.setattr(attention, "pairs_of", lambda ids, interleaved: pairs(ids, not interleaved))


@fault("RotaryEmbedding-part-interleaved", "RotaryEmbedding-heads-apart")
def rotated_part_not_resized(patch: Patch) -> None:
    forget_resize(patch, "RotaryEmbedding")


@fault("GroupNormalization")
def group_count_not_resized(patch: Patch) -> None:
    forget_resize(patch, "GroupNormalization")


@pytest.mark.parametrize(("plant", "case"), FAULTS, ids=[f"{plant.__name__}-{case}" for plant, case in FAULTS])
def test_fault_is_caught(plant: Fault, case: str, monkeypatch: Patch) -> None:
    assert all(holds(law, case) for law in LAWS)
    plant(monkeypatch)
    assert not all(holds(law, case) for law in LAWS)
