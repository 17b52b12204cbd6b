"""Laws of gradients: first and second order by hand, and an error that says which array does not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.errors import DataError
from onnxprune.importance import Evidence, load_gradients, score
from onnxprune.importance.norms import filters
from tests import graphs
from tests.importance.evidence import gradients


def pair(dtype: type = np.float32) -> onnx.ModelProto:
    """Two filters of two weights each."""
    net = graphs.Net(dtype=np.dtype(dtype))
    net.weights["a.weight"] = np.array([[1, 2], [3, -1]], dtype)
    net.op("MatMul", [net.op("Gemm", ["x", "a.weight"], "h", transB=1), net.weight("b.weight", 2, 3)], "y")
    return net.model(["N", 2], ["N", 3])


ONE = np.array([[2, -1], [1, 1]], np.float32)
MORE = np.stack([ONE, np.array([[1, 1], [0, 2]], np.float32)])


def test_taylor_by_hand() -> None:
    """Sums of gradient x weight: 2 - 2 = 0 and 3 - 1 = 2; of the second sample 1 + 2 = 3 and -2."""
    dependencies = graphs.traced(pair())
    assert score(dependencies, "taylor", Evidence(gradients={"a.weight": ONE})).values.tolist() == [0, 4]
    found = score(dependencies, "taylor", Evidence(gradients={"a.weight": MORE}))
    assert found.values.tolist() == [4.5, 4] and found.comparable


@pytest.mark.parametrize("times", [2e-4, 3e4])
def test_taylor_multiplies_halves_without_loss(times: float) -> None:
    """Products that halves round, or that are above the greatest of them."""
    dependencies = graphs.traced(pair(np.float16))
    gradient = (ONE * times).astype(np.float16)
    found = score(dependencies, "taylor", Evidence(gradients={"a.weight": gradient})).values
    sums = (gradient.astype(np.float64) * [[1, 2], [3, -1]]).sum(axis=1)
    assert found.tolist() == (sums**2).tolist()


def test_hessian_by_hand() -> None:
    """Mean squares: 2.5, 1, 0.5, 2.5. Half of 2.5 x 1 + 1 x 4 is 3.25; half of 0.5 x 9 + 2.5 x 1 is 3.5."""
    dependencies = graphs.traced(pair())
    found = score(dependencies, "hessian", Evidence(gradients={"a.weight": MORE}))
    assert found.values.tolist() == [3.25, 3.5] and found.additive and found.comparable


def test_a_units_filters_are_summed_before_they_are_squared() -> None:
    dependencies = graphs.traced(graphs.residual())
    evidence = gradients(dependencies, count=3)
    group = next(g for g in dependencies.groups if {s.tensor for s in g.sources} == {"b2.w", "bs.w"})
    sums = 0.0
    for name in ("b2.w", "bs.w"):
        sums = sums + (evidence.gradients[name] * dependencies.model.weights[name]).sum(
            axis=(2, 3, 4), dtype=np.float64
        )
    wanted = np.square(sums).mean(axis=0)
    # Products are float32, as gradients and weights are.
    np.testing.assert_allclose(score(dependencies, "taylor", evidence).values[group.units], wanted, rtol=1e-4)


def test_filters_of_a_grouped_transposed_convolution_are_found() -> None:
    net = graphs.Net()
    h = net.op("Relu", [net.conv("x", "before", 6, 3)], "r")
    h = net.op("ConvTranspose", [h, net.weight("t.w", 6, 4, 2, 2)], "t", group=2)
    net.head(h, 8)
    dependencies = graphs.traced(net.model(["N", 3, 4, 4], ["N", 5]))
    source = next(s for s in dependencies.sources if s.tensor == "t.w" and s.ids.size == 8)
    given = {n: np.ones((1, *w.shape), np.float32) for n, w in dependencies.model.weights.items()}
    found = score(dependencies, "hessian", Evidence(gradients=given)).filters[source]
    np.testing.assert_allclose(found, np.square(filters(dependencies, source), dtype=np.float64).sum(axis=1) / 2)


@pytest.mark.parametrize("name", graphs.ALL)
@pytest.mark.parametrize("criterion", ["taylor", "hessian"])
def test_every_unit_has_a_finite_score(name: str, criterion: str) -> None:
    dependencies = graphs.traced(graphs.ALL[name]())
    one, other = (score(dependencies, criterion, gradients(dependencies)).values for _ in range(2))
    assert np.isfinite(one).all() and (one > 0).all() and np.array_equal(one, other)


BAD: dict[str, tuple[str, dict[str, np.ndarray], str]] = {
    "another name": ("taylor", {"a.weights": ONE, "c": ONE}, r"no gradient for 'a\.weight' \(near it: 'a\.weights'\)"),
    "another shape": (
        "taylor",
        {"a.weight": np.ones((4, 2, 3))},
        r"has shape \(4, 2, 3\) \(as 'b\.weight' has\), .*2\)",
    ),
    "no samples": ("taylor", {"a.weight": MORE[:0]}, r"has shape \(0, 2, 2\)"),
    "integers": ("taylor", {"a.weight": ONE.astype(np.int64)}, "is int64, not real"),
    "not finite": ("taylor", {"a.weight": ONE * np.float32(np.nan)}, "holds NaN or infinity"),
    "no axis of samples": (
        "hessian",
        {"a.weight": ONE},
        "Hessian's diagonal is not available; stack .*criterion taylor",
    ),
    "nothing": ("taylor", {}, "needs gradients of the loss; give them with --gradients"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_named(case: str) -> None:
    criterion, given, message = BAD[case]
    with pytest.raises(DataError, match=message):
        score(graphs.traced(pair()), criterion, Evidence(gradients=given))


def test_all_gradients_are_of_the_same_samples() -> None:
    dependencies = graphs.traced(graphs.chain())
    given = dict(gradients(dependencies, 4).gradients)
    given["c2.w"] = given["c2.w"][:3]
    with pytest.raises(DataError, match=r"differ in their number of samples: 'c1\.w' and 'c2\.w'"):
        score(dependencies, "taylor", Evidence(gradients=given))


def constants(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with Constant nodes for weights."""
    nodes = [onnx.helper.make_node("Constant", [], [t.name], value=t) for t in proto.graph.initializer]
    rest = list(proto.graph.node)
    del proto.graph.initializer[:], proto.graph.node[:]
    proto.graph.node.extend([*nodes, *rest])
    return proto


def shared(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Two depthwise layers of one small weight, which an Identity hands to the second under its own name."""
    net = graphs.Net()
    h = net.conv("x", "c1", 6, 3)
    net.weights["d1.w"] = np.ones((6, 1, 1, 1), np.float32)
    h = net.op("Relu", [net.op("Conv", [h, "d1.w"], "d1", group=6)], "r1")
    h = net.op("Relu", [net.conv(h, "c2", 6, 6)], "r2")
    net.head(net.op("Conv", [h, net.op("Identity", ["d1.w"], "d2.w")], "d2", group=6), 6)
    return net.model(["N", 3, 4, 4], ["N", 5])


@pytest.mark.parametrize("form", [constants, shared])
def test_gradients_go_by_the_names_of_the_file(form: Callable[[onnx.ModelProto], onnx.ModelProto]) -> None:
    dependencies = graphs.traced(form(graphs.chain()))
    model = dependencies.model
    given = {n: np.ones((2, *w.shape), np.float32) for n, w in model.weights.items() if n not in model.copies}
    one = score(dependencies, "taylor", Evidence(gradients=given)).values
    assert np.isfinite(one).all() and (form is not shared or "d2.w" in model.copies)
    own = given | {copy: 2 * given[name] for copy, name in model.copies.items() if name in given}
    other = score(dependencies, "taylor", Evidence(gradients=own)).values
    changed = {g.name for g in dependencies.groups if not np.allclose(one[g.units], other[g.units])}
    assert changed == ({"c2.w"} if form is shared else set())  # each layer's own gradient is taken where there is one


def test_an_archive_reads_what_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "g.npz"
    np.savez(path, **{"a.weight": MORE, "other": np.array(["text"])})
    held = load_gradients(path)
    assert sorted(held) == ["a.weight", "other"] and len(held) == 2 and "b" not in held
    assert np.array_equal(held["a.weight"], MORE)
    assert score(graphs.traced(pair()), "taylor", Evidence(gradients=held)).values.tolist() == [4.5, 4]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04damaged", None])
def test_an_archive_that_is_none_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "g.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"g\.npz"):
        load_gradients(path)


def test_an_empty_archive_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "g.npz")
    with pytest.raises(DataError, match="holds no arrays"):
        load_gradients(tmp_path / "g.npz")
