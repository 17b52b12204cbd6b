"""Law of readers: a product's inputs say which unit they belong to, and its moments are those of the activations."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune.calibrate import Walk, anchor_of, readers_of
from onnxprune.importance import CRITERIA, Evidence, score
from onnxprune.importance.readers import columns_of, layers, products, readers_by_group, relative_weights
from onnxprune.runtime import capture, run
from onnxprune.trace import Dependencies
from tests import graphs
from tests.importance.evidence import samples


def in_groups(kind: str, groups: int = 3, width: int = 4, out: int = 5) -> onnx.ModelProto:
    """A layer in groups of `width` inputs and `out` outputs, behind a convolution that it alone reads."""
    net = graphs.Net(9)
    h = net.op("Relu", [net.conv("x", "before", groups * width, 3, 3)], "r")
    shape = (groups * out, width, 3, 3) if kind == "Conv" else (groups * width, out, 3, 3)
    h = net.op(kind, [h, net.weight("g.w", *shape)], "g", group=groups, pads=[1] * 4)
    net.head(net.op("Relu", [h], "r2"), groups * out)
    return net.model(["N", 3, 8, 8], ["N", 5])


@pytest.mark.parametrize("turned", [0, 1])
def test_a_square_gemm_is_read_along_its_inputs(turned: int) -> None:
    """The layer behind each group reads it, however the weight lies."""
    net = graphs.Net()
    h = "x"
    for name, out, into in (("a", 8, 6), ("b", 8, 8), ("c", 5, 8)):
        shape = (out, into) if turned else (into, out)
        h = net.op("Gemm", [h, net.weight(f"{name}.w", *shape), net.weight(f"{name}.b", out)], name, transB=turned)
        h = net.op("Relu", [h], f"{name}.r") if name != "c" else h
    net.op("Identity", [h], "y")
    dependencies = graphs.traced(net.model(["N", 6], ["N", 5]))
    assert [g.name for g in dependencies.groups] == ["a.w", "b.w"]
    assert readers_by_group(dependencies) == {0: 1, 1: 1}
    assert {layer.product.node.name: layer.reads for layer in layers(dependencies)} == {"b": ((0, 0),), "c": ((0, 1),)}


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
def test_each_group_of_a_convolution_reads_its_own_channels(kind: str) -> None:
    dependencies = graphs.traced(in_groups(kind))
    layer = next(found for found in layers(dependencies) if found.product.node.name == "g")
    units = dependencies.unit[dependencies.labels["before"][1].ids]
    assert layer.units.shape == (3, 36) and [b for b, _ in layer.reads] == [0, 1, 2]
    for b in range(3):  # 4 channels of 9 taps each
        assert layer.units[b].tolist() == np.repeat(units[4 * b : 4 * b + 4], 9).tolist()


@pytest.mark.parametrize(("name", "readers"), [("gated", {"se1", "project", "y"}), ("funnel", {"y"})])
def test_what_goes_with_the_unit_it_reads_is_no_reader(name: str, readers: set[str]) -> None:
    """The groups of a depthwise convolution, and those of one output: the layer behind them reads the channels."""
    dependencies = graphs.traced(graphs.ALL[name]())
    assert {layer.product.node.output[0] for layer in layers(dependencies)} >= readers
    assert not {layer.product.node.name for layer in layers(dependencies)} & {"depth", "gather", "scatter"}


def products_of(dependencies: Dependencies, name: str) -> tuple[list, np.ndarray, np.ndarray, np.ndarray]:
    """The products of a layer, and what it reads, as the runtime sees it; its weights and spread, and group."""
    evidence, model = samples(dependencies), dependencies.model
    layer = next(found for found in layers(dependencies) if found.product.node.name == name)
    anchor = anchor_of(
        layer.product.node.output[0], layer.product.channels, layer.product.axis, model, readers_of(model)
    )
    found = products(Walk(model, evidence.samples), layer, anchor, np.random.default_rng(0))
    names = [layer.product.node.input[0], anchor.tensor]
    held = [capture(model, batch, names) for batch in evidence.samples]
    x, y = (np.concatenate([h[n] for h in held]).astype(np.float64) for n in names)
    spread = float(np.square(y - y.mean(axis=tuple(k for k in range(y.ndim) if k != 1), keepdims=True)).sum())
    return found, x, relative_weights(layer.product, anchor, spread), layer.units


def test_the_moments_are_those_of_the_activations() -> None:
    dependencies = graphs.traced(graphs.mlp())
    (found,), x, _, _ = products_of(dependencies, "g2")
    centred = x - x.mean(axis=0)
    # Activations are float32, and the runtime's fused kernels differ from plain ones in the last digits.
    np.testing.assert_allclose(found.gram, centred.T @ centred, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.mean, x.mean(axis=0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
def test_contributions_are_what_channels_add_to_the_output(kind: str, centred: bool) -> None:
    """Against the runtime: the layer run on one channel at a time."""
    proto = in_groups(kind)
    dependencies = graphs.traced(proto)
    found, x, _, units = products_of(dependencies, "g")
    group, b = dependencies.groups[0], 1
    node = next(n for n in dependencies.model.proto.graph.node if n.name == "g")
    out = [alone(node, dependencies, np.where(np.arange(12)[:, None, None] == 4 * b + i, x, 0.0)) for i in range(4)]
    y = alone(node, dependencies, x)
    spread = np.square(y - y.mean(axis=(0, 2, 3), keepdims=True)).sum()
    z = np.stack([(o - o.mean(axis=(0, 2, 3), keepdims=True) if centred else o).ravel() for o in out])
    columns = columns_of(group, units[b])
    mine = np.flatnonzero(columns[:, 0] >= 0)
    inner = found[b].contributions(columns, centred=centred)
    # float32 activations, squares summed over 32 images.
    np.testing.assert_allclose(inner[np.ix_(mine, mine)], z @ z.T / spread, rtol=1e-4, atol=1e-6)
    rest = np.delete(inner, mine, axis=0)
    assert mine.size == 4 and not rest.any()


def alone(node: onnx.NodeProto, dependencies: Dependencies, x: np.ndarray) -> np.ndarray:
    """What a node makes of other inputs."""
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * 4) for name in ("g.x", "g")]
    weight = onnx.numpy_helper.from_array(dependencies.model.weights[node.input[1]], node.input[1])
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[0] = "g.x"
    graph = onnx.helper.make_graph([copy], "one", ends[:1], ends[1:], [weight])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    return run(graphs.loaded(proto), {"g.x": x.astype(np.float32)})["g"].astype(np.float64)


def silent() -> Dependencies:
    """A convolution that never fires, and what reads it."""
    net = graphs.Net()
    h = net.op("Relu", [net.conv("x", "a", 8, 3, 3)], "ra")
    h = net.op("Relu", [net.conv(h, "b", 8, 8, 3)], "rb")
    h = net.op("Relu", [net.conv(h, "c", 8, 8, 3)], "rc")
    net.head(h, 8)
    net.weights["b.b"] = np.full(8, -1e3, np.float32)
    return graphs.traced(net.model(["N", 3, 8, 8], ["N", 5]))


@pytest.mark.parametrize("criterion", ["flap", "lasso", "reconstruction", "thinet"])
@pytest.mark.parametrize("value", [None, 0.0, 3.0, 1e3])
def test_layers_that_read_or_compute_constants_are_scored(criterion: str, value: float | None) -> None:
    """Spreads and variances are 0, or what rounding leaves of them: no warning, and every score is a number."""
    dependencies = silent() if value is None else graphs.traced(graphs.residual())
    evidence = samples(dependencies)
    if value is not None:
        evidence = Evidence([{"x": np.full((8, 3, 8, 8), value, np.float32)}] * 4)
    found = score(dependencies, criterion, evidence).values
    assert np.isfinite(found).all() and (found >= 0).all()


@pytest.mark.parametrize("criterion", [name for name, entry in CRITERIA.items() if entry.needs == "samples"])
@pytest.mark.parametrize("spoilt", [1, 4])
def test_a_batch_without_a_number_is_left_out(criterion: str, spoilt: int) -> None:
    dependencies = graphs.traced(graphs.residual())
    evidence = samples(dependencies)
    for feeds in evidence.samples[:spoilt]:
        feeds["x"][:] = np.nan
    found = score(dependencies, criterion, evidence).values
    assert np.isfinite(found).all() and (found >= 0).all()
    if spoilt == 1:
        assert np.allclose(found, score(dependencies, criterion, Evidence(evidence.samples[1:])).values, rtol=0.1)
