"""A stated shape or value holds for every input: half-known sizes carry symbols, and nothing is guessed."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from onnxprune.model import Model, Shape
from onnxprune.shapes.partial import stretched
from onnxprune.shapes.values import quotient, slice_range
from tests.rules.cases import CASES, Case, Weight


def model(body: str, signature: str = "x[N,6,4,4] -> y[N,5]", opset: int = 17, **weights: Weight) -> Model:
    return Case("made here", signature, body, weights, opset=opset).model()


def shape(body: str, signature: str = "x[N,6,4,4] -> y[N,5]", **weights: Weight) -> Shape:
    """The shape of `b`, which the body must write; y is written after it."""
    return model(body + " y = Identity(b)", signature, **weights).shapes["b"]


def unnamed(size: object) -> bool:
    """Whether a dimension is one that nothing is known of."""
    return isinstance(size, str) and size.startswith("?")


# --- reshape ---------------------------------------------------------------------------------------------------------


def test_zero_copies_and_minus_one_is_what_is_left() -> None:
    assert shape("b = Reshape(x, s)", s=[0, -1]) == ("N", 96)
    assert shape("b = Reshape(x, s)", s=[0, 2, -1, 0]) == ("N", 2, 12, 4)


def test_the_batch_may_be_what_is_left() -> None:
    assert shape("b = Reshape(x, s)", s=[-1, 96]) == ("N", 96)
    assert shape("b = Reshape(x, s)", s=[-1, 24])[1] == 24
    assert shape("b = Reshape(x, s)", s=[-1, 24])[0] != "N"


COMPUTED = "s = Shape(x) n = Gather(s, i) {} m = Unsqueeze(n, j) t = Concat <axis=0> (m, k) b = Reshape(x, t)"
SIZES: dict[str, Weight] = {"i": np.array(0), "j": [0]}


def test_a_size_read_from_the_batch_is_the_batch() -> None:
    assert shape(COMPUTED.format(""), k=[-1], **SIZES) == ("N", 96)
    assert shape(COMPUTED.format(""), k=[96], **SIZES) == ("N", 96)


def test_a_size_computed_from_the_batch_is_not_the_batch() -> None:
    body = COMPUTED.format("").replace("m = Unsqueeze(n", "o = Mul(n, f) m = Unsqueeze(o")
    found = shape(body, k=[-1], f=np.array(2), **SIZES)
    assert unnamed(found[0])
    assert unnamed(found[1])  # 48, but that is not known: the batch might be anything


def test_symbols_on_both_sides_cancel() -> None:
    body = "s = Shape(x) n = Slice(s, i, j) t = Concat <axis=0> (n, k) b = Reshape(x, t)"
    assert shape(body, "x[N,6,H,4] -> y[N,24,H]", i=[0], j=[1], k=[6, -1])[:2] == ("N", 6)
    assert shape(body, "x[N,6,4,4] -> y[N,5]", i=[0], j=[2], k=[-1]) == ("N", 6, 16)


def test_dimensions_nobody_named_are_not_taken_for_each_other() -> None:
    body = "d = Tile(x, r) e = Tile(x, q) s = Shape(d) n = Slice(s, i, j) t = Concat <axis=0> (n, k) b = Reshape(e, t)"
    found = shape(body, r=[2, 1, 1, 1], q=[3, 1, 1, 1], i=[0], j=[1], k=[-1])
    assert found[1] != 96


def test_all_known_reshape() -> None:
    assert shape("b = Reshape(x, s)", "x[2,6,4,4] -> y[2,5]", s=[4, -1]) == (4, 48)


def test_a_scalar_is_known_like_any_other_value() -> None:
    body = (
        "s = Shape(x) n = Gather(s, i) o = Mod(n, f) m = Unsqueeze(o, j) t = Concat <axis=0> (m, k) b = Reshape(x, t)"
    )
    assert shape(body, "x[2,6,4,4] -> y[2,5]", i=np.array(1), j=[0], f=np.array(4), k=[-1]) == (2, 96)


# --- other half-known shapes -----------------------------------------------------------------------------------------


def test_expand_to_computed_sizes() -> None:
    body = "p = GlobalAveragePool(x) s = Shape(x) b = Expand(p, s)"
    assert shape(body) == ("N", 6, 4, 4)


def test_constant_of_shape_of_half_known_sizes() -> None:
    assert shape("s = Shape(x) b = ConstantOfShape(s)") == ("N", 6, 4, 4)


@pytest.mark.parametrize(
    ("a", "b", "out"),
    [(1, 4, 4), (4, 1, 4), (4, 4, 4), ("N", 1, "N"), (1, "N", "N"), ("N", "N", "N"), (4, "N", 4), ("N", 4, 4),
     ("N", "M", None), (None, 4, 4), (4, None, 4), (None, 1, None)],
)  # fmt: skip
def test_broadcast_sizes(a: int | str | None, b: int | str | None, out: int | str | None) -> None:
    assert stretched(a, b) == out


def test_runtime_fused_operators_have_the_shapes_of_the_standard_ones() -> None:
    assert CASES["FusedConv"].model().shapes["b"] == ("N", 6, 4, 4)


@pytest.mark.parametrize("opset", [13, 15, 16])
@pytest.mark.parametrize("name", ["GreaterOrEqual", "LessOrEqual"])
def test_comparisons_have_shapes_at_every_opset(name: str, opset: int) -> None:
    """onnx infers their element type alone before opset 16."""
    compared = model(f"c = {name}(x, x) b = Cast <to = FLOAT> (c) y = Identity(b)", opset=opset)
    assert compared.shapes["c"] == compared.shapes["b"] == ("N", 6, 4, 4)


@pytest.mark.parametrize("name", ["ImageScaler", "Affine", "GroupNormalization"])
def test_operators_onnx_does_not_infer_keep_their_inputs_shape(name: str) -> None:
    assert CASES[name].model().shapes["b"] == ("N", 6, 4, 4)


def test_the_experimental_crop_cuts_its_border() -> None:
    assert CASES["Crop"].model().shapes["b"] == ("N", 6, 3, 3)


def test_an_unknown_operator_leaves_shapes_unknown() -> None:
    found = model("b = com.microsoft.Nothing(x) y = Identity(b)")
    assert "b" not in found.shapes


# --- values ----------------------------------------------------------------------------------------------------------


def value(body: str, signature: str = "x[N,6,4,4] -> y:int64[1]", **weights: Weight) -> list[object]:
    found = model(body + " y = Identity(b)", signature, **weights)
    values: list[object] = found.values["b"].tolist()
    return values


def test_shape_is_known_as_far_as_the_sizes_are() -> None:
    assert value("b = Shape(x)") == ["N", 6, 4, 4]
    assert value("b = Shape <start=1, end=-1> (x)") == [6, 4]


def test_arithmetic_on_known_sizes() -> None:
    part = "s = Shape(x) c = Slice(s, i, j) "
    given: dict[str, Weight] = {"i": [1], "j": [2], "f": [4]}
    assert value(part + "b = Div(c, f)", **given) == [1]
    assert value(part + "b = Mul(c, f)", **given) == [24]
    assert value(part + "b = Sub(f, c)", **given) == [-2]


def test_arithmetic_with_a_symbol_is_unknown() -> None:
    assert value("s = Shape(x) b = Mul(s, f)", f=[2, 2, 2, 2]) == [None, 12, 8, 8]


def test_moving_values_keeps_symbols() -> None:
    body = "s = Shape(x) c = Gather(s, i) d = Unsqueeze(c, j) b = Concat <axis=0> (d, k)"
    assert value(body, i=np.array(0), j=[0], k=[7]) == ["N", 7]
    assert value("s = Shape(x) b = Slice(s, i, j, k, q)", i=[3], j=[-(2**62)], k=[0], q=[-2]) == [4, 6]
    assert value("s = Shape(x) t = Cast <to=6> (s) b = Cast <to=7> (t)") == ["N", 6, 4, 4]


def test_known_arithmetic_is_folded_away() -> None:
    found = model("s = Shape(x) c = Slice(s, i, j) t = Concat <axis=0> (k, c) r = Reshape(x, t) y = ReduceSum(r)",
                  "x[N,6,4,4] -> y[1,1]", i=[1], j=[3], k=[-1])  # fmt: skip
    assert [n.op_type for n in found.proto.graph.node] == ["Reshape", "ReduceSum"]
    assert found.weights["t"].tolist() == [-1, 6, 4]


def test_weights_are_not_folded() -> None:
    found = model("t = Transpose(w) b = Flatten(x) y = MatMul(b, t)", w=(5, 96))
    assert [n.op_type for n in found.proto.graph.node] == ["Transpose", "Flatten", "MatMul"]


def test_computed_booleans_and_ranges() -> None:
    assert value("b = Range(i, j, k)", i=np.array(0), j=np.array(6), k=np.array(2)) == [0, 2, 4]
    found = model("e = Equal(i, j) y = Where(e, p, x)", "x[N,3] -> y[N,3]", i=[1, 2, 3], j=[1, 0, 3], p=(3,))
    assert found.weights["e"].dtype == np.bool_


# --- arithmetic ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "out"),
    [(7, 2, 3), (-7, 2, -3), (7, -2, -3), (-7, -2, 3), (0, 5, 0), (2**62 + 1, 1, 2**62 + 1),
     (-(2**62) - 1, 2, -(2**61))],
)  # fmt: skip
def test_integers_divide_towards_zero(a: int, b: int, out: int) -> None:
    assert quotient(a, b) == out


def test_floats_divide_truly() -> None:
    assert quotient(1.0, 4) == 0.25


def test_backward_slices_reach_the_beginning() -> None:
    assert list(range(5))[slice_range(4, -(2**62), -1)] == [4, 3, 2, 1, 0]
    assert list(range(5))[slice_range(4, -(2**31), -2)] == [4, 2, 0]
    assert list(range(5))[slice_range(-3, 2**62, 1)] == [2, 3, 4]


def test_symbols_are_not_written_as_sizes() -> None:
    found = model("b = Relu(x) y = Flatten(b)", "x[N,6,4,4] -> y[N,96]")
    dims = found.proto.graph.input[0].type.tensor_type.shape.dim
    assert dims[0].dim_param == "N"
    assert found.proto.graph.output[0].type.tensor_type.elem_type == TensorProto.DOUBLE
