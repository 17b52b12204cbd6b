"""Mutations of what is stored: attributes, weights, sizes, external data."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.fuzzing.draft import HUGE, Draft, Inapplicable, mutation

# --- attributes ------------------------------------------------------------------------------------------------------


def schema_of(d: Draft, node: onnx.NodeProto) -> onnx.defs.OpSchema:
    version = next((o.version for o in d.proto.opset_import if o.domain == node.domain), 1)
    try:
        return onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError as error:
        raise Inapplicable from error


@mutation
def attribute_number(d: Draft) -> None:
    """A stored number becomes absurd."""
    found = [a for n in d.graph.node for a in n.attribute if a.type in (a.INT, a.INTS, a.FLOAT)]
    a = d.pick(found)
    if a.type == a.INT:
        a.i = d.number()
    elif a.type == a.FLOAT:
        a.f = float(d.pick([math.nan, math.inf, -math.inf, 0.0, -1.0, 1e38]))
    elif len(a.ints):
        a.ints[int(d.rng.integers(len(a.ints)))] = d.number()


@mutation
def attribute_length(d: Draft) -> None:
    a = d.pick([a for n in d.graph.node for a in n.attribute if a.type == a.INTS])
    if d.rng.random() < 0.5:
        del a.ints[int(d.rng.integers(len(a.ints) or 1)) :]
    else:
        a.ints.extend([1] * int(d.pick([1, 2, 100])))


@mutation
def attribute_type(d: Draft) -> None:
    """The right name, another type, or a type that says something else than the fields."""
    a = d.pick([a for n in d.graph.node for a in n.attribute])
    if d.rng.random() < 0.5:
        a.type = int(d.pick([0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 14]))  # type: ignore[assignment]
    else:
        a.CopyFrom(helper.make_attribute(a.name, d.pick([3, 0.5, "text", [1, 2], [0.5], ["a", "b"]])))


@mutation
def attribute_dropped(d: Draft) -> None:
    node = d.pick([n for n in d.graph.node if n.attribute])
    del node.attribute[int(d.rng.integers(len(node.attribute)))]


@mutation
def attribute_twice(d: Draft) -> None:
    node = d.pick([n for n in d.graph.node if n.attribute])
    node.attribute.append(d.pick(node.attribute))


@mutation
def attribute_added(d: Draft) -> None:
    """An attribute that the operator knows, with an absurd value."""
    node = d.node()
    known = schema_of(d, node).attributes
    name = d.pick(sorted(known))
    kind = known[name].type.name
    made = {"INT": d.number(), "INTS": [d.number()] * int(d.pick([1, 2, 4])), "FLOAT": math.nan, "STRING": "odd"}
    if kind not in made:
        raise Inapplicable
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, made[kind])])


@mutation
def groups(d: Draft) -> None:
    node = d.node("Conv", "ConvTranspose", "FusedConv")
    kept = [a for a in node.attribute if a.name != "group"]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute("group", int(d.pick([0, -1, 2, 3, 7, 10**9, 2**63 - 1])))])


@mutation
def constant_attribute(d: Draft) -> None:
    """A Constant without a value, with two, or with one of another kind."""
    node = d.insert("Identity")
    node.op_type = "Constant"
    del node.input[:]
    kind = d.pick(["none", "two", "strings", "sparse", "float"])
    chosen = {
        "none": {},
        "two": {"value_int": 3, "value_float": 1.0},
        "strings": {"value_strings": ["a"]},
        "sparse": {"value_string": "b"},
        "float": {"value_floats": [math.nan, 1.0]},
    }[kind]
    node.attribute.extend(helper.make_attribute(k, v) for k, v in chosen.items())


# --- stored tensors --------------------------------------------------------------------------------------------------


@mutation
def stored_dimension(d: Draft) -> None:
    """Dimensions that the data does not fill."""
    dims = d.pick([t for t in d.graph.initializer if t.dims]).dims
    dims[int(d.rng.integers(len(dims)))] = d.number()


@mutation
def stored_rank(d: Draft) -> None:
    """The same data, cut into other dimensions."""
    t = d.tensor()
    size = math.prod(t.dims)
    t.dims[:] = d.pick([[size], [1, size], [size, 1, 1], [1] * 5 + [size], [*t.dims, 1], [*t.dims][::-1]])


@mutation
def no_dimensions(d: Draft) -> None:
    """A tensor without elements: a dimension of 0, and no data."""
    t = d.tensor()
    t.raw_data = b""
    t.dims[:] = d.pick([[0], [0, *t.dims[1:]], [*t.dims[:-1], 0], [0, 0], [0, 2**62], [0, 2**40, 2**40]])


@mutation
def raw_data(d: Draft) -> None:
    t = d.pick([t for t in d.graph.initializer if t.raw_data])
    t.raw_data = d.pick([t.raw_data[:-1], t.raw_data + b"\0", b"", t.raw_data[: len(t.raw_data) // 2], b"\xff" * 3])


@mutation
def data_fields(d: Draft) -> None:
    """Data in the field of another type, or in two."""
    t = d.tensor()
    if d.rng.random() < 0.5:
        t.ClearField("raw_data")
    if d.rng.random() < 0.5:
        t.float_data.extend([1.0] * min(math.prod(t.dims), 5000))
    else:
        t.int64_data.append(1)


@mutation
def data_type(d: Draft) -> None:
    d.tensor().data_type = int(d.pick([*range(27), 99, -1]))


@mutation
def text_weight(d: Draft) -> None:
    t = d.tensor()
    t.ClearField("raw_data")
    t.data_type = TensorProto.STRING
    t.string_data.extend([b"\xff\xfe"] * min(math.prod(t.dims), 5000))


@mutation
def weight_values(d: Draft) -> None:
    """Weights that are no numbers, or all alike."""
    t = d.pick([t for t in d.graph.initializer if t.data_type == TensorProto.FLOAT])
    array = numpy_helper.to_array(t).copy()
    value = d.pick([np.nan, np.inf, -np.inf, 0.0, 1e38, 1e-45])
    if array.size and d.rng.random() < 0.5:
        array.ravel()[int(d.rng.integers(array.size))] = value
    else:
        array[...] = value
    t.CopyFrom(numpy_helper.from_array(array, t.name))


@mutation
def weight_dropped(d: Draft) -> None:
    d.graph.initializer.remove(d.tensor())


@mutation
def segment(d: Draft) -> None:
    t = d.tensor()
    t.segment.begin, t.segment.end = d.number(), d.number()


@mutation
def stored_size(d: Draft) -> None:
    """An entry of a Reshape target, of pads, axes or slice bounds becomes absurd."""
    t = d.integers()
    array = numpy_helper.to_array(t).copy()
    array.ravel()[int(d.rng.integers(array.size))] = d.number()
    t.CopyFrom(numpy_helper.from_array(array, t.name))


@mutation
def stored_sizes(d: Draft) -> None:
    """More or fewer sizes, or sizes in another form."""
    t = d.integers()
    array = numpy_helper.to_array(t)
    forms = [array.ravel()[:-1], np.append(array, 1), array.reshape(1, -1), array.astype(np.int32), array[..., None]]
    t.CopyFrom(numpy_helper.from_array(d.pick([*forms, array.astype(np.float32), np.array(1)]), t.name))


# --- inserted operators whose results would fill the memory ----------------------------------------------------------


def sizes(d: Draft, rank: int) -> list[int]:
    """Sizes with something absurd among them."""
    found = [int(d.pick([1, 1, 2, 8, -1, 0])) for _ in range(rank)]
    found[int(d.rng.integers(rank))] = int(d.pick(HUGE))
    return found


@mutation
def huge_reshape(d: Draft) -> None:
    d.insert("Reshape", [d.constant(sizes(d, int(d.rng.integers(1, 6))))])


@mutation
def huge_expand(d: Draft) -> None:
    d.insert("Expand", [d.constant(sizes(d, int(d.rng.integers(1, 6))))])


@mutation
def huge_tile(d: Draft) -> None:
    d.insert("Tile", [d.constant([abs(s) for s in sizes(d, int(d.pick([2, 4])))])])


@mutation
def huge_constant(d: Draft) -> None:
    """ConstantOfShape: a few bytes that stand for terabytes."""
    node = d.insert("Add", ["fuzz_huge"])
    shape = d.constant([abs(s) or 1 for s in sizes(d, int(d.rng.integers(1, 5)))])
    value = numpy_helper.from_array(np.ones(1, d.pick([np.float32, np.int64, np.float16])))
    made = helper.make_node("ConstantOfShape", [shape], ["fuzz_huge"], name="fuzz_huge", value=value)
    d.graph.node.insert(list(d.graph.node).index(node), made)


@mutation
def huge_weight(d: Draft) -> None:
    """A weight left out of the file, of absurd size."""
    node, i = d.reader()
    shape = d.constant([abs(s) or 1 for s in sizes(d, int(d.pick([1, 2, 4])))])
    node.input[i] = "fuzz_left_out"
    d.graph.node.insert(0, helper.make_node("ConstantOfShape", [shape], ["fuzz_left_out"], name="fuzz_left_out"))


@mutation
def huge_range(d: Draft) -> None:
    ends = [d.constant(v) for v in (0, d.pick(HUGE), d.pick([1, 1, 0, -1, 2**62]))]
    node = d.insert("Add", ["fuzz_range_f"])
    at = list(d.graph.node).index(node)
    d.graph.node.insert(at, helper.make_node("Cast", ["fuzz_range"], ["fuzz_range_f"], to=1))
    d.graph.node.insert(at, helper.make_node("Range", ends, ["fuzz_range"], name="fuzz_range"))


@mutation
def huge_pad(d: Draft) -> None:
    d.insert("Pad", [d.constant(sizes(d, int(d.pick([4, 8, 8]))))], mode=d.pick(["constant", "reflect", "edge"]))


@mutation
def huge_resize(d: Draft) -> None:
    d.insert("Resize", ["", d.constant([1, 1, float(d.pick(HUGE)), d.pick([1, 0, -1, np.inf, np.nan])], np.float32)])


@mutation
def huge_split(d: Draft) -> None:
    node = d.insert("Split", num_outputs=int(d.pick([0, -1, 2, 10**9, 2**62])), axis=int(d.pick([0, 1, 9, -9])))
    node.output.append("fuzz_split")


@mutation
def huge_gather(d: Draft) -> None:
    d.insert("Gather", [d.constant([0, d.number()])], axis=int(d.pick([0, 1, -1, 7, -7])))


@mutation
def odd_slice(d: Draft) -> None:
    d.insert("Slice", [d.constant([d.number()]) for _ in range(4)])


@mutation
def odd_layout(d: Draft) -> None:
    """Operators that move axes, with axes that are not there."""
    kind = d.pick(["Transpose", "Concat", "Squeeze", "Unsqueeze", "Flatten", "DepthToSpace", "SpaceToDepth", "Softmax"])
    n, more = d.number(), [d.constant([d.number(), d.number()])] if kind in ("Squeeze", "Unsqueeze") else []
    made = {"Transpose": {"perm": [n, 0, 0, 1]}, "DepthToSpace": {"blocksize": n}, "SpaceToDepth": {"blocksize": n}}
    d.insert(kind, more, **made.get(kind, {} if more else {"axis": n}))


@mutation
def odd_reader(d: Draft) -> None:
    """Operators that build large tensors out of small numbers."""
    n = d.number()
    kind = d.pick(["OneHot", "EyeLike", "TopK", "CumSum", "GatherND", "Trilu", "NonZero", "Where", "ScatterND"])
    extra = {"OneHot": [d.constant(n), d.constant([0, 1], np.float32)], "TopK": [d.constant([n])]}
    tail = {"CumSum": [d.constant(n)], "GatherND": [d.constant([[n]])], "Trilu": [d.constant(n)]}
    d.insert(kind, (extra | tail).get(kind, []))


# --- external data ---------------------------------------------------------------------------------------------------


@mutation
def external_data(d: Draft) -> None:
    """A weight that says its data lies in a file, with something wrong about the file, the offset or the length."""
    t = d.pick([t for t in d.graph.initializer if t.raw_data])
    length = len(t.raw_data)
    d.files["weights.bin"] = t.raw_data
    t.ClearField("raw_data")
    t.data_location = TensorProto.EXTERNAL
    place = d.pick(["weights.bin", "weights.bin", "weights.bin", "../x", "/etc/passwd", "/dev/zero", "", ".", "n\0l"])
    at = d.pick(["0", "0", "1", str(length), "-1", str(2**63), "here", "", str(2**70)])
    span = d.pick([str(length), str(length - 1), "0", "-1", str(2**40), str(2**64), "1e3"])
    for key, value in (("location", place), ("offset", at), ("length", span)):
        if d.rng.random() < 0.9:
            entry = t.external_data.add()
            entry.key, entry.value = key, value


@mutation
def external_dimension(d: Draft) -> None:
    """External data of a weight whose dimensions ask for more than the file holds."""
    t = d.pick([t for t in d.graph.initializer if t.raw_data and t.dims])
    d.files["weights.bin"] = t.raw_data
    t.ClearField("raw_data")
    t.data_location = TensorProto.EXTERNAL
    t.dims[0] = d.number()
    entry = t.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
