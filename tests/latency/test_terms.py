"""Laws of the terms: a width is what `cost` counts, and a whole plan is priced by adding up its groups' changes."""

from __future__ import annotations

from functools import cache
from importlib import import_module

import numpy as np
import pytest

from onnxprune.importance import score
from onnxprune.latency import Price, Regions, Terms, regions_of, terms_of, whole_region
from onnxprune.latency.terms import BETWEEN, FACTORS, FEW, KINDS
from onnxprune.plan import Limits
from onnxprune.plan.knapsack import Search
from onnxprune.plan.levels import choices_of, choosers_of, levels_of
from onnxprune.profile import removed_by
from onnxprune.trace import Dependencies
from tests import graphs
from tests.latency.test_regions import kernel

cost = import_module("onnxprune.cost").cost  # the package offers the function under the module's name
MACS = KINDS.index("macs")
STEADY = [i for i, kind in enumerate(KINDS) if kind not in (*BETWEEN, FEW)]  # those that grow with every width


def blocks(*, groups: int = 8, each: int = 4) -> Dependencies:
    """A wide ResNeXt block, whose grouped convolution can lose whole groups."""
    net, wide = graphs.Net(11), groups * each
    h = net.op("Relu", [net.conv("x", "stem", 16, 3, 3)], "stem.r")
    inner = net.op("Relu", [net.conv(h, "reduce", wide, 16)], "reduce.r")
    inner = net.op("Relu", [net.conv(inner, "groups", wide, wide, 3, group=groups)], "groups.r")
    net.head(net.op("Add", [net.conv(inner, "expand", 16, wide), h], "sum"), 16)
    return graphs.traced(net.model(["N", 3, 8, 8], ["N", 5]))


def depthwise(width: int) -> Dependencies:
    """Expansion, depthwise convolution, projection."""
    net = graphs.Net(12)
    h = net.op("Relu", [net.conv("x", "expand", width, 3)], "expand.r")
    h = net.op("Relu", [net.conv(h, "depth", width, width, 3, group=width)], "depth.r")
    net.head(net.conv(h, "project", 8, width), 8)
    return graphs.traced(net.model(["N", 3, 8, 8], ["N", 5]))


BUILD = {**{name: lambda b=build: graphs.traced(b()) for name, build in graphs.ALL.items()}, "blocks": blocks}


@cache
def traced(name: str) -> Dependencies:
    return BUILD[name]()


def split(dependencies: Dependencies) -> Regions:
    """Regions as a runtime that fuses activations would give them: all nodes but convolutions end a kernel."""
    graph = dependencies.model.proto.graph
    names = [n.output[0] for n in graph.node if n.op_type not in ("Conv", "BatchNormalization")]
    return regions_of(graph, [kernel(name) for name in names])


def terms(dependencies: Dependencies, step: int = 4) -> Terms:
    return terms_of(dependencies, split(dependencies), step)


def removals(dependencies: Dependencies, count: int = 3) -> list[np.ndarray]:
    """Lawful random removals, in every way that rows can go."""
    found, rng = [], np.random.default_rng(3)
    for rows in ("equal", "whole"):
        for align in (1, 4):
            choosers = choosers_of(dependencies, score(dependencies), Limits(rows=rows, align=align), finer=True)
            levels = levels_of(choosers)
            picks = [[int(rng.integers(len(options))) for options in levels] for _ in range(count)]
            found += [removed_by(dependencies, levels, pick) for pick in picks]
    return found


@pytest.mark.parametrize("name", BUILD)
def test_the_macs_are_those_that_cost_counts(name: str) -> None:
    dependencies = traced(name)
    price = terms(dependencies)
    assert price.features(price.dense)[:, MACS].sum() == pytest.approx(cost(dependencies).macs)
    for removed in removals(dependencies):
        keep = dependencies.keep(removed)
        found = price.features(price.measure(keep))[:, MACS].sum()
        assert found == pytest.approx(cost(dependencies, keep).macs, abs=1)  # cost rounds to whole numbers


@pytest.mark.parametrize("name", BUILD)
def test_widths_from_adding_up_changes_are_those_of_the_whole_removal(name: str) -> None:
    dependencies, rng = traced(name), np.random.default_rng(5)
    price = Price(t := terms(dependencies), np.ones(terms(dependencies).factor.size))
    for rows in ("auto", "equal", "whole"):
        choosers = choosers_of(dependencies, score(dependencies), Limits(rows=rows), finer=False)
        levels = levels_of(choosers)
        search = Search.of(price, choices_of(dependencies, price.terms, levels))
        for _ in range(5):
            for g, options in enumerate(levels):
                search.move(g, int(rng.integers(len(options))))
            removed = removed_by(dependencies, levels, search.chosen.tolist())
            assert np.array_equal(search.widths, t.measure(dependencies.keep(removed)))


@pytest.mark.parametrize("step", [4, 16])
@pytest.mark.parametrize("name", BUILD)
def test_less_of_everything_is_never_more_work(name: str, step: int) -> None:
    """Also of a grouped convolution that loses whole groups: what it rounds up are the widths of one group."""
    dependencies = traced(name)
    price, choosers = terms(dependencies, step), []
    for rows in ("equal", "whole"):
        choosers += choosers_of(dependencies, score(dependencies), Limits(rows=rows), finer=False)
    for chooser in choosers:
        levels = levels_of([chooser])
        for g, options in enumerate(levels):
            chosen = [0] * len(levels)
            before = price.features(price.dense)
            for c in range(len(options)):
                chosen[g] = c
                found = price.features(price.measure(dependencies.keep(removed_by(dependencies, levels, chosen))))
                assert (found <= before * (1 + 1e-9))[:, STEADY].all()
                before = found


@pytest.mark.parametrize("step", [4, 8, 16])
def test_narrowing_a_depthwise_convolution_never_adds_work(step: int) -> None:
    dependencies = depthwise(32)
    price, units = terms(dependencies, step), dependencies.groups[0].units
    before = price.features(price.dense)
    for count in range(1, 32):
        found = price.features(price.measure(dependencies.keep(units[:count])))
        assert (found <= before * (1 + 1e-9))[:, STEADY].all()
        before = found


def test_rounded_work_is_a_staircase_of_the_step() -> None:
    dependencies = graphs.traced(graphs.chain(width=32))
    price, units = terms(dependencies, 8), dependencies.groups[1].units
    kind = KINDS.index("macs in steps")
    work = [price.features(price.measure(dependencies.keep(units[:n])))[:, kind].sum() for n in range(24)]
    for n in range(24):
        assert work[n] == work[n - n % 8], "widths inside a stair cost the same"
    assert work[8] < work[7] and work[16] < work[15]


def test_work_between_steps_counts_where_a_width_is_no_multiple_of_the_step() -> None:
    """And work of few inputs where the inputs are less than a step: c2 reads the 32 of c1, of which some go."""
    dependencies = graphs.traced(graphs.chain(width=32))
    price, units = terms(dependencies, 4), dependencies.groups[0].units
    dense = dict(zip(KINDS, price.features(price.dense).sum(axis=0), strict=True))
    assert dense["macs between steps"] == dense["elements between steps"] == dense["macs of few inputs"] == 0
    for count in range(1, 32):
        found = price.features(price.measure(dependencies.keep(units[:count]))).sum(axis=0)
        work = dict(zip(KINDS, found, strict=True))
        assert (work["macs between steps"] > 0) == (work["elements between steps"] > 0) == (count % 4 > 0)
        assert (work["macs of few inputs"] > 0) == (32 - count < 4)


def test_the_widths_of_a_grouped_convolution_are_those_of_one_group() -> None:
    """Four channels in each of 8 groups are less than a step of 8; 32 depthwise ones are four steps."""
    for groups, between in ((8, True), (32, False)):
        net = graphs.Net(3)
        h = net.op("Relu", [net.conv("x", "c1", 32, 8)], "r1")
        net.head(net.op("Relu", [net.conv(h, "c2", 32, 32, 3, group=groups)], "r2"), 32)
        dependencies = graphs.traced(net.model(["N", 8, 8, 8], ["N", 5]))
        regions = split(dependencies)
        price = terms_of(dependencies, regions, 8)
        work = dict(zip(KINDS, price.features(price.dense)[regions.of["r2"]], strict=True))
        assert (work["macs between steps"] > 0) == (work["macs of few inputs"] > 0) == between


@pytest.mark.parametrize("name", BUILD)
def test_kinds_in_steps_are_never_less_than_plain_ones(name: str) -> None:
    dependencies = traced(name)
    price = terms(dependencies, 8)
    for removed in removals(dependencies, 2):
        work = dict(zip(KINDS, price.features(price.measure(dependencies.keep(removed))).sum(axis=0), strict=True))
        assert work["macs"] <= work["macs in steps"] + 1e-6
        assert work["macs with outputs in steps"] <= work["macs in steps"] + 1e-6
        assert work["macs between steps"] <= work["macs"] >= work["macs of few inputs"]
        assert work["elements between steps"] <= work["elements"]
        # An axis that cannot shrink has no rounded form, so tensors of frozen axes alone count as plain elements.
        assert work["elements in steps"] > 0


def test_a_tensor_between_regions_is_written_once_and_read_once_by_each_reader() -> None:
    dependencies = graphs.traced(graphs.residual())
    regions = split(dependencies)
    price = terms_of(dependencies, regions, 1)
    elements = price.features(price.dense)[:, KINDS.index("elements")]
    # stem.r computes 8 maps of 8 x 8 from 3 of them; a1.r reads 8 and writes 8 maps.
    assert elements[regions.of["stem.r"]] == (3 + 8) * 64
    assert elements[regions.of["a1.r"]] == (8 + 8) * 64


def test_every_region_has_one_constant_and_so_have_kernels_of_none() -> None:
    dependencies = graphs.traced(graphs.gated())
    regions = split(dependencies)
    work = terms_of(dependencies, regions, 4).features(terms_of(dependencies, regions, 4).dense)
    assert work.shape == (len(regions.names) + 1, len(KINDS))
    assert (work[:, KINDS.index("constant")] == 1).all() and work[-1].sum() == 1


def test_one_region_does_the_work_of_all() -> None:
    dependencies = graphs.traced(graphs.residual())
    whole = terms_of(dependencies, whole_region(dependencies.model.proto.graph), 4)
    parts = terms(dependencies)
    for kind in (k for k in KINDS if k.startswith("macs")):
        at = KINDS.index(kind)
        assert whole.features(whole.dense)[:, at].sum() == pytest.approx(parts.features(parts.dense)[:, at].sum())


def test_many_sets_of_widths_at_once_cost_what_they_cost_one_by_one() -> None:
    dependencies = traced("grouped")
    t, rng = terms(dependencies), np.random.default_rng(0)
    price = Price(t, rng.uniform(0, 1, t.factor.size))
    every = np.stack([t.measure(dependencies.keep(r)) for r in removals(dependencies, 2)], axis=1)
    np.testing.assert_allclose(price.total(every), [price.total(w) for w in every.T], rtol=1e-12)


@pytest.mark.parametrize("name", BUILD)
def test_the_price_of_what_some_axes_touch_changes_as_the_whole_price(name: str) -> None:
    dependencies = traced(name)
    t, rng = terms(dependencies), np.random.default_rng(1)
    price = Price(t, rng.uniform(0, 1, t.factor.size) * (rng.random(t.factor.size) < 0.7))
    for removed in removals(dependencies, 1):
        widths = t.measure(dependencies.keep(removed))
        local = price.part(t.touched(np.flatnonzero(widths != t.dense)))
        change = float(local.total(widths) - local.total(t.dense))
        assert change == pytest.approx(float(price.total(widths) - price.total(t.dense)), rel=1e-9, abs=1e-6)


def test_no_product_multiplies_more_widths_than_there_is_room_for() -> None:
    assert all(terms(traced(name)).widths.shape[1] <= FACTORS for name in BUILD)
