"""Laws of the rewriter: masked and pruned compute the same, what it says it removed is what is gone, the rest stays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune.cost import cost
from onnxprune.errors import PlanError
from onnxprune.importance import score
from onnxprune.labels import zero
from onnxprune.model import Array, Model, check, load, save
from onnxprune.normalise import normalise
from onnxprune.plan import Target, across, plan, uniform
from onnxprune.rewrite import Removal, masked, removal, rewrite, take
from onnxprune.runtime import capture, random_feeds, run, session
from onnxprune.trace import Dependencies, trace
from tests import graphs

# Masked adds zeros where pruned has no terms, and kernels group terms by width: a few roundings of float32 (6e-8) in
# sums of at most 150 terms of size 1, through six layers.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def with_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every intermediate shape recorded, as exporters do."""
    return onnx.shape_inference.infer_shapes(proto, strict_mode=True)


@pytest.fixture(scope="module")
def traced() -> dict[str, Dependencies]:
    return {name: graphs.traced(with_shapes(build())) for name, build in graphs.ALL.items()}


def planned(dependencies: Dependencies, ratio: float, allocate: str = "uniform") -> Array:
    scores = score(dependencies)
    sharing = across(dependencies, scores) if allocate == "global" else uniform(dependencies)
    return plan(dependencies, scores, Target(ratio=ratio), allocation=sharing).removed(dependencies)


def at_random(dependencies: Dependencies, seed: int) -> Array:
    """A removal that no criterion chose: any units, but equally many from every row and never all of a group."""
    rng = np.random.default_rng(seed)
    parts = [np.zeros(0, np.int64)]
    for group in dependencies.groups:
        members = [rows.members for rows in group.rows] or [group.units[None]]
        if np.unique(np.concatenate(members)).size < sum(m.size for m in members):
            continue  # families that share members: equal numbers in one may not be equal in the other
        for rows in members:
            count = int(rng.integers(0, rows.shape[1]))
            parts += [rng.permutation(row)[:count] for row in rows]
    return np.concatenate(parts)


def same_outputs(a: Model, b: Model, seed: int = 0) -> None:
    feeds = random_feeds(a, batch=3, seed=seed)
    left, right = run(a, feeds), run(b, feeds)
    assert left.keys() == right.keys()
    for name in left:
        assert np.abs(left[name]).max() > 1e-3  # a dead network would agree with anything
        np.testing.assert_allclose(right[name], left[name], **CLOSE)


# --- masked == pruned ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allocate", ["uniform", "global"])
@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.7])
@pytest.mark.parametrize("name", graphs.ALL)
def test_masked_and_pruned_compute_the_same(name: str, ratio: float, allocate: str, traced: dict) -> None:
    removed = planned(traced[name], ratio, allocate)
    assert removed.size
    same_outputs(masked(traced[name], removed), rewrite(traced[name], removed))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["chain", "residual", "gated", "grouped", "dense", "mlp", "flattened"])
def test_they_do_for_removals_no_criterion_would_choose(name: str, seed: int, traced: dict) -> None:
    removed = at_random(traced[name], seed)
    same_outputs(masked(traced[name], removed), rewrite(traced[name], removed), seed)


@pytest.mark.parametrize("name", graphs.ALL)
def test_masking_changes_the_dense_model(name: str, traced: dict) -> None:
    """Otherwise the comparison above would prove nothing."""
    dependencies = traced[name]
    feeds = random_feeds(dependencies.model, batch=3)
    dense, zeroed = (run(m, feeds)["y"] for m in (dependencies.model, masked(dependencies, planned(dependencies, 0.5))))
    assert np.abs(dense - zeroed).max() > 1e-2


@pytest.mark.parametrize("name", graphs.ALL)
def test_removing_nothing_changes_nothing(name: str, traced: dict) -> None:
    dependencies = traced[name]
    same = rewrite(dependencies, np.zeros(0, np.int64))
    assert same.weights.keys() == dependencies.model.weights.keys()
    assert all(same.weights[n] is w for n, w in dependencies.model.weights.items())
    assert list(same.proto.graph.node) == list(dependencies.model.proto.graph.node)
    assert list(same.proto.graph.value_info) == list(dependencies.model.proto.graph.value_info)


# --- what was removed ------------------------------------------------------------------------------------------------


def deleted(weight: Array, name: str, found: Removal) -> Array:
    """What is left of a weight, by numpy's own `delete`, from the reported indices alone."""
    for axis, indices in found.indices.get(name, {}).items():
        if name not in found.per_block:
            weight = np.delete(weight, indices, axis=axis)
    for axis, blocks in found.per_block.get(name, {}).items():
        parts = np.split(weight, len(blocks), axis=0)
        outer = np.split(np.isin(np.arange(len(weight)), found.indices.get(name, {}).get(0, [])), len(blocks))
        parts = [np.delete(p[~gone], b, axis=axis) for p, gone, b in zip(parts, outer, blocks, strict=True)]
        weight = np.concatenate(parts)
    return weight


@pytest.mark.parametrize("name", graphs.ALL)
@pytest.mark.parametrize("seed", [None, 5, 6])
def test_the_reported_indices_are_all_that_is_gone(name: str, seed: int | None, traced: dict) -> None:
    dependencies = traced[name]
    removed = planned(dependencies, 0.5) if seed is None else at_random(dependencies, seed)
    found, pruned = removal(dependencies, removed), rewrite(dependencies, removed)
    floats = {n: w for n, w in dependencies.model.weights.items() if w.dtype.kind == "f"}
    assert all(gone for axes in found.indices.values() for gone in axes.values())
    assert floats.keys() == {n for n, w in pruned.weights.items() if w.dtype.kind == "f"}
    for tensor, weight in floats.items():
        left = pruned.weights[tensor]
        np.testing.assert_array_equal(left, deleted(weight, tensor, found))
        assert (left.shape != weight.shape) == (tensor in {*found.indices, *found.per_block})


def test_groups_that_lost_different_positions_are_reported_by_block(traced: dict) -> None:
    dependencies = traced["grouped"]
    rows = next(g for g in dependencies.groups if g.name == "reduce.w").rows[0].members
    removed = np.array([rows[0, 0], rows[1, 3], rows[2, 1]])
    found, pruned = removal(dependencies, removed), rewrite(dependencies, removed)
    units = next(g for g in dependencies.groups if g.name == "reduce.w").units.tolist()
    gone = sorted(units.index(u) for u in removed)
    assert found.indices["reduce.w"] == {0: gone} and found.indices["reduce.b"] == {0: gone}
    assert found.per_block["groups.w"] == {1: [[p - 4 * i] for i, p in enumerate(gone)]}
    np.testing.assert_array_equal(
        pruned.weights["groups.w"], deleted(dependencies.model.weights["groups.w"], "groups.w", found)
    )


@pytest.mark.parametrize("name", graphs.ALL)
def test_masked_keeps_what_take_keeps_and_zeroes_the_rest(name: str, traced: dict) -> None:
    dependencies = traced[name]
    keep = dependencies.keep(planned(dependencies, 0.5))
    for tensor, weight in dependencies.model.weights.items():
        axes = dependencies.labels.get(tensor, ())  # a vector of sizes has no labels, and loses nothing
        blank = zero(weight, axes, keep)
        np.testing.assert_array_equal(take(blank, axes, keep), take(weight, axes, keep))
        assert np.count_nonzero(blank) == np.count_nonzero(take(weight, axes, keep))
        assert not np.shares_memory(blank, weight)


# --- what the file says ----------------------------------------------------------------------------------------------


def sizes(info: onnx.ValueInfoProto) -> list[int]:
    return [d.dim_value for d in info.type.tensor_type.shape.dim]


@pytest.mark.parametrize("name", graphs.ALL)
def test_recorded_shapes_are_true(name: str, traced: dict) -> None:
    pruned = rewrite(traced[name], planned(traced[name], 0.5))
    check(pruned.full(), name)
    onnx.shape_inference.infer_shapes(pruned.full(), strict_mode=True, check_type=True, data_prop=True)
    infos = [*pruned.proto.graph.value_info, *pruned.proto.graph.output]
    assert len(infos) > len(pruned.proto.graph.node) / 2
    real = capture(pruned, random_feeds(pruned, batch=3), [i.name for i in infos])
    for info in infos:
        assert sizes(info)[1:] == list(real[info.name].shape[1:]), info.name
        assert info.type.tensor_type.shape.dim[0].HasField("dim_param")  # the batch stays open
        assert list(pruned.shapes[info.name][1:]) == sizes(info)[1:]


@pytest.mark.parametrize("name", graphs.ALL)
def test_inference_from_nothing_finds_the_recorded_shapes(name: str, traced: dict) -> None:
    pruned = rewrite(traced[name], planned(traced[name], 0.5)).full()
    recorded = {i.name: sizes(i) for i in pruned.graph.value_info}
    del pruned.graph.value_info[:]
    inferred = {i.name: sizes(i) for i in with_shapes(pruned).graph.value_info}
    assert all(inferred[n] == s for n, s in recorded.items() if n in inferred)


@pytest.mark.parametrize("name", graphs.ALL)
def test_the_dense_model_is_not_touched(name: str) -> None:
    dependencies = graphs.traced(graphs.ALL[name]())
    model = dependencies.model
    before, held = model.full().SerializeToString(deterministic=True), dict(model.weights)
    removed = planned(dependencies, 0.5)
    rewrite(dependencies, removed), masked(dependencies, removed), removal(dependencies, removed)
    assert model.full().SerializeToString(deterministic=True) == before
    assert all(model.weights[n] is w for n, w in held.items())


def test_everything_around_the_graph_stays() -> None:
    proto = with_shapes(graphs.residual())
    proto.producer_name, proto.doc_string, proto.graph.doc_string = "maker", "model", "graph"
    helper.set_model_props(proto, {"classes": "a,b"})
    proto.graph.node[0].doc_string = "the stem"
    for tensor in proto.graph.initializer:
        tensor.doc_string = f"about {tensor.name}"
        tensor.metadata_props.add(key="from", value=tensor.name)
    proto.graph.initializer.append(helper.make_tensor("text", TensorProto.STRING, [1], [b"kept"]))
    proto.graph.node.append(helper.make_node("Identity", ["text"], ["words"]))
    proto.graph.output.append(helper.make_tensor_value_info("words", TensorProto.STRING, [1]))
    dependencies = graphs.traced(proto)
    after = rewrite(dependencies, planned(dependencies, 0.5)).full()
    for part in ("ir_version", "producer_name", "doc_string", "opset_import", "metadata_props"):
        assert getattr(after, part) == getattr(proto, part)
    assert list(after.graph.input) == list(proto.graph.input) and list(after.graph.output) == list(proto.graph.output)
    assert list(after.graph.node) == list(proto.graph.node) and after.graph.doc_string == "graph"
    told = {t.name: (t.doc_string, [p.value for p in t.metadata_props]) for t in after.graph.initializer}
    assert all(told[t.name] == (f"about {t.name}", [t.name]) for t in proto.graph.initializer if t.name != "text")
    assert after.graph.initializer[-1].string_data == [b"kept"]


def listed(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model as files before IR version 4 have it: every initializer is an input too."""
    proto.ir_version = 3
    proto.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in proto.graph.initializer
    )
    return proto


@pytest.mark.parametrize("name", graphs.ALL)
def test_in_old_files_new_constants_are_nodes(name: str, tmp_path: object) -> None:
    dependencies = graphs.traced(listed(graphs.ALL[name]()))
    removed = planned(dependencies, 0.5)
    pruned = rewrite(dependencies, removed)
    same_outputs(masked(dependencies, removed), pruned)
    inputs = {i.name: sizes(i) for i in pruned.proto.graph.input}
    assert {t.name for t in pruned.proto.graph.initializer} <= inputs.keys()
    assert all(list(t.dims) == inputs[t.name] for t in pruned.proto.graph.initializer)
    save(pruned, tmp_path / "old.onnx")
    same_outputs(masked(dependencies, removed), load(tmp_path / "old.onnx"))


# --- what cannot be done ---------------------------------------------------------------------------------------------


def units_of(dependencies: Dependencies, name: str) -> Array:
    return next(g.units for g in dependencies.groups if g.name == name)


@pytest.mark.parametrize("name", graphs.ALL)
def test_a_group_cannot_go_whole(name: str, traced: dict) -> None:
    for group in traced[name].groups:
        with pytest.raises(PlanError, match=r"would leave an axis empty; keep at least|keep 0 to 0") as caught:
            rewrite(traced[name], group.units)
        assert group.name in str(caught.value)


@pytest.mark.parametrize("lost", [[0], [0, 4], [0, 1, 4, 8]])
def test_rows_cannot_become_uneven(lost: Sequence[int], traced: dict) -> None:
    dependencies = traced["grouped"]
    filters = next(s.ids for s in dependencies.sources if s.tensor == "groups.w")
    removed = dependencies.unit[filters[list(lost)]]
    with pytest.raises(PlanError, match=r"the rows of 'reduce\.w' would keep \d to \d channels; leave equally many"):
        rewrite(dependencies, removed)


def test_a_pruned_model_can_be_pruned_again() -> None:
    """Half-known sizes are corrected by inserted nodes, whose names must stay free for the next time."""
    body = """
        <ir_version: 8, opset_import: ["" : 17]> g (float[N,3,S,S] x) => (float[N,5] y)
        <int64[1] zero = {0}, int64[1] rest = {8, }> {
            a = Conv(x, w)
            b = GlobalAveragePool(a)
            shape = Shape(x)
            batch = Gather(shape, zero)
            sizes = Concat <axis = 0> (batch, rest)
            c = Reshape(b, sizes)
            y = MatMul(c, v)
        }"""
    proto = onnx.parser.parse_model(body.replace("{8, }", "{8}"))
    rng = np.random.default_rng(0)
    for name, shape in (("w", (8, 3, 1, 1)), ("v", (8, 5))):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    model = graphs.loaded(proto)
    for left in (7, 6, 5):
        dependencies = trace(normalise(model))
        model = rewrite(dependencies, dependencies.groups[0].units[:1])
        onnx.checker.check_model(model.full())
        assert model.weights["w"].shape[0] == left
        feeds = {"x": rng.normal(size=(2, 3, 4, 4)).astype(np.float32)}
        assert run(model, feeds)["y"].shape == (2, 5)


def shuffled(sizes: Sequence[object]) -> onnx.ModelProto:
    """A channel shuffle whose targets are computed from the shape of what it shuffles, as exporters write it."""
    net = graphs.Net(5)
    h = net.op("Relu", [net.conv("x", "c1", 16, 3, 3)], "r1")
    shape = net.op("Shape", [h], "shape")
    one = [net.op("Gather", [shape, net.constant(f"i{k}", [k])], f"d{k}") for k in range(4)]
    half = net.op("Div", [one[1], net.constant("two", [2])], "half")
    wide = net.op("Concat", [one[0], net.constant("rows", [2]), half, *one[2:]], "wide", axis=0)
    turned = net.op("Transpose", [net.op("Reshape", [h, wide], "cut")], "turned", perm=[0, 2, 1, 3, 4])
    flat = net.op("Reshape", [turned, net.op("Concat", one, "flat", axis=0)], "merged")
    net.op("Identity", [net.conv(flat, "c2", 5, 16)], "y")
    return net.model(["N", 3, *sizes], ["N", 5, *sizes])


@pytest.mark.parametrize(("sizes", "shapes"), [((4, 4), 0), (("H", 4), 1), (("H", "W"), 1), ((None, None), 1)])
def test_computed_targets_are_stored_where_the_sizes_are_known(sizes: Sequence[object], shapes: int) -> None:
    """One size may be open, and be 0; else the arithmetic stays."""
    dependencies = graphs.traced(shuffled(sizes))
    pruned = rewrite(dependencies, planned(dependencies, 0.5))
    assert sum(node.op_type == "Shape" for node in pruned.proto.graph.node) == shapes
    assert cost(dependencies, dependencies.keep(planned(dependencies, 0.5))).params < cost(dependencies).params
    for batch in (0, 1, 2, 3):
        height, width = (batch + 4 if not isinstance(size, int) else size for size in sizes)
        feeds = {"x": np.random.default_rng(batch).normal(size=(batch, 3, height, width)).astype(np.float32)}
        one, two = (run(session(m), feeds)["y"] for m in (masked(dependencies, planned(dependencies, 0.5)), pruned))
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


def test_a_target_that_the_user_feeds_is_not_stored() -> None:
    """However a hint in the file calls the sizes that it gives: what is fed decides, so the surgery is refused."""
    net = graphs.Net(6)
    h = net.op("Relu", [net.conv("x", "c1", 16, 3)], "r1")
    net.op("Identity", [net.conv(net.op("Reshape", [h, "t"], "cut"), "c2", 5, 16)], "y")
    proto = net.model(["N", 3, 4, 4], [None] * 4)
    proto.graph.input.append(helper.make_tensor_value_info("t", TensorProto.INT64, ["L"]))
    proto.graph.value_info.append(helper.make_tensor_value_info("cut", TensorProto.FLOAT, ["N", 16, 8, 2]))
    dependencies = graphs.traced(proto)
    (group,) = dependencies.groups
    with pytest.raises(PlanError, match="the number of sizes in 't' is unknown"):
        rewrite(dependencies, group.units[:4])
