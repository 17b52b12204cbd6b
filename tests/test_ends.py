"""Laws of a graph's ends: inputs and outputs keep their names, order and number, whatever they are.

An initializer that is listed as an input may be given by the caller. It is pruned like any other, and its declared
dimensions say what the caller has to give from then on: older exporters list every weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from onnxprune.errors import UnprunableError
from onnxprune.importance import score
from onnxprune.model import Model, from_proto
from onnxprune.normalise import normalise
from onnxprune.plan import Limits, Target, plan
from onnxprune.rewrite import rewrite
from onnxprune.runtime import random_feeds, run
from onnxprune.trace import trace
from onnxprune.verify import verify

make = helper.make_node
SIZES = {"w": (6, 7), "v": (5, 6), "w2": (6, 7), "v2": (5, 6), "q": (3,)}
TWO = [
    make("Gemm", ["x", "w"], ["a"], transB=1),
    make("Relu", ["a"], ["r"]),
    make("Gemm", ["r", "v"], ["y"], transB=1),
]
SECOND = [
    make("Gemm", ["x2", "w2"], ["b"], transB=1),
    make("Add", ["b", "a"], ["c"]),
    make("Gemm", ["c", "v2"], ["z"], transB=1),
]
OPTIONAL = [
    make("Gemm", ["x", "w", ""], ["a"], transB=1),
    make("Clip", ["a", "", "limit"], ["r"]),
    make("Dropout", ["r"], ["d", ""]),
    make("Gemm", ["d", "v", ""], ["y"], transB=1),
]


def info(name: str, *dims: object) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)


X, Y = info("x", "N", 7), info("y", "N", 5)


def model(
    nodes: Sequence[NodeProto], inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto], *names: str
) -> Model:
    rng = np.random.default_rng(0)
    tensors = [numpy_helper.from_array(rng.normal(size=SIZES[n]).astype(np.float32), n) for n in names]
    tensors.append(numpy_helper.from_array(np.float32(1), "limit"))
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return from_proto(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]))


MODELS: dict[str, Callable[[], Model]] = {
    "weights that may be overridden": lambda: model(TWO, [X, info("w", 6, 7), info("v", 5, 6)], [Y], "w", "v"),
    "dimensions with names": lambda: model(TWO, [X, info("w", "out", "in")], [Y], "w", "v"),
    "an unread weight that is listed": lambda: model(TWO, [X, info("q", 3)], [Y], "w", "v", "q"),
    "an input given out": lambda: model(TWO, [X], [Y, X], "w", "v"),
    "an output twice": lambda: model(TWO, [X], [Y, Y], "w", "v"),
    "an output read inside": lambda: model([*TWO, make("Neg", ["y"], ["z"])], [X], [info("z", "N", 5), Y], "w", "v"),
    "several of each, one unread": lambda: model(
        [*TWO, *SECOND], [X, info("unread", 3), info("x2", "N", 7)], [info("z", "N", 5), Y], "w", "v", "w2", "v2"
    ),
    "optional ones left out": lambda: model(OPTIONAL, [X], [Y], "w", "v"),
}


@pytest.mark.parametrize("name", MODELS)
def test_ends_stay(name: str) -> None:
    subject = MODELS[name]()
    dependencies = trace(normalise(subject))
    removed = plan(dependencies, score(dependencies, "l1"), Target(ratio=0.5), Limits()).removed(dependencies)
    small = rewrite(dependencies, removed)
    assert verify(dependencies, removed, small, [random_feeds(subject, batch=2)], original=subject).ok
    onnx.checker.check_model(small.full(), full_check=True)
    for side in ("input", "output"):
        before, after = (getattr(m.proto.graph, side) for m in (subject, small))
        assert [i.name for i in before] == [i.name for i in after]
    assert small.weights["w"].shape == (3, 7) and small.weights["v"].shape == (5, 3)


def test_what_overrides_a_pruned_weight_has_its_size() -> None:
    subject = MODELS["weights that may be overridden"]()
    dependencies = trace(normalise(subject))
    removed = plan(dependencies, score(dependencies, "l1"), Target(ratio=0.5), Limits()).removed(dependencies)
    small = rewrite(dependencies, removed)
    declared = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in small.proto.graph.input}
    assert (declared["w"], declared["v"]) == ([3, 7], [5, 3])
    given = {"x": np.ones((2, 7), np.float32), "w": np.ones((3, 7), np.float32), "v": np.ones((5, 3), np.float32)}
    np.testing.assert_allclose(run(small, given)["y"], 21)


def test_a_weight_that_is_given_out_stays_whole() -> None:
    subject = model(TWO, [X], [Y, info("w", 6, 7)], "w", "v")
    found = trace(normalise(subject))
    assert not found.groups and "the model's output" in [f.reason for f in found.why("w")]
    with pytest.raises(UnprunableError, match="the model's output"):
        plan(found, score(found, "l1"), Target(ratio=0.5), Limits())
