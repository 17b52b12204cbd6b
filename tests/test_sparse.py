"""Laws of sparse tensors: they compute the same when written densely; those too large for that stay and freeze."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, SparseTensorProto, TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.importance import score
from onnxprune.model import from_proto
from onnxprune.nested import sparse
from onnxprune.normalise import normalise
from onnxprune.plan import Limits, Target, plan
from onnxprune.rewrite import rewrite
from onnxprune.runtime import random_feeds, run
from onnxprune.trace import trace
from onnxprune.verify import verify

SHAPE = (6, 7)


def stored(name: str, *, flat: bool) -> SparseTensorProto:
    """A matrix with every third entry filled, indexed by one number or by two."""
    at = np.arange(0, 42, 3)
    values = numpy_helper.from_array(np.random.default_rng(0).normal(size=at.size).astype(np.float32), name)
    index = at if flat else np.stack(np.unravel_index(at, SHAPE), axis=1)
    return helper.make_sparse_tensor(values, numpy_helper.from_array(index.astype(np.int64), ""), list(SHAPE))


def model(*, flat: bool = True, constant: bool = False) -> ModelProto:
    """x of width 7 -> Gemm with sparse weights -> Relu -> Gemm -> y."""
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["a"], transB=1),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Gemm", ["r", "v"], ["y"], transB=1),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", d]) for n, d in (("x", 7), ("y", 5))]
    dense = numpy_helper.from_array(np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32), "v")
    if constant:
        nodes.insert(0, helper.make_node("Constant", [], ["w"], sparse_value=stored("", flat=flat)))
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [dense])
    if not constant:
        graph.sparse_initializer.append(stored("w", flat=flat))
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("flat", [False, True])
def test_they_are_written_densely_and_pruned(flat: bool, constant: bool) -> None:
    subject = from_proto(model(flat=flat, constant=constant))
    dependencies = trace(normalise(subject))
    assert {s.tensor for g in dependencies.groups for s in g.sources} == {"w"}
    removed = plan(dependencies, score(dependencies, "l1"), Target(ratio=0.5), Limits()).removed(dependencies)
    small = rewrite(dependencies, removed)
    assert verify(dependencies, removed, small, [random_feeds(subject, batch=2)], original=subject).ok
    assert small.weights["w"].shape == (3, 7) and not small.proto.graph.sparse_initializer


def test_the_dense_form_holds_the_same_numbers() -> None:
    subject = from_proto(model())
    matrix = np.zeros(42, np.float32)
    matrix[::3] = np.random.default_rng(0).normal(size=14).astype(np.float32)
    np.testing.assert_array_equal(normalise(subject).weights["w"], matrix.reshape(SHAPE))


def test_large_ones_stay_and_freeze(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "DENSE_LIMIT", 41)
    subject = from_proto(model())
    found = trace(normalise(subject))
    assert not found.groups and "not a dense initializer" in [f.reason for f in found.why("w")]
    feeds = random_feeds(subject, batch=2)
    np.testing.assert_array_equal(run(found.model, feeds)["y"], run(subject, feeds)["y"])


def test_indices_out_of_bounds_are_refused() -> None:
    proto = model()
    proto.graph.sparse_initializer[0].dims[0] = 5
    with pytest.raises(ModelError, match="out of range"):
        normalise(from_proto(proto))
