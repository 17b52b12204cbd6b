"""Laws of the search over widths: the time is kept, little importance is lost to the best there is, limits hold."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from onnxprune.errors import PlanError, UnprunableError
from onnxprune.importance import score
from onnxprune.latency import Price, terms_of, whole_region
from onnxprune.latency.terms import KINDS
from onnxprune.plan import Limits
from onnxprune.plan.knapsack import Search, fastest, within
from onnxprune.plan.levels import LEVELS, Choices, Level, choices_of, choosers_of, levels_of
from onnxprune.trace import Dependencies
from tests import graphs

GAP = 0.05  # of the logarithm of what is kept, below the best of all combinations


def levels(dependencies: Dependencies, *, finer: bool = True, **limits: object) -> list[list[Level]]:
    choosers = choosers_of(dependencies, score(dependencies), Limits(**limits), finer=finer)
    return levels_of(choosers)


def problem(name: str, seed: int, *, align: int = 4, step: int = 4) -> tuple[Price, Choices]:
    """A graph at a random price of its work."""
    dependencies, rng = graphs.traced(graphs.ALL[name]()), np.random.default_rng(seed)
    terms = terms_of(dependencies, whole_region(dependencies.model.proto.graph), step)
    dear = rng.uniform(0, 1, len(KINDS)) * (rng.random(len(KINDS)) < 0.6)
    dear[KINDS.index("macs in steps")] += 0.5
    scale = terms.features(terms.dense).sum(axis=0)
    price = Price(terms, (dear / np.maximum(scale, 1))[terms.kind])
    return price, choices_of(dependencies, price.terms, levels(dependencies, align=align))


def every(price: Price, choices: Choices, macs: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Time and value (importance, a mean of logarithms, and `macs` x that of the work left) of all combinations."""
    combinations = list(itertools.product(*(range(len(options)) for options in choices.levels)))
    widths = np.stack(
        [
            price.terms.dense + sum(c[:, i] for c, i in zip(choices.change, chosen, strict=True))
            for chosen in combinations
        ],
        axis=1,
    )
    values = [sum(v[i] for v, i in zip(choices.value, chosen, strict=True)) for chosen in combinations]
    work = Price(price.terms, (price.terms.kind == KINDS.index("macs")).astype(float)).total(widths)
    return price.total(widths), np.array(values) / sum(choices.layers) + macs * np.log(work)


SMALL = ["chain", "residual", "gated", "grouped", "dense", "mlp", "flattened", "funnel"]


@pytest.mark.parametrize("macs", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", SMALL)
def test_the_time_is_kept_and_little_lost_to_the_best(name: str, seed: int, macs: float) -> None:
    price, choices = problem(name, seed, align=2)
    times, values = every(price, choices, macs)
    for share in (0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.0):
        limit = float(times.max()) * share
        found = within(Search.of(price, choices, macs), limit)
        possible = values[times <= limit]
        if found is None:
            assert not possible.size
            continue
        assert found.total <= limit * (1 + 1e-9)
        assert found.value / sum(choices.layers) >= possible.max() - GAP


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", SMALL)
def test_the_fastest_is_the_fastest_of_all_combinations(name: str, seed: int) -> None:
    price, choices = problem(name, seed)
    times, _ = every(price, choices)
    assert fastest(Search.of(price, choices)).total == pytest.approx(float(times.min()), rel=1e-9)


def test_the_whole_model_is_the_answer_where_there_is_time_for_it() -> None:
    price, choices = problem("chain", 0)
    found = within(Search.of(price, choices), float(price.total(price.terms.dense)))
    assert found is not None and found.kept == pytest.approx(1.0) and not found.chosen.any()


@pytest.mark.parametrize("name", SMALL)
def test_the_times_of_a_group_differ_as_the_totals_do(name: str) -> None:
    price, choices = problem(name, 1)
    rng, search = np.random.default_rng(2), Search.of(price, choices)
    for _ in range(5):
        for g, options in enumerate(choices.levels):
            search.move(g, int(rng.integers(len(options))))
        for g, options in enumerate(choices.levels):
            times, copy = search.times(g), search.copy()
            for level in range(len(options)):
                copy.move(g, level)
                gain = float(price.total(copy.widths) - price.total(search.widths))
                assert times[level] - times[search.chosen[g]] == pytest.approx(gain, abs=1e-9 * search.total)
                assert copy.total == pytest.approx(float(price.total(copy.widths)), rel=1e-9)
                more, worth = search.differences(np.array([g]))
                assert more[0, level] == pytest.approx(gain, abs=1e-9 * search.total)
                assert worth[0, level] == pytest.approx(copy.value - search.value, abs=1e-9)


def test_a_copy_goes_its_own_way() -> None:
    price, choices = problem("chain", 0)
    search = Search.of(price, choices)
    copy, before = search.copy(), (search.total, search.value)
    copy.move(0, len(choices.levels[0]) - 1)
    assert (search.total, search.value) == before and copy.total < before[0] and copy.value < before[1]


@pytest.mark.parametrize("name", graphs.ALL)
def test_levels_go_from_the_whole_group_to_less_and_less_importance(name: str) -> None:
    dependencies = graphs.traced(graphs.ALL[name]())
    for group, options in zip(dependencies.groups, levels(dependencies), strict=True):
        sizes = [level.removed.size for level in options]
        assert sizes[0] == 0 and options[0].kept == 1 and sizes == sorted(sizes) and len(options) <= 2 * LEVELS
        assert all(0 < level.kept <= 1 and level.removed.size < group.units.size for level in options)
        assert len({level.removed.tobytes() for level in options}) == len(options)


@pytest.mark.parametrize("align", [2, 4, 8])
@pytest.mark.parametrize("name", graphs.ALL)
def test_levels_are_aligned(name: str, align: int) -> None:
    dependencies = graphs.traced(graphs.ALL[name]())
    for group, options in zip(dependencies.groups, levels(dependencies, finer=False, align=align), strict=True):
        for level in options[1:]:
            keep = dependencies.keep(group.units[level.removed])
            widths = [(int(keep[s.ids].sum()), s.ids.size) for s in group.sources]
            assert all(width % align == 0 or width == dense for width, dense in widths)


@pytest.mark.parametrize("width", [20, 24, 36, 60, 100, 120])
def test_every_aligned_width_of_a_group_can_be_chosen(width: int) -> None:
    """Also the one just below a dense width that is no multiple of the step: it costs a channel or two."""
    dependencies = graphs.traced(graphs.chain(width=width))
    options = levels(dependencies, finer=False, align=8)[0]
    kept = [width - level.removed.size for level in options]
    assert kept == sorted({width, *range(8, width + 1, 8)}, reverse=True)


def test_wide_groups_have_a_bounded_number_of_levels_down_to_one_step() -> None:
    dependencies = graphs.traced(graphs.chain(width=256))
    kept = [256 - level.removed.size for level in levels(dependencies, finer=False, align=4)[0]]
    assert len(kept) <= LEVELS + 1 and kept[0] == 256 and kept[-1] == 4


def test_narrow_groups_may_stop_at_parts_of_a_step_if_that_is_asked() -> None:
    """Halves of one, and quarters below the first."""
    dependencies = graphs.traced(graphs.chain(width=16))
    plain, finer = (levels(dependencies, finer=f, align=8) for f in (False, True))
    assert [16 - o.removed.size for o in plain[0]] == [16, 8]
    assert [16 - o.removed.size for o in finer[0]] == [16, 12, 8, 6, 4, 2]
    wide = graphs.traced(graphs.chain(width=24))
    assert [24 - o.removed.size for o in levels(wide, align=8)[0]] == [24, 16, 8]


@pytest.mark.parametrize("most", [0.3, 0.5, 0.75])
def test_no_level_removes_more_than_the_largest_ratio(most: float) -> None:
    dependencies = graphs.traced(graphs.residual())
    found = levels(dependencies, max_ratio=most)
    assert all(
        o.removed.size <= most * g.units.size for g, os in zip(dependencies.groups, found, strict=True) for o in os
    )
    assert any(o.removed.size for options in found for o in options)


def test_skipped_layers_have_one_level_and_given_ratios_theirs() -> None:
    dependencies = graphs.traced(graphs.chain())
    found = levels(dependencies, skip=("c1.w",), layer_ratios=(("c2.w", 0.25),))
    assert [[o.removed.size for o in options] for options in found][:2] == [[0], [4]]
    assert found[0][0].note == "kept whole as asked" and len(found[2]) > 1


def test_a_given_ratio_is_priced_from_the_start() -> None:
    dependencies = graphs.traced(graphs.chain())
    terms = terms_of(dependencies, whole_region(dependencies.model.proto.graph), 1)
    price = Price(terms, np.ones(terms.factor.size))
    search = Search.of(
        price, choices_of(dependencies, price.terms, levels(dependencies, layer_ratios=(("c2.w", 0.25),)))
    )
    assert search.total < float(price.total(terms.dense)) and search.kept < 1


@pytest.mark.parametrize("rows", ["equal", "whole"])
def test_rows_go_as_asked(rows: str) -> None:
    dependencies = graphs.traced(graphs.grouped())
    group, options = dependencies.groups[1], levels(dependencies, rows=rows)[1]
    for level in options[1:]:
        gone = np.isin(group.rows[0].members, group.units[level.removed]).sum(axis=1)
        assert len(set(gone.tolist())) == 1 if rows == "equal" else set(gone.tolist()) <= {0, 4}
    assert len(options) > 1


def test_a_name_that_matches_nothing_and_a_model_without_groups_are_errors() -> None:
    with pytest.raises(PlanError, match="matches no prunable layer"):
        levels(graphs.traced(graphs.chain()), skip=("stranger",))
    net = graphs.Net()
    net.op("Relu", ["x"], "y")
    with pytest.raises(UnprunableError):
        levels(graphs.traced(net.model(["N", 4], ["N", 4])))


def test_errors_are_all_that_counts_where_scores_are_errors() -> None:
    """They share no scale with the work that stays, which would outweigh them."""
    dependencies = graphs.traced(graphs.residual())
    scores = replace(score(dependencies), additive=True)
    terms = terms_of(dependencies, whole_region(dependencies.model.proto.graph), 1)
    found = levels_of(choosers_of(dependencies, scores, Limits(), finer=False))
    search = Search.of(Price(terms, np.ones(terms.factor.size)), choices_of(dependencies, terms, found, additive=True))
    search.move(0, 2)
    gone = dependencies.groups[0].units[found[0][2].removed]
    assert search.value == pytest.approx(-scores.values[gone].sum())
    assert search.kept == pytest.approx(
        found[0][2].kept ** (len(dependencies.groups[0].sources) / sum(len(g.sources) for g in dependencies.groups))
    )
