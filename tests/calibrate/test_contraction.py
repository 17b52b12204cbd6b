"""Law of contractions: at every site, what onnxruntime computes is inputs x matrix + bias."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxprune.calibrate import Contraction, contraction_of
from onnxprune.model import from_proto
from onnxprune.runtime import run

EXACT = 1e-5  # float32 sums of at most some hundred products


def layer(kind: str, x: np.ndarray, w: np.ndarray, **attributes: object) -> tuple[Contraction, np.ndarray]:
    """A node as a contraction, and what onnxruntime computes."""
    ends = [helper.make_tensor_value_info("x", 1, x.shape), helper.make_tensor_value_info("y", 1, [None] * x.ndim)]
    node = helper.make_node(kind, ["x", "w"], ["y"], **attributes)
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [numpy_helper.from_array(w, "w")])
    model = from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    found = contraction_of(model.proto.graph.node[0], model)
    assert isinstance(found, Contraction)
    return found, run(model, {"x": x})["y"]


def check(found: Contraction, x: np.ndarray, y: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    for share in (1.0, 0.3):
        sites = found.sites(y.shape, share, rng)
        inputs, wanted = found.inputs(x, sites), found.outputs(y, sites)
        mine = np.einsum("sgk,gkm->sgm", inputs, found.matrix).reshape(len(inputs), -1)
        assert wanted.shape == mine.shape and np.allclose(mine, wanted, atol=EXACT, rtol=EXACT)
    assert np.array_equal(found.tensor(found.matrix), found.weight)
    assert found.shape == found.matrix.shape and found.channels == y.shape[found.axis]


RNG = np.random.default_rng(0)
GROUPS, STRIDES, DILATIONS, PADS = (1, 2, 4), ([1, 1], [2, 3]), ([1, 1], [2, 1]), ([0, 0, 0, 0], [1, 2, 0, 1])
EVERY = list(itertools.product(GROUPS, STRIDES, DILATIONS, PADS))


def values(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("g", "s", "d", "p"), EVERY)
def test_convolutions(g: int, s: list[int], d: list[int], p: list[int]) -> None:
    x = values(3, 4, 9, 8)
    check(*swap(layer("Conv", x, values(8, 4 // g, 3, 2), group=g, strides=s, dilations=d, pads=p), x))


@pytest.mark.parametrize(("g", "s", "d", "p"), EVERY)
def test_transposed_convolutions(g: int, s: list[int], d: list[int], p: list[int]) -> None:
    x = values(2, 4, 5, 6)
    for more in [[0, 0], [1, 0]][: max(s)]:  # output_padding stays below the stride
        attributes = {"group": g, "strides": s, "dilations": d, "pads": p, "output_padding": more}
        check(*swap(layer("ConvTranspose", x, values(4, 8 // g, 3, 2), **attributes), x))


def swap(found: tuple[Contraction, np.ndarray], x: np.ndarray) -> tuple[Contraction, np.ndarray, np.ndarray]:
    return found[0], x, found[1]


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
def test_padding_that_the_runtime_works_out(kind: str, auto: str, stride: int) -> None:
    x = values(2, 4, 7, 8)
    check(*swap(layer(kind, x, values(4, 4, 3, 2), auto_pad=auto, strides=[stride] * 2), x))


@pytest.mark.parametrize("dims", [1, 3])
@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
def test_any_number_of_spatial_axes(kind: str, dims: int) -> None:
    x = values(2, 4, *[5] * dims)
    check(*swap(layer(kind, x, values(4, 4, *[3] * dims), pads=[1] * 2 * dims), x))


@pytest.mark.parametrize(("a", "b"), list(itertools.product((0, 1), repeat=2)))
def test_matrix_products(a: int, b: int) -> None:
    x, w = values(*((6, 5) if a else (5, 6))), values(*((7, 6) if b else (6, 7)))
    check(*swap(layer("Gemm", x, w, transA=a, transB=b, alpha=0.5), x))
    batch = values(2, 3, 6)
    check(*swap(layer("MatMul", batch, values(6, 7)), batch))


def test_what_is_no_stored_linear_layer_says_why() -> None:
    net = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N,3] x, float[3,3] v) => (float[N,3] y) { a = Relu(x) b = MatMul(a, v) y = Add(a, b) }
    """)
    model = from_proto(net)
    assert "no linear" in str(contraction_of(net.graph.node[0], model))
    assert "not stored" in str(contraction_of(net.graph.node[1], model))


def test_a_given_output_shape_and_a_vector_are_left_alone() -> None:
    x, w = values(1, 4, 5, 5), values(4, 4, 3, 3)
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], output_shape=[12, 12], strides=[2, 2])
    ends = [helper.make_tensor_value_info("x", 1, x.shape), helper.make_tensor_value_info("y", 1, [None] * 4)]
    model = from_proto(
        helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:], [numpy_helper.from_array(w, "w")]))
    )
    assert "output shape" in str(contraction_of(node, model))
    vector = replace(model, shapes={"x": (4,)}, weights={"w": values(4, 3)})
    assert "vector" in str(contraction_of(helper.make_node("MatMul", ["x", "w"], ["y"]), vector))
