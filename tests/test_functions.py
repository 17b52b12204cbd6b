"""Laws of functions: a model that brings its own operators is pruned like one written out, or keeps the call."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import FunctionProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnxprune.importance import score
from onnxprune.model import from_proto
from onnxprune.normalise import normalise
from onnxprune.plan import Limits, Target, plan
from onnxprune.rewrite import rewrite
from onnxprune.runtime import random_feeds, run
from onnxprune.trace import trace
from onnxprune.verify import verify
from tests import graphs

OPSET = 17
LIBRARY = "pkg.layers"


def weight(name: str, *shape: int) -> TensorProto:
    return numpy_helper.from_array(np.random.default_rng(len(name)).normal(size=shape).astype(np.float32), name)


def function(
    name: str, nodes: Sequence[NodeProto], *, domain: str = LIBRARY, opset: int = OPSET, alpha: bool = False
) -> FunctionProto:
    """A function of x, w and b."""
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(LIBRARY, 1)]
    return helper.make_function(
        domain, name, ["x", "w", "b"], ["y"], nodes, imports, attributes=["alpha"] if alpha else []
    )


def nested(opset: int = OPSET) -> list[FunctionProto]:
    """Block = Linear, a constant inside, and an activation whose attribute comes from the call."""
    scale = numpy_helper.from_array(np.linspace(0.5, 1.5, 6).astype(np.float32), "k")
    act = helper.make_node("LeakyRelu", ["m"], ["y"])
    act.attribute.add(name="alpha", ref_attr_name="alpha", type=onnx.AttributeProto.FLOAT)
    block = [
        helper.make_node("Linear", ["x", "w", "b"], ["h"], domain=LIBRARY),
        helper.make_node("Constant", [], ["k"], value=scale),
        helper.make_node("Mul", ["h", "k"], ["m"]),
        act,
    ]
    linear = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="gemm", doc_string="of a function", transB=1)]
    return [function("Linear", linear, opset=opset), function("Block", block, opset=opset, alpha=True)]


def calls(functions: Sequence[FunctionProto], domain: str = LIBRARY) -> ModelProto:
    """x of width 7 -> Block -> Block -> Gemm -> y of width 5."""
    nodes = [
        helper.make_node("Block", ["x", "w1", "b1"], ["a"], name="one", domain=domain, alpha=0.2),
        helper.make_node("Block", ["a", "w2", "b2"], ["b"], name="two", domain=domain, alpha=0.1),
        helper.make_node("Gemm", ["b", "w3"], ["y"], transB=1),
    ]
    sizes = {"w1": (6, 7), "b1": (6,), "w2": (6, 6), "b2": (6,), "w3": (5, 6)}
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", d]) for n, d in (("x", 7), ("y", 5))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight(n, *s) for n, s in sizes.items()])
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid(domain, 1)]
    return helper.make_model(graph, functions=functions, opset_imports=imports, ir_version=9)


@pytest.mark.parametrize("opset", [OPSET, 18])
def test_calls_are_replaced_and_pruned(opset: int) -> None:
    subject = graphs.loaded(calls(nested(opset)))
    dependencies = trace(normalise(subject))
    assert [n.op_type for n in dependencies.model.proto.graph.node] == ["Gemm", "Mul", "LeakyRelu"] * 2 + ["Gemm"]
    assert not dependencies.model.proto.functions
    assert {s.tensor for g in dependencies.groups for s in g.sources} == {"w1", "w2"}
    removed = plan(dependencies, score(dependencies, "l1"), Target(ratio=0.5), Limits()).removed(dependencies)
    small = rewrite(dependencies, removed)
    feeds = random_feeds(subject, batch=3)
    assert verify(dependencies, removed, small, [feeds], original=subject).ok
    assert small.weights["w1"].shape == (3, 7) and small.proto.graph.node[0].doc_string == "of a function"


def test_the_loaded_model_keeps_its_functions() -> None:
    subject = graphs.loaded(calls(nested()))
    normalise(subject)
    assert [f.name for f in subject.proto.functions] == ["Linear", "Block"]


def test_an_operator_set_that_only_a_function_uses_is_declared() -> None:
    fused = [
        helper.make_node("FusedMatMul", ["x", "w"], ["h"], domain="com.microsoft", transB=1),
        helper.make_node("Add", ["h", "b"], ["y"]),
    ]
    block = function("Block", fused, alpha=True)
    block.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    subject = from_proto(calls([block]))
    after = normalise(subject)
    assert after.opsets["com.microsoft"] == 1
    feeds = random_feeds(subject, batch=2)
    np.testing.assert_array_equal(run(subject, feeds)["y"], run(after, feeds)["y"])


def test_a_runtimes_own_operator_is_not_taken_from_the_function_beside_it() -> None:
    """onnxruntime computes its Gelu, whatever the function of that name says."""
    doubled = [helper.make_node("Add", ["x", "x"], ["y"])]
    gelu = helper.make_function("com.microsoft", "Gelu", ["x"], ["y"], doubled, [helper.make_opsetid("", OPSET)])
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 3]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")], "g", ends[:1], ends[1:])
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    subject = from_proto(helper.make_model(graph, functions=[gelu], opset_imports=imports, ir_version=9))
    after = normalise(subject)
    assert [n.op_type for n in after.proto.graph.node] == ["Gelu"]
    feeds = random_feeds(subject, batch=2)
    np.testing.assert_array_equal(run(subject, feeds)["y"], run(after, feeds)["y"])


def test_a_call_that_cannot_be_replaced_freezes_and_keeps_its_function() -> None:
    """Its function is of the runtime's domain, where the runtime may have an operator of that name."""
    linear = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)]
    subject = from_proto(calls([function("Block", linear, domain="com.microsoft", alpha=True)], "com.microsoft"))
    found = trace(normalise(subject))
    assert not found.groups and [f.name for f in found.model.proto.functions] == ["Block"]
    reason = "no rule for 'com.microsoft.Block', a function of the model that cannot be inlined"
    assert reason in [f.reason for f in found.why("w1")]


def test_calls_that_the_inliner_refuses_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> ModelProto:
        raise RuntimeError("Model has functions with incompatible opset versions.")

    monkeypatch.setattr(onnx.inliner, "inline_selected_functions", refuse)
    proto = graphs.rich()
    assert any(n.op_type == "Twice" for n in normalise(from_proto(proto)).proto.graph.node)
