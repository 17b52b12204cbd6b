"""Laws of the counts: rows stay equal, axes keep an index, widths are aligned, and nothing nearer was possible."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from onnxprune.plan.counts import Classes, classes_of, closed, program, solve
from onnxprune.plan.rows import equal, tabulate
from onnxprune.trace import Dependencies
from tests import graphs

Ints = np.ndarray


def simple(size: int, *, width: int = 1, fixed: int = 0) -> Classes:
    """One class of `size` units, each `width` indices on one source that also holds `fixed` others."""
    one = np.ones((1, 1), np.int64)
    return Classes(np.zeros(size, np.int64), np.array([size]), one * width, np.array([fixed]), one, ())


def drawn(rng: np.random.Generator) -> Classes:
    """Random classes with random sources, floors, and sometimes one family of rows, small enough to enumerate."""
    k = int(rng.integers(1, 4))
    size = rng.integers(1, 7, k)
    sources = int(rng.integers(1, 3))
    widths = rng.integers(0, 3, (sources, k))
    widths[:, 0] = np.maximum(widths[:, 0], 1)
    floors = np.unique(np.minimum(rng.integers(0, 2, (2, k)) + np.eye(k, dtype=int)[:1], 1), axis=0)
    rows: tuple[tuple[Ints, Ints], ...] = ()
    if k > 1 and rng.random() < 0.6:
        rows = ((np.eye(k, dtype=np.int64)[rng.permutation(k)][:2], rng.integers(0, 2, 2)),)
    of = np.repeat(np.arange(k), size)
    return Classes(of, size, widths, rng.integers(0, 3, sources), floors, rows)


def lawful(classes: Classes, counts: Ints, least: Ints, align: int) -> bool:
    """Whether counts meet every constraint, checked without the solver's matrices."""
    if (counts < least).any() or (counts > classes.size).any():
        return False
    if any(counts[floor > 0].sum() < 1 for floor in classes.floors):
        return False
    for members, fixed in classes.rows:
        kept = members @ counts + fixed
        if kept.min() != kept.max() or kept.min() < 1:
            return False
    return all(aligned(classes, counts, a, align) for a in range(len(classes.widths)))


def aligned(classes: Classes, counts: Ints, a: int, align: int) -> bool:
    """Whether source `a` keeps a multiple of the step, or all of a width below one step."""
    kept, dense = (int(classes.widths[a] @ n + classes.fixed[a]) for n in (counts, classes.size))
    return kept == dense if dense < align else kept % align == 0 and kept > 0


def possible(classes: Classes, least: Ints, align: int) -> list[Ints]:
    """Every lawful choice."""
    every = itertools.product(*(range(n + 1) for n in classes.size.tolist()))
    return [c for c in map(np.array, every) if lawful(classes, c, least, align)]


def distance(counts: Ints, wanted: Ints) -> float:
    return float(np.abs(counts - wanted).sum())


@pytest.mark.parametrize("align", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(40))
def test_the_program_finds_the_nearest_lawful_counts(seed: int, align: int) -> None:
    rng = np.random.default_rng(seed)
    classes = drawn(rng)
    wanted = np.round(rng.uniform(0, 1, classes.size.size) * classes.size, 2)
    least = rng.integers(0, 2, classes.size.size)
    found, best = program(classes, wanted, least, align), possible(classes, least, align)
    if found is None:
        assert not best
        return
    assert lawful(classes, found, least, align)
    # 1%: the solver may stop at that gap from the optimum; 1e-6: its own tolerance for whole numbers.
    nearest = min(distance(c, wanted) for c in best)
    assert distance(found, wanted) <= nearest * 1.01 + 1e-6


@pytest.mark.parametrize("align", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(40, 80))
def test_the_answer_is_lawful_or_the_whole_group_with_a_note(seed: int, align: int) -> None:
    rng = np.random.default_rng(seed)
    classes = drawn(rng)
    wanted = np.round(rng.uniform(0, 1, classes.size.size) * classes.size, 2)
    least = np.zeros_like(classes.size)
    counts, note = solve(classes, wanted, least, align)
    if note:
        assert note.startswith("left whole: ") and np.array_equal(counts, classes.size)
    else:
        assert lawful(classes, counts, least, align) or (wanted >= classes.size).all()


@pytest.mark.parametrize("size", [1, 2, 7, 16])
@pytest.mark.parametrize("align", [1, 2, 8])
@pytest.mark.parametrize(("width", "fixed"), [(1, 0), (3, 0), (1, 5), (2, 1)])
def test_one_class_has_the_closed_answer_of_the_program(size: int, align: int, width: int, fixed: int) -> None:
    classes, least = simple(size, width=width, fixed=fixed), np.zeros(1, np.int64)
    if classes.widths[0, 0] * size + fixed < align:
        return  # the program keeps such a source whole, the closed form gives up; `solve` says 'left whole' to both
    for wanted in np.arange(0, size + 0.1, 0.3):
        short, long = (answer(classes, np.array([wanted]), least, align) for answer in (closed, program))
        assert (short is None) == (long is None)
        if short is not None and long is not None:
            assert distance(short, wanted) <= distance(long, wanted) + 1e-6  # the solver's tolerance for whole numbers


def test_nothing_wanted_gone_means_nothing_goes() -> None:
    for align in (1, 4, 8):
        counts, note = solve(simple(12), np.array([12.0]), np.array([0]), align)
        assert counts.tolist() == [12] and not note


def test_one_unit_always_stays() -> None:
    for size in (1, 2, 9):
        counts, _ = solve(simple(size), np.array([0.0]), np.array([0]), 1)
        assert counts.tolist() == [1]


def test_least_is_kept() -> None:
    for align in (1, 4):
        counts, _ = solve(simple(16), np.array([0.0]), np.array([9]), align)
        assert counts[0] >= 9 and counts[0] % align == 0


@pytest.mark.parametrize(
    ("classes", "wanted", "align", "note"),
    [
        (simple(16), 14.0, 8, "the nearest multiple of 8 is the dense width"),
        (simple(6), 3.0, 8, "narrower than the alignment of 8"),
        (simple(12, width=2, fixed=1), 5.0, 8, "no removal leaves all its widths multiples of 8"),
    ],
)
def test_a_group_left_whole_says_why(classes: Classes, wanted: float, align: int, note: str) -> None:
    counts, said = solve(classes, np.array([wanted]), np.array([0]), align)
    assert np.array_equal(counts, classes.size) and said == f"left whole: {note}"


def test_rows_that_cannot_be_equal_leave_the_group_whole() -> None:
    """One row holds three members that cannot go, the other has one member at most."""
    rows = ((np.array([[1, 0], [0, 1]]), np.array([3, 0])),)
    one = np.ones((1, 2), np.int64)
    classes = Classes(np.array([0, 0, 1]), np.array([2, 1]), one, np.array([3]), one, rows)
    counts, note = solve(classes, np.array([1.0, 1.0]), np.zeros(2, np.int64), 1)
    assert counts.tolist() == [2, 1] and note == "left whole: its rows cannot lose equal numbers"


def classify(dependencies: Dependencies) -> list[Classes]:
    """The classes of every group when its rows lose equal numbers."""
    return [classes_of(table, equal(table)) for table in tabulate(dependencies, dependencies.groups)]


@pytest.mark.parametrize("name", graphs.ALL)
def test_classes_divide_a_group_by_the_axes_its_units_lie_on(name: str) -> None:
    dependencies = graphs.traced(graphs.ALL[name]())
    for group, classes in zip(dependencies.groups, classify(dependencies), strict=True):
        assert classes.of.shape == group.units.shape
        assert np.array_equal(np.bincount(classes.of), classes.size)
        dense = [dependencies.unit[s.ids].size for s in group.sources]
        assert (classes.widths @ classes.size + classes.fixed).tolist() == dense
        for axis in dependencies.axes:
            on_it = np.isin(group.units, axis)
            for c in range(classes.size.size):
                assert len(set(on_it[classes.of == c].tolist())) == 1  # all units of a class or none


def test_each_row_of_a_grouped_convolution_is_a_class() -> None:
    dependencies = graphs.traced(graphs.grouped())
    found = dict(zip([g.name for g in dependencies.groups], classify(dependencies), strict=True))
    assert found["reduce.w"].size.tolist() == [4] * 6 and len(found["reduce.w"].rows) == 2
    assert found["stem.w"].size.tolist() == [8] and not found["stem.w"].rows
