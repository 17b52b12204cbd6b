"""Ties are an equivalence: solved at once over whole arrays, they agree with sets merged one pair at a time."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.labels import Axis, Freeze, Ids, Ties, components, spread, varies

SIZE = 12
ids = st.integers(0, SIZE - 1)
quiet = settings(deadline=None, database=None)  # no timing on shared machines, no folder of examples
pairs = st.lists(st.tuples(ids, ids), max_size=20)


def naive(count: int, tied: list[tuple[int, int]]) -> list[int]:
    """The smallest id tied to each id, by relabelling whole sets."""
    sets = {i: {i} for i in range(count)}
    for a, b in tied:
        union = sets[a] | sets[b]
        sets.update(dict.fromkeys(union, union))
    return [min(sets[i]) for i in range(count)]


def array(*values: int) -> Ids:
    return np.array(values, dtype=np.int64)


@quiet
@given(pairs)
def test_components_are_the_naive_ones(tied: list[tuple[int, int]]) -> None:
    a, b = array(*(p[0] for p in tied)), array(*(p[1] for p in tied))
    assert components(SIZE, a, b).tolist() == naive(SIZE, tied)


@quiet
@given(pairs, st.randoms(use_true_random=False))
def test_order_of_ties_does_not_matter(tied: list[tuple[int, int]], random: Random) -> None:
    shuffled = [(b, a) for a, b in tied]
    random.shuffle(shuffled)
    first, second = Ties(SIZE), Ties(SIZE)
    for ties, order in ((first, tied), (second, shuffled)):
        for a, b in order:
            ties.tie(array(a), array(b))
    assert np.array_equal(first.components(), second.components())


def test_a_long_chain_is_one_component() -> None:
    count = 100_000
    order = np.random.default_rng(0).permutation(count)
    assert not components(count, order[:-1], order[1:]).any()


def test_no_ids_and_no_ties() -> None:
    assert Ties().components().size == 0
    assert Ties(3).components().tolist() == [0, 1, 2]


def test_fresh_ids_are_never_given_twice() -> None:
    ties = Ties()
    assert [ties.fresh(2).tolist(), ties.fresh(0).tolist(), ties.fresh(1).tolist()] == [[0, 1], [], [2]]


def test_ties_broadcast_as_numpy_does() -> None:
    ties = Ties()
    grid, row = ties.fresh(6).reshape(2, 3), ties.fresh(3)
    ties.tie(grid, row)
    assert ties.components().tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2]
    ties.tie(grid[:, :1], grid)
    assert not ties.components().any()


def test_ties_of_unequal_sizes_are_refused() -> None:
    ties = Ties(5)
    with pytest.raises(ValueError, match="broadcast"):
        ties.tie(array(0, 1), array(2, 3, 4))


@quiet
@given(pairs, st.lists(st.lists(ids, min_size=1, max_size=3), max_size=5))
def test_the_cause_is_the_first_freeze_that_reaches_an_id(tied: list[tuple[int, int]], frozen: list[list[int]]) -> None:
    ties = Ties(SIZE)
    for a, b in tied:
        ties.tie(array(a), array(b))
    for number, members in enumerate(frozen):
        ties.freezes.append(Freeze(f"reason {number}", "", "", -1))
        ties.freeze(array(*members), number)
    roots = naive(SIZE, tied)
    met = [[n for n, members in enumerate(frozen) if any(roots[m] == roots[i] for m in members)] for i in range(SIZE)]
    assert ties.causes(ties.components()).tolist() == [min(n, default=-1) for n in met]


def test_causes_without_ids() -> None:
    assert Ties().causes(array()).size == 0


def test_varies_names_the_dimensions_that_differ() -> None:
    assert varies(np.arange(6).reshape(2, 3)) == [0, 1]
    assert varies(np.tile(np.arange(3), (2, 1))) == [1]
    assert varies(np.repeat(np.arange(2), 3).reshape(2, 3)) == [0]
    assert varies(np.zeros((2, 1, 3), dtype=np.int64)) == []
    assert varies(np.arange(3).reshape(3, 1)) == [0]


def test_spread_repeats_along_the_other_members() -> None:
    assert spread(Axis(array(5, 6)), 1, [1, 2], [2, 3]).tolist() == [[5, 5, 5], [6, 6, 6]]
    assert spread(Axis(array(5, 6)), 2, [1, 2], [3, 2]).tolist() == [[5, 6]] * 3


def test_spread_puts_rows_along_their_axis() -> None:
    rows = np.arange(6).reshape(2, 3)
    assert np.array_equal(spread(Axis(rows, (1,)), 2, [1, 2], [2, 3]), rows)
    assert np.array_equal(spread(Axis(rows, (2,)), 1, [1, 2], [3, 2]), rows.T)


def test_an_axis_without_ids_is_frozen() -> None:
    assert Axis().frozen
    assert not Axis(array(0)).frozen


def test_moved_renumbers_what_the_rows_run_over() -> None:
    axis = Axis(np.arange(6).reshape(2, 3), (1,))
    assert axis.moved({1: 3, 2: 0}).by == (3,)
    plain = Axis(array(0))
    assert plain.moved({}) is plain
