"""Broken files are pruned or refused in one line. `benchmarks/fuzz.py` tries thousands; here are a few hundred."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import DataError, ModelError, OnnxpruneError
from onnxprune.labels import LONGEST
from onnxprune.model import from_proto, load
from onnxprune.normalise import living_nodes, normalise
from onnxprune.runtime import random_feeds
from onnxprune.trace import Dependencies, trace
from tests import graphs
from tests.fuzzing.outcome import FAILED, try_files
from tests.fuzzing.specimen import BUILT, DAMAGES, MUTATIONS, SEEDS, specimen

NUMBERS = 300
CALM = tuple(BUILT)  # real models take longer


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Files of a few bytes must not ask for more than this process, and 4 GiB, has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (4 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


linux = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits memory as Linux does")


@linux
@pytest.mark.usefixtures("little_memory")
def test_broken_files_are_pruned_or_refused() -> None:
    for number in range(NUMBERS):
        made = specimen(number, CALM)
        assert made is not None
        found = try_files(made.files, verify=number % 4 == 0)
        assert found.kind != FAILED, f"{made.seed}, {made.changes}: {found.detail} {found.where}\n{found.text}"


def test_a_number_makes_the_same_files() -> None:
    for number in range(40):
        one, two = specimen(number, CALM), specimen(number, CALM)
        assert one == two


def test_every_mutation_is_made() -> None:
    made = {change for n in range(6000) if (s := specimen(n, ("chain", "rich", "flattened"))) for change in s.changes}
    assert set(MUTATIONS) | set(DAMAGES) <= made
    assert set(BUILT) < set(SEEDS)


def test_a_planted_fault_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(path: Path) -> None:
        raise IndexError(path)

    monkeypatch.setattr("tests.fuzzing.outcome.load", fault)
    made = specimen(0, CALM)
    assert made is not None and try_files(made.files, verify=False).kind == FAILED


# --- what it found, one by one ---------------------------------------------------------------------------------------


def behind(kind: str, *extra: object, head: int = 8, **attributes: object) -> onnx.ModelProto:
    """A convolution, then a node with the given constants as further inputs, then a second convolution."""
    net = graphs.Net()
    h = net.conv("x", "c1", 8, 3)
    names = [net.constant(f"k{i}", value) for i, value in enumerate(extra)]
    h = net.op(kind, [h, *names], "odd", **attributes)
    net.op("Identity", [net.conv(h, "c2", 5, head)], "y")
    return net.model(["N", 3, 4, 4], [None] * 4)


def traced(proto: onnx.ModelProto) -> Dependencies:
    return trace(normalise(from_proto(proto)))


def prunable(dependencies: Dependencies) -> set[str]:
    """Weights that can lose filters."""
    return {source.tensor for group in dependencies.groups for source in group.sources}


ODD = {
    "Tile to terabytes": behind("Tile", [1, 10**12, 1, 1]),
    "Expand to terabytes": behind("Expand", [1, 1, 10**12, 2**31]),
    "Pad to terabytes": behind("Pad", [0, 0, 0, 0, 0, 10**12, 0, 0]),
    "Pad with too few numbers": behind("Pad", [0, 1]),
    "Tile with too few numbers": behind("Tile", [1, 2]),
    "Reshape to what does not fit": behind("Reshape", [0, 3, 3, 4]),
    "Reshape by a table": behind("Reshape", [[0, 8, 4, 4]]),
    "Squeeze of an axis that is not there": behind("Squeeze", [9]),
    "Gather past the end": behind("Gather", [0, 99], axis=7),
    "Slice by bounds of different numbers": behind("Slice", [0, 0], [1], [1]),
    "Slice in steps of 0": behind("Slice", [0], [1], [1], [0]),
    "Transpose by an order that is none": behind("Transpose", perm=[0, 1, 1, 2]),
    "Transpose of three axes": behind("Transpose", perm=[0, 2, 1]),
    "SpaceToDepth in huge blocks": behind("SpaceToDepth", blocksize=10**12),
    "DepthToSpace in blocks of 3": behind("DepthToSpace", blocksize=3),
    "Softmax over an axis that is not there": behind("Softmax", axis=9),
    "Split into none": behind("Split", [], axis=1),
}


@pytest.mark.parametrize("name", ODD)
def test_a_node_that_fits_nothing_freezes_what_it_touches(name: str) -> None:
    assert "c1.w" not in prunable(traced(ODD[name]))


def test_the_reason_names_the_operator_and_its_misfit() -> None:
    reasons = [freeze.reason for _, freeze in traced(behind("Transpose", perm=[0, 1, 1, 2])).held]
    assert any("Transpose" in reason for reason in reasons)


@pytest.mark.parametrize("groups", [0, -1, 3, 2**62])
def test_impossible_groups_freeze(groups: int) -> None:
    proto = graphs.chain()
    kept = [a for a in proto.graph.node[0].attribute if a.name != "group"]
    del proto.graph.node[0].attribute[:]
    proto.graph.node[0].attribute.extend([*kept, helper.make_attribute("group", groups)])
    assert "c1.w" not in prunable(traced(proto))


def test_an_axis_too_long_to_label_is_frozen_and_named() -> None:
    proto = behind("Expand", [LONGEST + 1, 1, 1, 1, 1])
    reasons = [freeze.reason for freeze in traced(proto).freezes]
    assert any(str(LONGEST) in reason for reason in reasons), reasons


def test_a_weight_of_terabytes_that_is_left_out_costs_nothing() -> None:
    proto = graphs.chain()
    shape = numpy_helper.from_array(np.array([2**30, 16]), "shape")
    node = helper.make_node("ConstantOfShape", ["shape"], ["left.out"], name="left.out")
    proto.graph.initializer.append(shape)
    proto.graph.node.insert(0, node)
    proto.graph.node.append(helper.make_node("MatMul", ["left.out", "left.out"], ["z"], name="z"))
    proto.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [None, None]))
    assert traced(proto).groups


def test_empty_weights_freeze() -> None:
    proto = graphs.mlp()
    weight = next(t for t in proto.graph.initializer if t.name == "g2.w")
    weight.CopyFrom(numpy_helper.from_array(np.zeros((16, 0), np.float32), "g2.w"))
    traced(proto)


@pytest.mark.parametrize("field", ["tensor", "node", "operator", "symbol"])
def test_names_that_are_no_text_are_refused(field: str, tmp_path: Path) -> None:
    proto, place = graphs.chain(), "to_be_replaced"
    if field == "tensor":
        proto.graph.node[0].output[0] = proto.graph.node[1].input[0] = place
    elif field == "node":
        proto.graph.node[0].name = place
    elif field == "operator":
        proto.graph.node[0].op_type = place
    else:
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = place
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString().replace(place.encode(), b"\xff\xfe" * 7))
    with pytest.raises(ModelError, match="not UTF-8"):
        load(path)


def test_a_location_with_a_zero_byte_is_refused(tmp_path: Path) -> None:
    path = graphs.external(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"model.bin", b"mod\0l.bin"))
    with pytest.raises(ModelError, match="external data"):
        load(path)


def test_messages_are_short_whatever_is_in_the_file() -> None:
    error = OnnxpruneError("a name of " + "x" * 10_000, where="y" * 5000)
    assert len(str(error)) < 1000 and str(error).startswith("a name of xxx")


def test_open_sizes_may_be_written_as_minus_one() -> None:
    proto = graphs.chain()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    found = traced(proto)
    assert found.groups and isinstance(found.model.shapes["c1"][0], str)


def test_a_crop_by_computed_bounds_leaves_the_channels_free() -> None:
    """`x[:, :, :h]`, where h is read while the model runs, names one axis; the others keep their sizes."""
    proto = behind("Slice", [0], [0], [2])
    proto.graph.node[1].input[2] = "h"
    proto.graph.input.append(helper.make_tensor_value_info("h", TensorProto.INT64, [1]))
    assert [g.name for g in traced(proto).groups] == ["c1.w"]


def test_inputs_too_large_to_make_up_are_refused() -> None:
    proto = graphs.chain()
    proto.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 2**31
    with pytest.raises(DataError, match="too large to make up"):
        random_feeds(proto)


def test_element_types_that_nobody_knows_do_not_matter_to_what_is_alive() -> None:
    proto = graphs.rich()
    proto.graph.output[1].type.tensor_type.elem_type = -1
    assert living_nodes(proto.graph) == set(range(len(proto.graph.node)))
