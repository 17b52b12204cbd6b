"""Which layers failed to gain, and why. Law: what is told of a kernel is what onnxruntime ran."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from onnxprune.align import STEPS
from onnxprune.errors import ProviderError
from onnxprune.gains import Pair, Reason, Side, explain, failed, judge, pair_layers, reasons
from onnxprune.gains.layers import is_fast
from onnxprune.gains.profiles import alternate, operator_times
from onnxprune.model import Model
from onnxprune.normalise import normalise
from onnxprune.runtime import Kernel, Profiled, optimised_ops, random_feeds
from tests import graphs

FAST = "com.microsoft.nchwc.Conv"
SLOW = "com.microsoft.FusedConv"


def network(width: int, *, pool: bool = False, groups: int = 1) -> Model:
    """Three convolutions, the last with a residual sum; a depthwise one; a projection to 64 channels."""
    net = graphs.Net()
    h = net.op("Relu", [net.conv("x", "c1", width, 3, 3)], "r1")
    h = net.op("Relu", [net.conv(h, "c2", width, width, 3, group=groups)], "r2")
    h = net.op("MaxPool", [h], "mp", kernel_shape=[2, 2], strides=[2, 2]) if pool else h
    h = net.op("Relu", [net.op("Add", [net.conv(h, "c3", width, width, 3), h], "add")], "r3")
    h = net.op("Relu", [net.conv(h, "dw", width, width, 3, group=width)], "r4")
    net.head(net.conv(h, "c4", 64, width), 64)
    return normalise(graphs.loaded(net.model([1, 3, 8, 8], [1, 5])))


def ran(model: Model) -> list[Kernel]:
    """What onnxruntime runs for a model; the times are taken out: 1 ms each."""
    with Profiled(model, random_feeds(model)) as opened:
        opened.run()
        return [replace(k, ms=(1.0, 1.0, 1.0)) for k in opened.kernels()]


def layers(dense: Model, pruned: Model) -> dict[str, Pair]:
    return {pair.node: pair for pair in pair_layers(dense, pruned, (ran(dense), ran(pruned)))}


def block() -> int:
    """The block of this machine's layout, read off what onnxruntime pads 4 channels more than two of its largest to."""
    widths = [k.outputs[0][1] for k in ran(network(36)) if k.op == FAST and k.origin == "r2"]
    if not widths:
        pytest.skip("onnxruntime has no blocked layout here")
    return next(step for step in STEPS[1:] if widths[0] == -(-36 // step) * step)


def told(pair: Pair, step: int) -> dict[str, Reason]:
    return {r.kind: r for r in reasons(pair.before, pair.after, step)}


def test_the_kernels_are_named_with_their_domain_as_in_the_optimised_graph() -> None:
    model = network(64)
    found = {k.op for k in ran(model)}
    assert found == {name.replace("ai.onnx::", "").replace("::", ".") for name in optimised_ops(model)}


def test_a_width_off_the_quarters_leaves_the_layout_and_is_blamed() -> None:
    step, found = block(), layers(network(64), network(61))
    for name in ("c2", "c3", "dw", "c4"):
        pair = found[name]
        now = pair.after.main
        assert now is not None and now.op == (SLOW if name != "c4" else "Conv")  # no activation to fuse with
        assert {k.op for k in pair.before.kernels} == {FAST}
        reason = told(pair, step)["left the fast layout"]
        assert "61 channels" in reason.text and now.op in reason.text and f"--align {step}" in reason.remedy
    assert "depthwise" in told(found["dw"], step)["left the fast layout"].text
    assert (
        "layout changes" in told(found["c1"], step)
        and "Conv after it" in told(found["c1"], step)["layout changes"].text
    )


def test_a_width_inside_a_step_is_paid_for_in_full() -> None:
    step, found = block(), layers(network(64), network(60))
    pair = found["c2"]
    assert pair.after.main is not None and is_fast(pair.after.main)
    reason = told(pair, step)["unaligned width"]
    assert "60 of 64 channels cost as much as 64" in reason.text and f"--align {step}" in reason.remedy


def test_a_pool_that_wants_whole_blocks_breaks_a_fusion_and_the_layout() -> None:
    step, found = block(), layers(network(64, pool=True), network(64 - block() - 4, pool=True))
    assert "MaxPool after it" in told(found["c2"], step)["layout changes"].text
    assert "whole blocks" in told(found["mp"], step)["left the fast layout"].text
    assert "Add" in told(found["c3"], step)["fusion lost"].text


def test_a_grouped_convolution_is_told_by_its_groups() -> None:
    step, width = block(), 4 * 2 * block()
    found = layers(network(width, groups=4), network(width - 16, groups=4))
    reason = told(found["c2"], step)["left the fast layout"]
    assert f"these have {(width - 16) // 4}" in reason.text


def test_an_aligned_pruning_has_no_such_reason() -> None:
    step = block()
    for pair in layers(network(64, pool=True), network(64 - step, pool=True)).values():
        assert set(told(pair, step)) <= {"does not shrink", "not explained"}, pair


def test_both_sides_hold_the_same_nodes() -> None:
    dense, pruned = network(64, pool=True), network(60, pool=True)
    found = layers(dense, pruned)
    assert [k.op.rpartition(".")[2] for k in found["c3"].before.kernels] == ["Conv"]
    assert {"Conv", "Add", "Relu"} <= {k.op.rpartition(".")[2] for k in found["c3"].after.kernels}
    assert (found["c2"].after.into, found["c2"].after.out) == (60, 60)
    share = found["c2"].after.work / found["c2"].before.work  # type: ignore[operator]
    assert share == pytest.approx((60 / 64) ** 2)


def kernel(ms: Sequence[float], op: str = FAST, width: int = 64) -> Kernel:
    shape = (1, width, 8, 8)
    return Kernel("k", op, "t", tuple(ms), (shape,), (shape,), "CPUExecutionProvider")


def pair(before: float, after: float, work: float, noise: float = 0.0) -> Pair:
    def times(ms: float) -> list[float]:
        return [ms, ms, ms + noise, ms + noise, ms + noise]

    one = Side((kernel(times(before)),), (1, 64, 8, 8), 64, 64, 1, 1000.0)
    return Pair("t", "n", one, replace(one, kernels=(kernel(times(after)),), work=1000.0 * work))


@pytest.mark.parametrize(
    ("before", "after", "work", "noise", "expected"),
    [
        (1.0, 0.5, 0.5, 0.0, False),  # as its work
        (1.0, 0.74, 0.5, 0.0, False),  # more than half of it
        (1.0, 0.76, 0.5, 0.0, True),
        (1.0, 1.5, 0.5, 0.0, True),
        (1.0, 1.5, 1.0, 0.0, False),  # its work did not shrink
        (1.0, 0.9, 0.5, 1.0, False),  # within what the times are uncertain by
    ],
)
def test_a_layer_fails_where_its_time_falls_by_less_than_half_of_its_work(
    before: float, after: float, work: float, noise: float, expected: bool
) -> None:
    assert failed(pair(before, after, work, noise)) == expected


def test_what_does_not_shrink_with_channels_is_said() -> None:
    small = replace(pair(1.0, 1.0, 0.5).after, shape=(1, 32, 4, 4), into=32, out=32)
    same = replace(small, kernels=(kernel([1.0], width=32),))
    dense = replace(pair(1.0, 1.0, 0.5).before)
    assert "maps of 4 x 4" in reasons(dense, same, 8)[0].text
    assert "the call of any kernel" in reasons(dense, same, 8, least_ms=0.9)[0].text
    plain = replace(same, kernels=(kernel([1.0], "Mul", 32),), into=0)
    assert "bound by memory" in reasons(replace(plain, kernels=(kernel([1.0], "Mul"),), out=64), plain, 8)[0].text


def test_the_costliest_failure_comes_first_and_operators_add_up() -> None:
    before, after = [kernel([1.0]), kernel([2.0])], [kernel([1.0]), kernel([3.0], SLOW)]
    found = judge(before, after, [pair(1.0, 0.9, 0.5), pair(5.0, 5.0, 0.5), pair(1.0, 0.5, 0.5)], 8, 5)
    assert [round(layer.lost_ms, 3) for layer in found.failed] == [2.5, 0.4]
    assert (found.before_ms, found.after_ms) == (3.0, 4.0)
    assert [(o.op, o.count_before, o.count_after) for o in operator_times(before, after)] == [
        (SLOW, 0, 1),
        (FAST, 2, 1),
    ]


def test_the_json_is_complete() -> None:
    found = explain(network(64), network(61), random_feeds(network(64)), step=8, budget_s=0.0).to_dict()
    assert {"operators", "layers", "failed", "kernels_ms", "width_step", "runs"} == found.keys()
    layer = next(la for la in found["layers"] if la["node"] == "c2")
    assert layer["channels"]["after"]["written"] == 61 and layer["kernels"]["before"] != layer["kernels"]["after"]
    for side in ("before", "after"):
        assert sum(o["share"][side] for o in found["operators"]) == pytest.approx(1)


def test_models_that_share_no_names_have_operators_but_no_layers() -> None:
    one, other = network(64), normalise(graphs.loaded(graphs.gated()))
    assert pair_layers(one, other, (ran(one), ran(other))) == []


def test_an_accelerator_is_refused() -> None:
    with pytest.raises(ProviderError):
        explain(network(16), network(16), {}, step=8, provider="cuda")


def test_runs_take_turns_until_the_budget_is_spent() -> None:
    seen: list[int] = []
    clock = iter(np.arange(0, 1000, 1.0))
    runs = alternate([lambda: seen.append(0), lambda: seen.append(1)], seed=0, budget_s=9.5, clock=lambda: next(clock))
    assert seen.count(0) == seen.count(1) == runs + 2 and runs >= 5
