"""Mutations of the graph: who reads what, under which name, in which operator set, in how deep a nest."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.fuzzing.draft import Draft, Inapplicable, mutation

KINDS = sorted({schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""})
PLACE = "fuzz_name_to_be_replaced"

# --- nodes and edges -------------------------------------------------------------------------------------------------


@mutation
def cycle(d: Draft) -> None:
    """A node reads what a later one writes."""
    node, i = d.reader()
    later = [o for n in d.graph.node for o in n.output if o]
    node.input[i] = d.pick(later)


@mutation
def self_loop(d: Draft) -> None:
    node, i = d.reader()
    node.input[i] = d.pick(list(node.output))


@mutation
def other_input(d: Draft) -> None:
    """An edge that leads elsewhere: ranks and sizes no longer fit."""
    node, i = d.reader()
    node.input[i] = d.pick(d.names())


@mutation
def ghost_input(d: Draft) -> None:
    node, i = d.reader()
    node.input[i] = d.pick(["ghost", "", " ", "x" * 10_000])


@mutation
def fewer_inputs(d: Draft) -> None:
    node, i = d.reader()
    del node.input[i:]


@mutation
def more_inputs(d: Draft) -> None:
    node, _ = d.reader()
    node.input.extend(d.pick(d.names()) for _ in range(int(d.pick([1, 2, 40]))))


@mutation
def fewer_outputs(d: Draft) -> None:
    node = d.node()
    del node.output[int(d.rng.integers(len(node.output) or 1)) :]


@mutation
def more_outputs(d: Draft) -> None:
    node = d.node()
    node.output.extend(f"more{i}" for i in range(int(d.pick([1, 3, 300]))))


@mutation
def output_renamed(d: Draft) -> None:
    """An output takes the name of something else: written twice, or nameless."""
    node = d.pick([n for n in d.graph.node if n.output])
    node.output[0] = d.pick(["", *d.names()])


@mutation
def node_dropped(d: Draft) -> None:
    d.graph.node.remove(d.node())


@mutation
def node_twice(d: Draft) -> None:
    d.graph.node.append(d.node())


@mutation
def nodes_swapped(d: Draft) -> None:
    nodes = list(d.graph.node)
    d.rng.shuffle(nodes)  # type: ignore[arg-type]
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del d.graph.node[:]
    d.graph.node.extend(copies)


@mutation
def no_nodes(d: Draft) -> None:
    del d.graph.node[:]


@mutation
def other_operator(d: Draft) -> None:
    node = d.node()
    node.op_type = d.pick(KINDS)
    if d.rng.random() < 0.5:
        del node.attribute[:]


@mutation
def other_domain(d: Draft) -> None:
    node = d.node()
    node.domain = d.pick(["com.microsoft", "ai.onnx.ml", "ai.onnx", "ghost", "ai.onnx.preview.training"])
    if d.rng.random() < 0.7 and node.domain not in {o.domain for o in d.proto.opset_import}:
        d.proto.opset_import.append(helper.make_opsetid(node.domain, 1))


@mutation
def no_operator(d: Draft) -> None:
    d.node().op_type = d.pick(["", "conv", "Conv ", "If", "Loop", "Scan", "SequenceMap"])


# --- names -----------------------------------------------------------------------------------------------------------


@mutation
def same_names(d: Draft) -> None:
    """An initializer, input or output takes the name of another tensor."""
    d.pick([*d.graph.initializer, *d.graph.input, *d.graph.output]).name = d.pick(d.names())


@mutation
def no_name(d: Draft) -> None:
    d.pick([*d.graph.initializer, *d.graph.input, *d.graph.output]).name = ""


@mutation
def node_names(d: Draft) -> None:
    name = d.pick(["", d.node().name, "a\nb", "\x00", "\u202e", "é" * 3000])
    for node in d.graph.node:
        node.name = name


@mutation
def bytes_in_a_name(d: Draft) -> None:
    """A name that is not UTF-8, which protobuf refuses to hold."""
    old = d.pick(d.names())
    for node in d.graph.node:
        node.input[:] = [PLACE if n == old else n for n in node.input]
        node.output[:] = [PLACE if n == old else n for n in node.output]
    for item in [*d.graph.initializer, *d.graph.input, *d.graph.output]:
        item.name = PLACE if item.name == old else item.name
    d.patches.append((PLACE.encode(), bytes([0xFF, 0xFE, 0xC0, 0x80, 0xED, 0xA0] * 4)))


@mutation
def bytes_in_an_operator(d: Draft) -> None:
    node = d.node()
    if d.rng.random() < 0.5:
        node.op_type = PLACE
    else:
        node.name = PLACE
    d.patches.append((PLACE.encode(), b"\xc3\x28" * 12))


# --- what the graph declares -----------------------------------------------------------------------------------------


@mutation
def no_outputs(d: Draft) -> None:
    del d.graph.output[:]


@mutation
def no_inputs(d: Draft) -> None:
    del d.graph.input[:]


@mutation
def output_from_nowhere(d: Draft) -> None:
    d.graph.output.append(helper.make_tensor_value_info("ghost", TensorProto.FLOAT, [1]))


@mutation
def output_is_something_else(d: Draft) -> None:
    d.graph.output.add().name = d.pick(d.names())


@mutation
def declared_twice(d: Draft) -> None:
    side = d.pick([d.graph.input, d.graph.output, d.graph.value_info])
    side.append(d.pick(side))


@mutation
def declared_dimension(d: Draft) -> None:
    info = d.pick([*d.graph.input, *d.graph.output, *d.graph.value_info])
    dim = d.pick(info.type.tensor_type.shape.dim)
    if d.rng.random() < 0.2:
        dim.dim_param = d.pick(["", "N", "é", "a" * 5000])
    else:
        dim.dim_value = d.number()


@mutation
def declared_rank(d: Draft) -> None:
    dims = d.pick([*d.graph.input, *d.graph.output]).type.tensor_type.shape.dim
    if d.rng.random() < 0.5:
        del dims[int(d.rng.integers(len(dims) or 1)) :]
    else:
        for _ in range(int(d.pick([1, 3, 100]))):
            dims.add().dim_value = 1


@mutation
def declared_type(d: Draft) -> None:
    info = d.pick([*d.graph.input, *d.graph.output])
    kind = d.pick(["none", "no shape", "element", "sequence", "optional", "map", "sparse"])
    tensor = info.type.tensor_type
    if kind == "none":
        info.ClearField("type")
    elif kind == "no shape":
        tensor.ClearField("shape")
    elif kind == "element":
        tensor.elem_type = int(d.pick([0, 1, 7, 8, 9, 10, 11, 14, 16, 17, 21, 23, 24, 99, -1]))
    elif kind == "sparse":
        info.type.sparse_tensor_type.elem_type = 1
    elif kind == "map":
        info.type.map_type.key_type = 7
    else:
        inner = helper.make_tensor_type_proto(1, [2])
        wrap = helper.make_sequence_type_proto if kind == "sequence" else helper.make_optional_type_proto
        info.type.CopyFrom(wrap(inner))


@mutation
def inner_shape(d: Draft) -> None:
    """A shape, stored for an inner tensor, that is not its own."""
    name = d.pick([o for n in d.graph.node for o in n.output if o])
    dims = [d.number() for _ in range(int(d.rng.integers(6)))]
    d.graph.value_info.append(helper.make_tensor_value_info(name, int(d.pick([1, 7, 11])), dims))


@mutation
def operator_set(d: Draft) -> None:
    d.pick(d.proto.opset_import).version = int(d.pick([*range(1, 28), -1, 0, 2**31, 2**63 - 1]))


@mutation
def operator_sets(d: Draft) -> None:
    choice = d.pick(["none", "twice", "foreign"])
    if choice == "none":
        del d.proto.opset_import[:]
    elif choice == "twice":
        d.proto.opset_import.append(helper.make_opsetid(d.pick(["", "ai.onnx"]), int(d.pick([1, 7, 13, 99]))))
    else:
        d.proto.opset_import[0].domain = "ghost"


@mutation
def format_version(d: Draft) -> None:
    d.proto.ir_version = int(d.pick([*range(14), -1, 2**40, -(2**63)]))


# --- nests -----------------------------------------------------------------------------------------------------------


@mutation
def deep_nest(d: Draft) -> None:
    """If inside If; deeper than protobuf reads, the file is put together by hand."""
    depth, condition = int(d.pick([1, 3, 10, 25, 40, 200, 3000])), d.constant(True, bool)
    if depth > 25:
        d.tail += field(7, field(1, nest(depth, condition)))  # a second graph is merged into the first
        return
    node = d.insert("Identity")
    source, node.op_type = node.input[0], "If"
    node.input[:] = [condition]
    bodies(node, source, condition, depth)


def bodies(node: onnx.NodeProto, source: str, condition: str, depth: int) -> None:
    """Give an If two branches, the first of which holds the next If."""
    for name, deeper in (("then_branch", depth > 1), ("else_branch", False)):
        out = f"{node.output[0]}_{name[0]}{depth}"
        inner = helper.make_node("Identity", [source], [out])
        if deeper:
            inner = helper.make_node("If", [condition], [out])
            bodies(inner, source, condition, depth - 1)
        end = helper.make_tensor_value_info(out, TensorProto.FLOAT, None)
        node.attribute.append(helper.make_attribute(name, helper.make_graph([inner], out, [], [end])))


def nest(depth: int, condition: str) -> bytes:
    """A NodeProto of an If inside an If, `depth` times, serialised from the inside out."""
    data = helper.make_node("Identity", [condition], ["deep"]).SerializeToString()
    for _ in range(depth):
        attribute = field(1, b"then_branch") + field(6, field(1, data)) + b"\xa0\x01\x05"
        data = field(1, condition.encode()) + field(2, b"deep") + field(4, b"If") + field(5, attribute)
    return data


def field(number: int, data: bytes) -> bytes:
    """A length-delimited field of a protobuf message."""
    return bytes([number << 3 | 2]) + varint(len(data)) + data


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


@mutation
def loop_body(d: Draft) -> None:
    """A Loop that runs for ever, or has a body that does not fit."""
    node = d.insert("Identity")
    count, condition = d.constant(d.number()), d.constant(True, bool)
    ends = [helper.make_tensor_value_info(n, k, None) for n, k in (("li", 7), ("lc", 9), ("lx", 1))]
    inner = [helper.make_node("Identity", ["lc"], ["lo"]), helper.make_node("Relu", ["lx"], ["ly"])]
    outs = [helper.make_tensor_value_info(n, k, None) for n, k in (("lo", 9), ("ly", 1))]
    keep = int(d.rng.integers(1, 4))
    body = helper.make_graph(inner, "body", ends[:keep], outs[: int(d.rng.integers(3))])
    node.op_type = "Loop"
    node.input[:] = [count, condition, node.input[0]]
    node.attribute.append(helper.make_attribute("body", body))


@mutation
def own_function(d: Draft) -> None:
    """A model-local function that calls itself, wants other inputs, or names an operator set it does not import."""
    node, kind = d.insert("Identity"), d.pick(["self", "arity", "opset", "twice", "empty"])
    inner = helper.make_node("Relu" if kind != "self" else "Own", ["a"], ["b"])
    inner.domain = "local" if kind == "self" else ""
    nodes, sets = [] if kind == "empty" else [inner], [helper.make_opsetid("", 99 if kind == "opset" else 17)]
    function = helper.make_function("local", "Own", ["a", "c"] if kind == "arity" else ["a"], ["b"], nodes, sets)
    node.op_type, node.domain = "Own", "local"
    d.proto.functions.extend([function] * (2 if kind == "twice" else 1))
    d.proto.opset_import.append(helper.make_opsetid("local", 1))


@mutation
def sparse_weight(d: Draft) -> None:
    sparse = d.graph.sparse_initializer.add()
    sparse.values.CopyFrom(helper.make_tensor("fuzz_sparse", 1, [2], np.ones(2, np.float32)))
    sparse.indices.CopyFrom(helper.make_tensor("fuzz_at", 7, [2], [0, d.number()]))
    sparse.dims.extend([d.number(), 3])
    if d.rng.random() < 0.5:
        d.insert("Add", [sparse.values.name])


@mutation
def training_info(d: Draft) -> None:
    info = d.proto.training_info.add()
    info.algorithm.CopyFrom(d.graph)
    if not len(d.graph.node):
        raise Inapplicable
