"""Laws of bodies: what runs inside an If, Loop or Scan is pruned like the rest, and written where it was or lifted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import VerificationError
from onnxprune.graph import every_graph, every_node, own_names
from onnxprune.importance import Scores
from onnxprune.model import Model
from onnxprune.normalise import normalise
from onnxprune.plan import Limits, Target, plan
from onnxprune.rewrite import removal, rewrite
from onnxprune.runtime import random_feeds, run, session
from onnxprune.trace import Dependencies, trace
from onnxprune.verify import verify
from tests import graphs

Array = np.ndarray
Feeds = dict[str, Array]


def weight(name: str, *shape: int) -> onnx.TensorProto:
    rng = np.random.default_rng(sum(map(ord, name)))
    return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)


def info(name: str, *shape: object, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name: str, value: object) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(value), name))


def model(nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto], *, ir: int = 8, flag: bool = True) -> Model:
    """x of width 7 and a flag -> nodes -> y of width 5."""
    inputs = [info("x", "N", 7), *([info("p", kind=TensorProto.BOOL)] if flag else [])]
    if ir < 4:
        inputs += [info(t.name, *t.dims, kind=t.data_type) for t in tensors]
    graph = helper.make_graph(nodes, "g", inputs, [info("y", "N", 5)], tensors)
    return graphs.loaded(helper.make_model(graph, ir_version=ir, opset_imports=[helper.make_opsetid("", 17)]))


def same_names_in_both_branches(ir: int = 8) -> Model:
    """Both branches call a weight `v`, a constant `k` and a tensor `h` the same."""
    bodies = []
    for width in (4, 6):
        tensors = [weight("v", 6, width), weight("u", width, 5)]
        nodes = [
            constant("k", np.full(width, 0.5, np.float32)),
            helper.make_node("MatMul", ["a", "v"], ["h"]),
            helper.make_node("Mul", ["h", "k"], ["i"]),
            helper.make_node("MatMul", ["i", "u"], ["o"]),
        ]
        body = helper.make_graph(nodes, f"body{width}", [], [info("o", "N", 5)], [] if ir < 4 else tensors)
        if ir < 4:
            body.node.extend(reversed(body.node))
            del body.node[:]
            body.node.extend([constant(t.name, numpy_helper.to_array(t)) for t in tensors] + nodes)
        body.value_info.append(info("h", "N", width))
        bodies.append(body)
    choice = helper.make_node("If", ["p"], ["y"], name="choice", then_branch=bodies[0], else_branch=bodies[1])
    return model([helper.make_node("MatMul", ["x", "w"], ["a"]), choice], [weight("w", 7, 6)], ir=ir)


def unrolled_loop() -> Model:
    """A Loop that turns once, with an If on its counter inside; written out, nothing but products is left."""
    first = helper.make_graph([helper.make_node("MatMul", ["s", "r"], ["t"])], "first", [], [info("t", "N", 6)])
    later = helper.make_graph([helper.make_node("Identity", ["s"], ["e"])], "later", [], [info("e", "N", 6)])
    nodes = [
        constant("zero", np.int64(0)),
        helper.make_node("Equal", ["i", "zero"], ["start"]),
        helper.make_node("If", ["start"], ["n"], then_branch=first, else_branch=later),
        helper.make_node("Identity", ["c"], ["go"]),
    ]
    ends = [info("go", kind=TensorProto.BOOL), info("n", "N", 6), info("n", "N", 6)]
    fed = [info("i", kind=TensorProto.INT64), info("c", kind=TensorProto.BOOL), info("s", "N", 6)]
    body = helper.make_graph(nodes, "turn", fed, ends)
    steps = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Loop", ["m", "", "a"], ["h", "all"], body=body),
        helper.make_node("ReduceSum", ["all", "axes"], ["total"], keepdims=0),
        helper.make_node("Add", ["h", "total"], ["b"]),
        helper.make_node("MatMul", ["b", "v"], ["y"]),
    ]
    numbers = [numpy_helper.from_array(np.int64(1), "m"), numpy_helper.from_array(np.array([0]), "axes")]
    return model(steps, [weight("w", 7, 6), weight("r", 6, 6), weight("v", 6, 5), *numbers], flag=False)


MODELS = {
    "same names": same_names_in_both_branches,
    "same names, IR 3": lambda: same_names_in_both_branches(3),
    "unrolled": unrolled_loop,
}


def feeds(subject: Model, flag: bool) -> Feeds:
    found = {k: np.asarray(v) for k, v in random_feeds(subject, batch=3).items()}
    return found | ({"p": np.array(flag)} if "p" in found else {})


def pruned(subject: Model) -> tuple[Dependencies, Array, Model]:
    dependencies = trace(normalise(subject))
    scores = Scores("random", np.random.default_rng(0).random(dependencies.unit_count))
    removed = plan(dependencies, scores, Target(ratio=0.5), Limits()).removed(dependencies)
    assert removed.size
    return dependencies, removed, rewrite(dependencies, removed)


@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_it_is_normalised_pruned_and_verified(name: str, flag: bool) -> None:
    subject = MODELS[name]()
    given = feeds(subject, flag)
    dependencies, removed, small = pruned(subject)
    found = verify(dependencies, removed, small, [given], original=subject)
    assert found.ok and small.params < normalise(subject).params
    full = small.full()
    onnx.checker.check_model(full, full_check=True)
    for optimise in (False, True):
        outputs = run(session(full.SerializeToString(), optimise=optimise), given)
        np.testing.assert_allclose(outputs["y"], run(small, given)["y"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_every_name_means_one_tensor(name: str) -> None:
    graph = normalise(MODELS[name]()).proto.graph
    names = [n for g in every_graph(graph) for n in own_names(g)]
    assert len(set(names)) == len(names) or graph.input[-1].name in {t.name for t in graph.initializer}
    assert not any(t for g in every_graph(graph) if g is not graph for t in g.initializer)


def test_a_lifted_weight_keeps_its_name_where_that_is_unique() -> None:
    dependencies, removed, _ = pruned(same_names_in_both_branches())
    assert set(dependencies.model.weights) == {"w", "v", "v_1", "u", "u_1", "k", "k_1"}
    assert {s.tensor for s in dependencies.sources} == {"w", "v", "v_1", "u", "u_1"}
    assert {"w", "v", "v_1", "u", "u_1"} <= set(removal(dependencies, removed).indices)


def test_shapes_stated_inside_bodies_are_true_again() -> None:
    _, _, small = pruned(same_names_in_both_branches())
    stated = {i.name: i for g in every_graph(small.proto.graph) for i in g.value_info}
    assert [stated[n].type.tensor_type.shape.dim[1].dim_value for n in ("h", "h_1")] == [3, 2]  # else comes first


def test_what_runs_once_is_written_out() -> None:
    graph = normalise(unrolled_loop()).proto.graph
    assert [n.op_type for n in graph.node] == ["MatMul", "MatMul", "Unsqueeze", "Concat", "ReduceSum", "Add", "MatMul"]
    assert graph.node[1].output[0] == "h"


def test_an_if_whose_condition_is_known_is_its_branch() -> None:
    subject = same_names_in_both_branches()
    graph = subject.proto.graph
    graph.initializer.append(numpy_helper.from_array(np.array(False), "never"))
    graph.node[1].input[0] = "never"
    known = graphs.loaded(subject.full())
    small = normalise(known)
    assert [n.op_type for n in small.proto.graph.node] == ["MatMul", "MatMul", "Mul", "MatMul"]
    assert {"w", "v", "u", "k"} == set(small.weights) and small.proto.graph.node[-1].output[0] == "y"
    given = feeds(known, True)
    np.testing.assert_array_equal(run(known, given)["y"], run(small, given)["y"])


def test_text_in_a_body_stays_there() -> None:
    text = helper.make_node("Constant", [], ["s"], value_strings=["a", "b"])
    body = helper.make_graph([text], "text", [], [info("s", 2, kind=TensorProto.STRING)])
    other = helper.make_graph([helper.make_node("Identity", ["given"], ["q"])], "o", [], [info("q", 2, kind=8)])
    nodes = [helper.make_node("If", ["p"], ["t"], then_branch=body, else_branch=other)]
    graph = helper.make_graph(nodes, "g", [info("p", kind=9), info("given", 2, kind=8)], [info("t", 2, kind=8)])
    proto = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    after = normalise(graphs.loaded(proto))
    assert [n.op_type for n in every_node(after.proto.graph)] == ["Identity", "Constant", "If"]


def test_what_only_a_dead_node_of_a_body_reads_is_dropped() -> None:
    subject = same_names_in_both_branches()
    body = subject.proto.graph.node[1].attribute[0].g
    body.node.insert(1, helper.make_node("MatMul", ["a", "unread"], ["nobody"]))
    subject.proto.graph.initializer.append(weight("unread", 6, 9))
    after = normalise(graphs.loaded(subject.full()))
    assert "unread" not in after.weights and len(list(every_node(after.proto.graph))) == 8


def test_a_body_of_an_unknown_operator_freezes_what_it_reads() -> None:
    inside = helper.make_graph(
        [helper.make_node("MatMul", ["e", "r"], ["f"])], "map", [info("e", "N", 6)], [info("f", "N", 6)]
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("If", ["p"], ["q"], then_branch=seq("a", "one"), else_branch=seq("a", "two")),
        helper.make_node("SequenceMap", ["q"], ["l"], name="map", body=inside),
        helper.make_node("ConcatFromSequence", ["l"], ["b"], axis=0),
        helper.make_node("MatMul", ["b", "v"], ["y"]),
    ]
    found = trace(normalise(model(nodes, [weight("w", 7, 6), weight("r", 6, 6), weight("v", 6, 5)])))
    assert not found.groups
    assert "SequenceMap works on a sequence whose elements are known only while the model runs" in [
        f.reason for f in found.why("r")
    ]


def seq(name: str, graph: str) -> onnx.GraphProto:
    """A branch that gives a list of one tensor."""
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    made = helper.make_node("SequenceConstruct", [name], [f"{graph}_list"])
    return helper.make_graph([made], graph, [], [helper.make_value_info(f"{graph}_list", kind)])


@pytest.mark.parametrize("flag", [False, True])
def test_the_branch_that_the_inputs_do_not_take_is_verified_too(flag: bool) -> None:
    subject = same_names_in_both_branches()
    dependencies, removed, small = pruned(subject)
    wrong = np.array(small.weights["u" if flag else "u_1"])
    wrong[0] += 1
    spoilt = replace(small, weights={**small.weights, "u" if flag else "u_1": wrong})
    with pytest.raises(VerificationError, match="takes the other branch of an If, at output 'y'"):
        verify(dependencies, removed, spoilt, [feeds(subject, flag)])


def test_a_branch_that_does_not_run_is_named() -> None:
    """The other branch reshapes to a batch that is not there."""
    subject = same_names_in_both_branches()
    body = subject.proto.graph.node[1].attribute[0].g
    body.node.insert(len(body.node) - 1, helper.make_node("Reshape", ["i", "nine"], ["j"]))
    body.node[-1].input[0] = "j"
    subject.proto.graph.initializer.append(numpy_helper.from_array(np.array([9, -1]), "nine"))
    subject = graphs.loaded(subject.full())
    dependencies, removed, small = pruned(subject)
    found = verify(dependencies, removed, small, [feeds(subject, flag=True)])
    assert found.ok and found.not_run == "'y' where its condition is False"


def test_a_turn_is_told_in_the_shape_that_the_body_declares() -> None:
    """torch declares a vector of one, from which it makes the bounds of a Slice."""
    nodes = [
        helper.make_node("Add", ["i", "one"], ["j"]),
        helper.make_node("Slice", ["a", "i", "j", "one"], ["part"]),
        helper.make_node("SequenceInsert", ["s", "part"], ["n"]),
        helper.make_node("Identity", ["c"], ["go"]),
    ]
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    ends = [info("go", kind=TensorProto.BOOL), helper.make_value_info("n", kind)]
    fed = [info("i", 1, kind=TensorProto.INT64), info("c", kind=TensorProto.BOOL), helper.make_value_info("s", kind)]
    steps = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("SequenceEmpty", [], ["e"]),
        helper.make_node("Loop", ["m", "", "e"], ["l"], body=helper.make_graph(nodes, "turn", fed, ends)),
        helper.make_node("ConcatFromSequence", ["l"], ["b"], axis=1),
        helper.make_node("MatMul", ["b", "v"], ["y"]),
    ]
    numbers = [numpy_helper.from_array(np.array([n]), name) for n, name in ((4, "m"), (1, "one"))]
    subject = model(steps, [weight("w", 7, 6), weight("v", 4, 5), *numbers], flag=False)
    dependencies, removed, small = pruned(subject)
    assert verify(dependencies, removed, small, [feeds(subject, flag=True)], original=subject).ok
    assert not any(n.op_type == "Loop" for n in small.proto.graph.node)
