"""Law of unfusing: standard operators that compute the same, under the names of the file."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune.importance import Evidence, score
from onnxprune.model import from_proto
from onnxprune.normalise import normalise
from onnxprune.runtime import random_feeds, run
from onnxprune.trace import trace

ACTIVATIONS = {
    "": "",
    "Relu": 'activation="Relu"',
    "Tanh": 'activation="Tanh"',
    "Sigmoid": 'activation="Sigmoid"',
    "LeakyRelu": 'activation="LeakyRelu", activation_params=[0.2]',
    "HardSigmoid": 'activation="HardSigmoid", activation_params=[0.3, 0.4]',
    "Clip": 'activation="Clip", activation_params=[-0.5, 0.5]',
}
GEMM = {
    "Relu": 'activation="Relu", alpha=0.5, beta=2.0, transB=1',
    "LeakyRelu": 'activation="LeakyRelu", activation_alpha=0.3',
    "Elu": 'activation="Elu", activation_alpha=0.7',
    "HardSigmoid": 'activation="HardSigmoid", activation_alpha=0.3, activation_beta=0.4',
}
WEIGHTS = {"w": (6, 3, 3, 3), "u": (6, 6, 1, 1), "d": (6,), "v": (6, 6)}


def model(body: str, opset: int = 17) -> onnx.ModelProto:
    """A model with the runtime's own operators."""
    head = f'<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1]>'
    proto = onnx.parser.parse_model(f"{head} {body}")
    rng = np.random.default_rng(0)
    for name in sorted({n for node in proto.graph.node for n in node.input} & set(WEIGHTS)):
        array = rng.normal(size=WEIGHTS[name]).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return proto


def convolved(activation: str, opset: int = 17, more: str = "d, a") -> onnx.ModelProto:
    """Two convolutions, the second fused."""
    text = f"{{ a = Conv <pads=[1,1,1,1]> (x, w) y = com.microsoft.FusedConv <{activation}> (a, u, {more}) }}"
    text = text.replace(" <>", "")
    return model(f"g (float[N,3,8,8] x) => (float[N,6,8,8] y) {text}", opset)


def same(proto: onnx.ModelProto) -> list[str]:
    """The operators of the normalised model, which computes what the model does, bit for bit but for rounding."""
    given = from_proto(proto)
    found = normalise(given)
    feeds = random_feeds(given, batch=3, seed=0)
    one, other = (run(m, feeds)["y"] for m in (given, found))
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)  # the runtime fuses again, or adds apart
    assert {n.name for n in proto.graph.output} == {n.name for n in found.proto.graph.output}
    return [node.op_type for node in found.proto.graph.node]


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("opset", [10, 17])
def test_a_fused_convolution_is_a_convolution_a_sum_and_an_activation(name: str, opset: int) -> None:
    assert same(convolved(ACTIVATIONS[name], opset)) == ["Conv", "Conv", "Add", *([name] if name else [])]
    assert same(convolved(ACTIVATIONS[name], opset, "d")) == ["Conv", "Conv", *([name] if name else [])]


@pytest.mark.parametrize("name", GEMM)
def test_a_fused_product_is_a_product_and_an_activation(name: str) -> None:
    text = f"y = com.microsoft.FusedGemm <{GEMM[name]}> (x, v, d)"
    assert same(model(f"g (float[N,6] x) => (float[N,6] y) {{ {text} }}")) == ["Gemm", name]


def test_a_missing_bias_before_a_summand_stays_missing() -> None:
    proto = convolved("", more="d, a")
    proto.graph.node[1].input[2] = ""
    proto.graph.initializer.remove(next(t for t in proto.graph.initializer if t.name == "d"))
    assert same(proto) == ["Conv", "Conv", "Add"]


def test_nodes_in_a_body_are_taken_apart_too() -> None:
    body = 'z = com.microsoft.FusedConv <activation="Relu"> (a, u, d)'
    text = f"""{{ a = Conv <pads=[1,1,1,1]> (x, w)
        y = If (c) <then_branch = t () => (float[N,6,8,8] z) {{ {body} }},
                    else_branch = e () => (float[N,6,8,8] q) {{ q = Relu (a) }}> }}"""
    proto = model(f"g (float[N,3,8,8] x, bool c) => (float[N,6,8,8] y) {text}")
    for name in ("u", "d"):
        array = np.random.default_rng(1).normal(size=WEIGHTS[name]).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    branch = normalise(from_proto(proto)).proto.graph.node[-1].attribute[0].g
    same(proto)
    assert [n.op_type for n in branch.node] == ["Conv", "Relu"]


def test_what_has_no_standard_form_stays() -> None:
    proto = convolved('activation="Relu"')
    proto.graph.node[1].attribute[0].s = b"Unheard"
    assert [n.op_type for n in normalise(from_proto(proto)).proto.graph.node] == ["Conv", "FusedConv"]


def test_layers_behind_fused_ones_are_scored_by_what_they_read() -> None:
    dependencies = trace(normalise(from_proto(convolved('activation="Relu"', more="d"))))
    samples = [dict(random_feeds(dependencies.model, batch=4, seed=seed)) for seed in range(4)]
    norms = score(dependencies, "l1").values
    found = score(dependencies, "reconstruction", Evidence(samples)).values
    assert not np.allclose(found, norms / norms.sum())  # what a group without readers would have
