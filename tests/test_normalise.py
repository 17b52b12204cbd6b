"""Laws of normalisation: the graph computes what it computed, every name is kept, and nothing is left to do twice."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.model import Model, from_proto
from onnxprune.normalise import normalise, sort_nodes
from onnxprune.runtime import random_feeds, run
from tests import graphs

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'


def parsed(text: str, **weights: object) -> onnx.ModelProto:
    """A model from onnx's text form, with initializers."""
    proto = onnx.parser.parse_model(f"{HEAD} {text}")
    rng = np.random.default_rng(0)
    for name, value in weights.items():
        array = rng.normal(size=value).astype(np.float32) if isinstance(value, tuple) else np.asarray(value)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return proto


def legacy_flatten() -> onnx.ModelProto:
    """What older exporters write for x.view(x.size(0), -1): sizes gathered from the input's shape."""
    return parsed(
        """g (float[N, 3, 4, 4] x) => (float[N, 5] y) {
            c = Conv (x, w)
            shape = Shape (c)
            zero = Constant <value_int = 0> ()
            n = Gather (shape, zero)
            axes = Constant <value_ints = [0]> ()
            n1 = Unsqueeze (n, axes)
            rest = Constant <value_ints = [-1]> ()
            sizes = Concat <axis = 0> (n1, rest)
            flat = Reshape (c, sizes)
            y = Gemm <transB = 1> (flat, f)
        }""",
        w=(6, 3, 1, 1),
        f=(5, 96),
    )


def static_resize() -> onnx.ModelProto:
    """Upsampling to twice the size, computed from the shape: all of it static but the batch."""
    return parsed(
        """g (float[N, 3, 4, 4] x) => (float[N, 6, 8, 8] y) {
            c = Conv (x, w)
            shape = Shape (c)
            lead = Slice (shape, zero, two)
            tail = Slice (shape, two, four)
            factor = Constant <value = int64[1] {2}> ()
            doubled = Mul (tail, factor)
            sizes = Concat <axis = 0> (lead, doubled)
            y = Resize <mode = "nearest"> (c, , , sizes)
        }""",
        w=(6, 3, 1, 1),
        zero=np.array([0]),
        two=np.array([2]),
        four=np.array([4]),
    )


def branching() -> onnx.ModelProto:
    """An If whose branches read tensors and weights of the graph around it, and a node nobody reads."""
    return parsed(
        """g (float[N, 4] x, bool flag) => (float[N, 4] y) {
            kept = Relu (x)
            unread = Exp (x)
            offset = Constant <value_floats = [1.0, 2.0, 3.0, 4.0]> ()
            y = If (flag) <
                then_branch = t () => (float[N, 4] a) { a = Add (kept, offset) },
                else_branch = e () => (float[N, 4] b) { twice = Constant <value_float = 2.0> () m = Mul (kept, scale)
                                                        b = Mul (m, twice) }
            >
        }""",
        scale=(4,),
        unused=(3,),
    )


def constant_output() -> onnx.ModelProto:
    """A graph that gives out a constant, a folded size, and one of its inputs' copies."""
    return parsed(
        """g (float[2, 4] x) => (float[2, 4] y, int64[2] size, float[2] c) {
            c = Constant <value_floats = [1.0, 2.0]> ()
            size = Shape (x)
            y = Mul (x, s)
        }""",
        s=(4,),
    )


def of_large_weight() -> onnx.ModelProto:
    """Sizes read from a weight too large to be looked into."""
    return parsed(
        """g (float[N, 64] x) => (float[N, 40] y) {
            shape = Shape (w)
            length = Slice (shape, zero, one)
            t = Tile (b, length)
            m = MatMul (x, w)
            r = Reshape (t, last)
            cut = Slice (r, zero, forty)
            y = Add (m, cut)
        }""",
        w=(64, 40),
        b=(1,),
        zero=np.array([0]),
        one=np.array([1]),
        last=np.array([-1]),
        forty=np.array([40]),
    )


GRAPHS = {
    build.__name__: build for build in (legacy_flatten, static_resize, branching, constant_output, of_large_weight)
} | graphs.ALL


def normal(proto: onnx.ModelProto) -> Model:
    return normalise(graphs.loaded(proto))


def operators(model: Model) -> list[str]:
    return [node.op_type for node in model.proto.graph.node]


@pytest.mark.parametrize("name", GRAPHS)
def test_it_computes_what_it_computed(name: str) -> None:
    model = graphs.loaded(GRAPHS[name]())
    feeds = random_feeds(model, batch=3)
    before, after = run(model, feeds), run(normalise(model), feeds)
    assert before.keys() == after.keys()
    for output in before:
        # Folding replaces nodes by the very values they computed, so not a bit may change.
        np.testing.assert_array_equal(before[output], after[output])


@pytest.mark.parametrize("flag", [False, True])
def test_both_branches_of_an_if_still_find_what_they_capture(flag: bool) -> None:
    model = graphs.loaded(branching())
    feeds = {"x": np.ones((2, 4), np.float32), "flag": np.array(flag)}
    np.testing.assert_array_equal(run(model, feeds)["y"], run(normalise(model), feeds)["y"])
    assert {"scale", "offset"} <= set(normalise(model).weights)


@pytest.mark.parametrize("name", GRAPHS)
def test_twice_is_once(name: str) -> None:
    once = normal(GRAPHS[name]())
    twice = normalise(once)
    assert twice.proto == once.proto and twice.weights.keys() == once.weights.keys()
    assert twice.shapes.items() <= once.shapes.items()  # of tensors that are gone, the shapes may be gone


@pytest.mark.parametrize("name", GRAPHS)
def test_the_argument_stays_as_it_is(name: str) -> None:
    model = graphs.loaded(GRAPHS[name]())
    before, weights = model.proto.SerializeToString(deterministic=True), dict(model.weights)
    normalise(model)
    assert model.proto.SerializeToString(deterministic=True) == before
    assert model.weights == weights  # the same arrays: comparing two different ones would raise


@pytest.mark.parametrize("name", GRAPHS)
def test_names_inputs_and_outputs_stay(name: str) -> None:
    proto = GRAPHS[name]()
    after = normal(proto).proto
    tensors = {t for node in proto.graph.node for t in node.output} | {t.name for t in proto.graph.initializer}
    assert {t for node in after.graph.node for t in node.output} <= tensors
    assert {t.name for t in after.graph.initializer} <= tensors
    assert list(after.graph.input) == list(proto.graph.input)
    assert list(after.graph.output) == list(proto.graph.output)
    assert list(after.opset_import) == list(proto.opset_import) and after.ir_version == proto.ir_version


@pytest.mark.parametrize("name", GRAPHS)
def test_shapes_are_true_and_open_dimensions_stay_open(name: str) -> None:
    model = normal(GRAPHS[name]())
    names = [t for node in model.proto.graph.node for t in node.output if t in model.shapes]
    probe = model.full()
    known = {o.name for o in probe.graph.output}
    probe.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in known)
    open_ = bool(model.inputs[0].type.tensor_type.shape.dim[0].dim_param)
    for batch in (2, 5) if open_ else (2,):
        for tensor, array in run(probe, random_feeds(model, batch=batch)).items():
            assert len(model.shapes[tensor]) == array.ndim, tensor
            pairs = zip(model.shapes[tensor], array.shape, strict=True)
            assert all(d == n for d, n in pairs if isinstance(d, int)), tensor


def test_every_dimension_but_the_batch_is_known() -> None:
    for build in graphs.ALL.values():
        model = normal(build())
        for name, shape in model.shapes.items():
            assert all(isinstance(d, int) for d in shape[1:]), name


def test_constants_become_initializers_named_after_their_output() -> None:
    proto = parsed(
        """g (float[N, 4] x) => (float[N, 4] y) {
            a = Constant <value = float[4] {1.0, 2.0, 3.0, 4.0}> ()
            b = Constant <value_float = 2.5> ()
            c = Constant <value_floats = [4.0, 3.0, 2.0, 1.0]> ()
            d = Add (x, a)  e = Mul (d, b)  y = Add (e, c)
        }"""
    )
    model = normal(proto)
    assert operators(model) == ["Add", "Mul", "Add"]
    assert {n: w.tolist() for n, w in model.weights.items()} == {"a": [1, 2, 3, 4], "b": 2.5, "c": [4, 3, 2, 1]}
    assert {w.dtype for w in model.weights.values()} == {np.dtype(np.float32)}


def test_text_constants_stay_nodes() -> None:
    words = 'g (int64[N] x) => (int64[N] y, string[2] t) { t = Constant <value_strings = ["a", "b"]> () y = Neg (x) }'
    assert operators(normal(parsed(words))) == ["Constant", "Neg"]


def test_arithmetic_on_static_sizes_is_folded_and_on_the_batch_kept() -> None:
    open_, fixed = legacy_flatten(), legacy_flatten()
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    assert {"Shape", "Gather", "Concat"} <= set(operators(normal(open_)))
    assert operators(normal(fixed)) == ["Conv", "Reshape", "Gemm"]
    assert normal(fixed).weights["sizes"].tolist() == [2, -1]


def test_the_static_part_of_half_known_sizes_is_folded() -> None:
    model = normal(static_resize())
    assert model.weights["doubled"].tolist() == [8, 8]
    assert operators(model) == ["Conv", "Shape", "Slice", "Concat", "Resize"]
    assert model.values["sizes"].tolist()[1:] == [6, 8, 8] and model.values["sizes"][0] in (None, "N")
    assert model.shapes["y"][1:] == (6, 8, 8) and model.shapes["y"][0] in (None, "N")


def test_operations_on_weights_are_not_folded() -> None:
    proto = parsed(
        "g (float[N, 8] x) => (float[N, 6] y) { wt = Transpose <perm = [1, 0]> (w) y = MatMul (x, wt) }", w=(6, 8)
    )
    assert operators(normal(proto)) == ["Transpose", "MatMul"]
    proto = parsed(
        "g (float[N, 9] x) => (float[N, 9] y) { twice = Mul (w, two) y = Mul (x, twice) }", w=(9,), two=np.float32(2)
    )
    assert operators(normal(proto)) == ["Mul", "Mul"]


def test_batch_normalization_stays() -> None:
    assert operators(normal(graphs.residual())).count("BatchNormalization") == 6


def test_what_nobody_reads_is_dropped_but_inputs_stay() -> None:
    proto = branching()
    proto.graph.input.append(helper.make_tensor_value_info("spare", TensorProto.FLOAT, (1,)))
    model = normal(proto)
    assert "unread" not in {t for node in model.proto.graph.node for t in node.output}
    assert "unused" not in model.weights and "unused" not in {t.name for t in model.proto.graph.initializer}
    assert [i.name for i in model.proto.graph.input] == ["x", "flag", "spare"]


def test_documentation_and_metadata_of_nodes_stay() -> None:
    proto = graphs.chain()
    proto.graph.node[0].doc_string = "first"
    proto.graph.node[0].metadata_props.add(key="namespace", value="stem")
    proto.graph.node.append(helper.make_node("Relu", ["x"], ["dead"]))
    after = normal(proto).proto.graph
    assert len(after.node) == len(proto.graph.node) - 1
    assert after.node[0] == proto.graph.node[0]


@pytest.mark.parametrize("change", ["cycle", "ghost"])
def test_a_graph_that_cannot_be_ordered_is_refused(change: str) -> None:
    graph = graphs.chain().graph
    graph.node[1].input[0] = graph.node[4].output[0] if change == "cycle" else "ghost"
    with pytest.raises(ModelError, match=r"node 'r1' reads '\w+', which nothing before it produces; .*export it again"):
        sort_nodes(graph, "model")


def test_damaged_constants_are_refused() -> None:
    proto = constant_output()
    tensor = helper.make_tensor("v", TensorProto.FLOAT, [4], [1.0, 2.0, 3.0, 4.0])
    tensor.dims[0] = 5
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["late"], name="k", value=tensor))
    with pytest.raises(ModelError):
        normalise(from_proto(proto))


def test_initializers_of_old_files_stay_inputs() -> None:
    proto = graphs.mlp()
    proto.ir_version = 3
    proto.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in proto.graph.initializer
    )
    model = normal(proto)
    assert [i.name for i in model.inputs] == ["x"]
    feeds = random_feeds(model, batch=2)
    np.testing.assert_array_equal(run(proto, feeds)["y"], run(model, feeds)["y"])  # nothing was changed, so not a bit


STATES = """g (float[3, 2, 5] x) => (float[1, 2, 4] l, float[1, 2, 4] m) {{
    sizes = Constant <value_ints = [2, 2, 4]> ()
    made = ConstantOfShape {} (sizes)
    first, second = Split <axis = 0> (made)
    o, l = GRU <hidden_size = 4> (x, w, r, , , first)
    p, m = GRU <hidden_size = 4> (x, w, r, , , {})
}}"""


@pytest.mark.parametrize(
    ("value", "state", "left"),
    [("", "second", []), ("", "given", ["given"]), ("", "silent", []), ("<value = float[1] {0.5}>", "given", [])],
)
def test_initial_states_of_zero_are_left_out(value: str, state: str, left: list[str]) -> None:
    silent = np.zeros((1, 2, 4), np.float32)
    proto = parsed(STATES.format(value, state), w=(1, 12, 5), r=(1, 12, 4), given=(1, 2, 4), silent=silent)
    found = normalise(graphs.loaded(proto))
    states = [node.input[5] for node in found.proto.graph.node if node.op_type == "GRU"]
    assert states == (["first", "given"] if value else ["", *(left or [""])])
    feeds = random_feeds(found, batch=2)
    for a, b in zip(run(graphs.loaded(proto), feeds).values(), run(found, feeds).values(), strict=True):
        assert np.array_equal(a, b)
