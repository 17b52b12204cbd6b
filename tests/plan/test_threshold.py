"""Laws of a threshold: what goes lies below it, all of that goes where nothing stands against it, in any scale."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune.importance import score
from onnxprune.plan import Limits, Target, across, plan, uniform
from onnxprune.trace import Dependencies
from tests import graphs

FAINT = np.float32(2.0**-10)  # a power of 2 is exact
PLAIN = ("chain", "residual", "mlp", "flattened")


def faded(name: str, tensors: dict[str, list[int]], scale: float = 1.0) -> onnx.ModelProto:
    """A graph in which some filters (on axis 0) are a thousandth of what they were, and all weights are scaled."""
    proto = graphs.ALL[name]()
    for tensor in proto.graph.initializer:
        value = onnx.numpy_helper.to_array(tensor)
        if value.dtype.kind == "f":
            value = value * np.float32(scale)
            value[tensors.get(tensor.name, [])] *= FAINT
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    return proto


def removed(dependencies: Dependencies, threshold: float, criterion: str = "l1", **limits: object) -> dict[str, list]:
    found = plan(dependencies, score(dependencies, criterion), Target(threshold=threshold), Limits(**limits))
    return {g.name: list(g.removed) for g in found.groups if g.removed}


@pytest.mark.parametrize("criterion", ["l1", "l2", "fpgm"])
@pytest.mark.parametrize("scale", [1.0, 2.0**-7, 2.0**7])
def test_faint_filters_go_in_any_scale(scale: float, criterion: str) -> None:
    dependencies = graphs.traced(faded("chain", {"c1.w": [1, 5], "c3.w": [0]}, scale))
    if criterion != "fpgm":  # near zero is not near the median
        assert removed(dependencies, 0.01, criterion) == {"c1.w": [1, 5], "c3.w": [0]}
    found = plan(dependencies, score(dependencies, criterion), Target(threshold=0.01))
    assert found.settings["below"] == sum(len(g.removed) for g in found.groups)


@pytest.mark.parametrize("allocate", ["uniform", "global"])
@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("name", PLAIN)
def test_exactly_what_lies_below_goes(name: str, threshold: float, allocate: str) -> None:
    dependencies = graphs.traced(graphs.ALL[name]())
    values = score(dependencies).values
    own = [values[g.units] for g in dependencies.groups]
    highest = max(float((v / v.mean()).max()) for v in own)
    scores = score(dependencies)
    sharing = across(dependencies, scores) if allocate == "global" else uniform(dependencies)
    found = plan(dependencies, scores, Target(threshold=threshold), None, sharing)
    for group, entry, v in zip(dependencies.groups, found.groups, own, strict=True):
        if len(group.sources) > 1 and allocate == "uniform":
            continue
        share = v / v.mean() / highest if allocate == "global" else v / v.max()
        low = np.flatnonzero(share < threshold).tolist()
        assert list(entry.removed) == low or len(low) == v.size  # of a group that lies below as a whole something stays


def test_coupled_filters_must_all_be_faint() -> None:
    """Channels 2 and 3 of the stream are faint in the shortcut, 3 and 4 in the block: only 3 goes."""
    dependencies = graphs.traced(faded("residual", {"bs.w": [2, 3], "b2.w": [3, 4]}))
    assert removed(dependencies, 0.01) == {"b2.w": [3]}


@pytest.mark.parametrize("name", graphs.ALL)
@pytest.mark.parametrize("align", [1, 4])
@pytest.mark.parametrize("rows", ["equal", "whole"])
def test_rows_and_alignment_never_take_more(name: str, align: int, rows: str) -> None:
    dependencies = graphs.traced(graphs.ALL[name]())
    highest = {g.name: score(dependencies).values[g.units].max() for g in dependencies.groups}
    found = plan(dependencies, score(dependencies), Target(threshold=0.7), Limits(align=align, rows=rows))
    for group, entry in zip(dependencies.groups, found.groups, strict=True):
        if len(group.sources) == 1:
            lost = score(dependencies).values[group.units[list(entry.removed)]]
            assert (lost < 0.7 * highest[entry.name]).all()


def share_of_highest(dependencies: Dependencies, criterion: str) -> np.ndarray:
    """Per unit, its filters' scores over the highest of their layer, the largest of several layers'."""
    scores = score(dependencies, criterion)
    found = np.zeros(dependencies.unit_count)
    for group in dependencies.groups:
        for source in group.sources if scores.filters else ():
            units, values = dependencies.unit[source.ids].ravel(), scores.filters[source]
            mine = (units >= 0) & (units < found.size)
            np.maximum.at(found, units[mine], values[mine] / values.max())
        if not scores.filters:
            found[group.units] = scores.values[group.units] / scores.values[group.units].max()
    return found


@pytest.mark.parametrize("criterion", ["l1", "group-norm"])
@pytest.mark.parametrize("threshold", [0.6, 0.8, 0.95])
@pytest.mark.parametrize("rows", ["auto", "equal", "whole"])
@pytest.mark.parametrize("name", ["grouped", "shuffled", "gated", "residual"])
def test_neither_rows_nor_positions_take_what_lies_above_along(
    name: str, rows: str, threshold: float, criterion: str
) -> None:
    """Positions that must go together, and whole rows, stay where one of their filters is not below."""
    dependencies = graphs.traced(graphs.ALL[name]())
    share = share_of_highest(dependencies, criterion)
    for align in (1, 4):
        limits = Limits(align=align, rows=rows)
        found = plan(dependencies, score(dependencies, criterion), Target(threshold=threshold), limits)
        assert (share[found.removed(dependencies)] < threshold).all()


def test_a_layer_that_lies_below_as_a_whole_keeps_a_channel_and_says_so() -> None:
    dependencies = graphs.traced(faded("chain", {"c1.w": list(range(15))}))
    assert removed(dependencies, 0.01) == {"c1.w": list(range(15))}
    found = plan(dependencies, score(dependencies), Target(threshold=0.01), Limits(align=4))
    entry = next(g for g in found.groups if g.name == "c1.w")
    assert len(entry.removed) == 12 and entry.note == "3 of the 15 channels below the threshold stay"


def test_scales_take_a_threshold_too() -> None:
    dependencies = graphs.traced(faded("residual", {"a1.bn.scale": [4]}))
    assert removed(dependencies, 0.01, "bn-scale")["a1.w"] == [4]
