"""Laws of verification: right surgery passes, every planted bug is caught and its first tensor named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import ml_dtypes
import numpy as np
import onnx
import pytest

from onnxprune.data import Feeds
from onnxprune.errors import ModelError, VerificationError
from onnxprune.importance import score
from onnxprune.model import Array, Model
from onnxprune.plan import Target, plan
from onnxprune.rewrite import masked, rewrite
from onnxprune.runtime import random_feeds, run
from onnxprune.trace import Dependencies
from onnxprune.verify import ABSOLUTE, RELATIVE, compare, difference, tolerance, verify
from tests import graphs


class Surgery:
    """A traced model, a removal, and the pruned model it gives."""

    def __init__(self, proto: onnx.ModelProto, ratio: float = 0.5) -> None:
        self.original = graphs.loaded(proto)
        self.dependencies: Dependencies = graphs.traced(proto)
        self.removed = plan(self.dependencies, score(self.dependencies), Target(ratio=ratio)).removed(self.dependencies)
        self.pruned = rewrite(self.dependencies, self.removed)
        self.dense = self.dependencies.model.weights
        self.keep = self.dependencies.keep(self.removed)

    def batches(self) -> list[Feeds]:
        return [random_feeds(self.original, batch=2, seed=seed) for seed in (0, 1)]

    def verify(self, **weights: Array) -> object:
        """Verify the pruned model with some weights replaced."""
        pruned = replace(self.pruned, weights={**self.pruned.weights, **weights})
        return verify(self.dependencies, self.removed, pruned, self.batches(), original=self.original)


@pytest.fixture(scope="module")
def surgery() -> Surgery:
    return Surgery(graphs.chain())


@pytest.mark.parametrize("name", graphs.ALL)
def test_right_surgery_passes(name: str) -> None:
    found = Surgery(graphs.ALL[name]()).verify()
    assert found.ok and found.kind == "exact" and found.batches == 2
    # An order of magnitude more than the largest difference seen over exported networks, a tenth of what is allowed.
    assert found.max_rel < 1e-5 and found.tolerance == RELATIVE["float32"]


@pytest.mark.parametrize(("build", "dtype"), [(graphs.chain, np.float16), (graphs.mlp, np.float64)])
def test_right_surgery_passes_in_other_precisions(build: Callable[..., onnx.ModelProto], dtype: type) -> None:
    found = Surgery(build(dtype=dtype)).verify()
    assert found.ok and found.tolerance == RELATIVE[np.dtype(dtype).name]


def test_the_result_is_plain_numbers(surgery: Surgery) -> None:
    found = surgery.verify().to_dict()
    assert found["ok"] is True and set(found) >= {"ok", "kind", "max_abs", "max_rel", "tolerance", "batches"}
    assert all(isinstance(v, (bool, int, float, str)) for v in found.values())


# --- planted bugs ----------------------------------------------------------------------------------------------------


def swapped(weight: Array, axis: int = 0) -> Array:
    """Two channels in each other's place."""
    order = np.arange(weight.shape[axis])
    order[[0, 1]] = order[[1, 0]]
    return np.take(weight, order, axis)


def one_off(surgery: Surgery, tensor: str, axis: int) -> Array:
    """A slice in which one kept index gave way to a neighbour that should have gone."""
    ids = [labels.ids for labels in surgery.dependencies.labels[tensor][:2]]
    picks = [np.flatnonzero(surgery.keep[i]) for i in ids]
    wrong = next(i for i in range(1, 99) if surgery.keep[ids[axis][i]] != surgery.keep[ids[axis][i - 1]])
    pair = {wrong, wrong - 1}
    picks[axis] = np.array(sorted({*picks[axis].tolist()} ^ pair))
    return surgery.dense[tensor][np.ix_(*picks)]


def first_ones(surgery: Surgery, tensor: str) -> Array:
    """The right number of channels, but simply the first ones."""
    return surgery.dense[tensor][: len(surgery.pruned.weights[tensor])]


def scaled(weight: Array, factor: float) -> Array:
    out = weight.copy()
    out[0] *= factor
    return out


Mutant = Callable[[Surgery], dict[str, Array]]
MUTANTS: dict[str, tuple[Mutant, str]] = {
    "two filters swapped": (lambda s: {"c1.w": swapped(s.pruned.weights["c1.w"])}, "c1"),
    "two inputs swapped": (lambda s: {"c2.w": swapped(s.pruned.weights["c2.w"], 1)}, "c2"),
    "filters off by one": (lambda s: {"c2.w": one_off(s, "c2.w", 0)}, "c2"),
    "inputs off by one": (lambda s: {"c3.w": one_off(s, "c3.w", 1)}, "c3"),
    "normalisation not sliced": (lambda s: {"bn2.scale": first_ones(s, "bn2.scale")}, "bn2"),
    "running mean not sliced": (lambda s: {"bn2.mean": first_ones(s, "bn2.mean")}, "bn2"),
    "variance not sliced": (lambda s: {"bn2.var": first_ones(s, "bn2.var")}, "bn2"),
    "bias not sliced": (lambda s: {"c1.b": first_ones(s, "c1.b")}, "c1"),
    "bias off by one": (lambda s: {"c3.b": one_off(s, "c3.b", 0)}, "c3"),
    "bias forgotten": (lambda s: {"c2.b": np.zeros_like(s.pruned.weights["c2.b"])}, "c2"),
    "fully connected layer off by one": (lambda s: {"fc.w": one_off(s, "fc.w", 1)}, "y"),
    "one filter 5% too large": (lambda s: {"c2.w": scaled(s.pruned.weights["c2.w"], 1.05)}, "c2"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_caught_and_named(name: str, surgery: Surgery) -> None:
    mutate, tensor = MUTANTS[name]
    with pytest.raises(VerificationError, match=rf"differs from the masked one.*first at tensor '{tensor}', written"):
        surgery.verify(**mutate(surgery))


@pytest.mark.parametrize("name", [n for n in graphs.ALL if n != "mlp"])
def test_swapped_filters_are_caught_in_every_network(name: str) -> None:
    surgery = Surgery(graphs.ALL[name](), ratio=0.3)
    tensor = surgery.dependencies.groups[-1].name
    with pytest.raises(VerificationError, match=f"first at tensor '{tensor.removesuffix('.w')}'"):
        surgery.verify(**{tensor: swapped(surgery.pruned.weights[tensor])})


def test_a_wrong_attribute_is_caught() -> None:
    surgery = Surgery(graphs.chain())
    proto = onnx.ModelProto()
    proto.CopyFrom(surgery.pruned.proto)
    (relu,) = [n for n in proto.graph.node if n.op_type == "LeakyRelu"]
    relu.attribute[0].f = 0.2
    surgery.pruned = replace(surgery.pruned, proto=proto)
    with pytest.raises(VerificationError, match="first at tensor 'r3', written by LeakyRelu 'r3'"):
        surgery.verify()


@pytest.mark.parametrize("order", [1, -1])
def test_a_bug_that_only_some_batches_show_is_named_too(order: int, surgery: Surgery) -> None:
    """On a black image the first layer's weights make no difference."""
    black = {"x": np.zeros((1, 3, 8, 8), np.float32)}
    wrong = {"c1.w": swapped(surgery.pruned.weights["c1.w"])}
    pruned = replace(surgery.pruned, weights={**surgery.pruned.weights, **wrong})
    check = (surgery.dependencies, surgery.removed, pruned)
    assert verify(*check, [black]).ok
    with pytest.raises(VerificationError, match="first at tensor 'c1'"):
        verify(*check, [black, *surgery.batches()][::order])


def test_no_inputs_prove_nothing(surgery: Surgery) -> None:
    with pytest.raises(VerificationError, match="no inputs"):
        verify(surgery.dependencies, surgery.removed, surgery.pruned, [])


def test_the_original_must_agree_with_its_normal_form(surgery: Surgery) -> None:
    surgery_of_another = Surgery(graphs.chain())
    surgery_of_another.original = graphs.loaded(graphs.chain(seed=8))
    with pytest.raises(VerificationError, match=r"the normalised model differs from the original at output 'y' by \d"):
        surgery_of_another.verify()


def altered(surgery: Surgery, change: Callable[[onnx.GraphProto], object]) -> Surgery:
    proto = onnx.ModelProto()
    proto.CopyFrom(surgery.pruned.proto)
    change(proto.graph)
    other = Surgery(graphs.chain())
    other.pruned = replace(surgery.pruned, proto=proto)
    return other


def test_recorded_shapes_that_are_wrong_are_caught(surgery: Surgery) -> None:
    info = onnx.helper.make_tensor_value_info("c2", 1, ("N", 16, 4, 4))
    with pytest.raises(VerificationError, match="shape inference fails on the pruned model"):
        altered(surgery, lambda g: g.value_info.append(info)).verify()


def test_a_graph_that_breaks_the_standard_is_caught(surgery: Surgery) -> None:
    with pytest.raises((ModelError, VerificationError), match="the pruned model"):
        altered(surgery, lambda g: g.node[1].input.__setitem__(0, "nothing")).verify()


# --- outputs that are not numbers ------------------------------------------------------------------------------------


def ending_in(kind: str) -> onnx.ModelProto:
    """A chain whose outputs go through one more operator."""
    net = graphs.Net()
    h = net.op("Relu", [net.conv("x", "c1", 8, 3, 3)], "r1")
    net.op(kind, [net.conv(h, "c2", 4, 8)], "y", **({"axis": 1, "keepdims": 1} if kind == "ArgMax" else {}))
    proto = net.model(["N", 3, 4, 4], ["N", 4 if kind != "ArgMax" else 1, 4, 4])
    if kind == "ArgMax":
        proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    return proto


def test_outputs_that_are_not_numbers_prove_nothing() -> None:
    proto = ending_in("Sqrt")
    for tensor in proto.graph.initializer:
        if tensor.name == "c2.b":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(4, -1e6, np.float32), "c2.b"))
    with pytest.raises(VerificationError):
        Surgery(proto).verify()


def test_some_that_are_not_numbers_in_the_same_places_are_no_obstacle() -> None:
    assert Surgery(ending_in("Sqrt")).verify().ok  # the root of negative numbers


def test_integers_must_be_equal() -> None:
    surgery = Surgery(ending_in("ArgMax"))
    assert surgery.verify().ok
    with pytest.raises(VerificationError):
        surgery.verify(**{"c2.b": surgery.pruned.weights["c2.b"][::-1].copy()})


# --- the measure -----------------------------------------------------------------------------------------------------

X = np.array([1.0, -2.0, 4.0], np.float32)
NAN, INF = np.array([1, np.nan, 4], np.float32), np.array([1, np.inf, 4], np.float32)


@pytest.mark.parametrize(
    ("x", "y", "same"),
    [
        (X, X, True),
        (X, X * np.float32(1 + 1e-6), True),
        (X, X * np.float32(1.01), False),
        (X, X[:2], False),
        (X, X[None], False),
        (NAN, NAN, True),
        (X, NAN, False),
        (NAN, X, False),
        (INF, INF, True),
        (INF, -INF, False),
        (INF, NAN, False),
        (NAN * np.float32("nan"), NAN * np.float32("nan"), False),
        (X[:0], X[:0], True),
        (np.array([1, 2]), np.array([1, 2]), True),
        (np.array([1, 2]), np.array([1, 3]), False),
        (np.array([True]), np.array([False]), False),
        (np.array(["a"]), np.array(["a"]), True),
        (np.zeros(3, np.float32), np.full(3, 1e-7, np.float32), True),
        (np.zeros(3, np.float32), np.full(3, 1e-5, np.float32), False),
    ],
)
def test_difference(x: Array, y: Array, same: bool) -> None:
    absolute, relative, agreed = difference(x, y, RELATIVE["float32"])
    assert agreed is same
    assert absolute >= 0 and relative >= 0


def test_the_difference_is_measured_against_the_largest_output() -> None:
    """One wrong entry in a tensor of small and large ones counts by the large ones; 0.01 is added to their size."""
    absolute, relative, _ = difference(np.array([100.0, 0.0]), np.array([100.0, 1.0]), 1.0)
    assert (absolute, relative) == (1.0, 1 / (100 + ABSOLUTE))


def models() -> Iterator[tuple[list[Array], str]]:
    """Weights, and the type whose tolerance they get."""
    for dtype in (np.float64, np.float32, np.float16, ml_dtypes.bfloat16):
        yield [np.zeros((2, 2), dtype)], np.dtype(dtype).name
    yield [np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float16)], "float16"
    yield [np.zeros((2, 2), np.float64), np.zeros(2, np.float16)], "float64"  # a bias is no reason to be lenient
    yield [np.zeros((2, 2), np.int8)], "float32"
    yield [], "float32"


@pytest.mark.parametrize(("weights", "kind"), list(models()))
def test_the_tolerance_is_that_of_the_least_precise_weights(weights: list[Array], kind: str) -> None:
    assert tolerance(Model(onnx.ModelProto(), dict(enumerate(weights)))) == RELATIVE[kind]


def test_tolerances_grow_with_the_rounding_of_the_type() -> None:
    eps = {k: float(ml_dtypes.finfo(ml_dtypes.bfloat16 if k == "bfloat16" else k).eps) for k in RELATIVE}
    order = sorted(RELATIVE, key=eps.__getitem__)
    assert [RELATIVE[k] for k in order] == sorted(RELATIVE.values())
    assert all(RELATIVE[k] > 10 * eps[k] for k in RELATIVE)  # a network adds many terms and has many layers


def test_comparing_a_model_with_itself_finds_no_difference(surgery: Surgery) -> None:
    found = compare(surgery.original, surgery.original, surgery.batches())
    assert found.ok and found.max_abs == found.max_rel == 0  # the same kernels on the same numbers, on one thread


def test_channels_divided_by_their_own_norm_are_cut_off_at_their_readers() -> None:
    body = """
        <ir_version: 8, opset_import: ["" : 17]> g (float[N,3,4,4] x) => (float[N,5,4,4] y) {
            a = Conv(x, w)
            square = Mul(a, a)
            power = Conv(square, gamma)
            norm = Sqrt(power)
            b = Div(a, norm)
            y = Conv(b, v)
        }"""
    proto = onnx.parser.parse_model(body)
    rng = np.random.default_rng(0)
    shapes = {"w": (6, 3, 1, 1), "gamma": (6, 6, 1, 1), "v": (5, 6, 1, 1)}
    weights = {n: np.abs(rng.normal(size=s)).astype(np.float32) for n, s in shapes.items()}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in weights.items())
    dependencies = graphs.traced(proto)
    removed = dependencies.groups[0].units[:2]
    feeds = {"x": np.abs(rng.normal(size=(2, 3, 4, 4))).astype(np.float32)}
    assert not np.isfinite(run(masked(dependencies, removed), feeds)["y"]).all()  # 0 / 0
    assert verify(dependencies, removed, rewrite(dependencies, removed), [feeds]).ok


def test_wrong_surgery_shows_in_the_layers_where_the_output_hides_it() -> None:
    body = """
        <ir_version: 8, opset_import: ["" : 17]> g (float[N,3,4,4] x) => (float[N,5,4,4] y) <float tiny = {1e-6}> {
            a = Conv(x, w)
            b = Conv(a, v)
            c = Mul(b, tiny)
            y = Sigmoid(c)
        }"""
    proto = onnx.parser.parse_model(body)
    rng = np.random.default_rng(0)
    for name, shape in (("w", (6, 3, 1, 1)), ("v", (5, 6, 1, 1))):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    dependencies = graphs.traced(proto)
    removed = dependencies.groups[0].units[:2]
    pruned = rewrite(dependencies, removed)
    feeds = {"x": rng.normal(size=(2, 3, 4, 4)).astype(np.float32)}
    assert verify(dependencies, removed, pruned, [feeds]).ok
    wrong = np.array(pruned.weights["w"])
    wrong[0] = wrong[1]  # one filter off
    broken = replace(pruned, weights={**pruned.weights, "w": wrong})
    assert compare(pruned, broken, [feeds]).ok  # the outputs do not tell
    with pytest.raises(VerificationError, match="first at tensor 'a'"):
        verify(dependencies, removed, broken, [feeds])
