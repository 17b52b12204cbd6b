"""Every operator set and element type. Law: the same network, in the form its operator set gives it, prunes alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper, parser

from onnxprune import Options, Target, prune
from onnxprune.errors import OnnxpruneError

OPSETS = range(7, onnx.defs.onnx_opset_version() + 1)
QUICK = Options(align=1, time=False, overwrite=True)
KINDS = {"float": np.float32, "double": np.float64, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
Weights = dict[str, object]
Body = tuple[str, str, Weights]


def given(opset: int, since: int, kind: str, x: str, **settings: list[int] | float) -> tuple[str, Weights]:
    """An operator whose settings became inputs with operator set `since`, and the constants it then reads."""
    if opset < since:
        stored = ", ".join(f"{name}={value}" for name, value in settings.items())
        return f"{kind} <{stored}> ({x})", {}
    names = {f"{x}_{kind}_{name}": value for name, value in settings.items()}
    return f"{kind}({', '.join([x, *names])})", names


def network(opset: int) -> Body:
    """A convolutional network of everything whose form changed: padding, clipping, slicing, splitting, resizing."""
    forms = {
        "clip": given(opset, 11, "Clip", "c1", min=0.0, max=6.0),
        "split": given(opset, 13, "Split", "p1", split=[5, 3]),
        "slice": given(opset, 10, "Slice", "c2", starts=[2], ends=[8], axes=[1]),
        "pad": given(opset, 11, "Pad", "s2", pads=[0, 1, 0, 0, 0, 1, 0, 0]),
        "mean": given(opset, 18, "ReduceMean", "r1", axes=[2, 3]),
        "squeeze": given(opset, 13, "Squeeze", "mean", axes=[2, 3]),
    }
    text = {name: form for name, (form, _) in forms.items()}
    split = text["split"].replace("Split(", "Split <axis=1> (").replace("<split", "<axis=1, split")
    body = f"""
        c1 = Conv <pads=[1, 1, 1, 1]> (x, w1, b1) n1 = BatchNormalization(c1, bs, bb, bm, bv)
        clip = {text["clip"].replace("c1", "n1", 1)} p1 = MaxPool <kernel_shape=[2, 2], strides=[2, 2]> (clip)
        sa, sb = {split} q1 = Concat <axis=1> (sb, sa) c2 = Conv <auto_pad="SAME_UPPER"> (q1, w2)
        s2 = {text["slice"]} p2 = {text["pad"]} a2 = Add(p2, p1) d2 = Dropout(a2)
        {upsampled(opset, "d2", "u2")} r1 = ConvTranspose <group=2, strides=[2, 2], output_padding=[1, 1]> (u2, w3)
        mean = {text["mean"]} flat = {text["squeeze"]} g = Gemm <transB=1> (flat, w4, b4) y = Softmax <axis=1> (g)
    """
    weights: Weights = {name: value for _, names in forms.values() for name, value in names.items()}
    shapes = {"w1": (8, 3, 3, 3), "b1": (8,), "bs": (8,), "bb": (8,), "bm": (8,), "w2": (10, 8, 3, 3)}
    scales = np.array([1, 1, 2, 2], np.float32)
    weights |= {
        **shapes,
        "bv": np.full(8, 1.5),
        "w3": (8, 3, 2, 2),
        "w4": (5, 6),
        "b4": (5,),
        "scales": scales,
        "region": scales[:0],
    }
    return "x[N,3,8,8] -> y[N,5]", body, weights


def upsampled(opset: int, x: str, y: str) -> str:
    """Twice the height and width, by nearest neighbours."""
    if opset < 9:
        return f'{y} = Upsample <mode="nearest", scales=[1.0, 1.0, 2.0, 2.0]> ({x})'
    if opset < 11:
        return f'{y} = {"Upsample" if opset < 10 else "Resize"} <mode="nearest"> ({x}, scales)'
    region = "region" if opset < 13 else '""'
    return f'{y} = Resize <mode="nearest", coordinate_transformation_mode="asymmetric"> ({x}, {region}, scales)'


def transformer(opset: int) -> Body:
    """One block of attention and a gated feed-forward layer, with the normalisation its operator set has."""
    mean, names = given(opset, 18, "ReduceMean", "h2", axes=[1])
    squeeze, more = given(opset, 13, "Squeeze", "m2", axes=[1])
    body = f"""
        {normalised(opset, "x", "n1")}
        q = MatMul(n1, wq) k = MatMul(n1, wk) v = MatMul(n1, wv)
        q1 = Reshape(q, heads) k1 = Reshape(k, heads) v1 = Reshape(v, heads)
        q2 = Transpose <perm=[0, 2, 1, 3]> (q1) k2 = Transpose <perm=[0, 2, 3, 1]> (k1)
        v2 = Transpose <perm=[0, 2, 1, 3]> (v1) l = MatMul(q2, k2) p = Softmax <axis=3> (l) o = MatMul(p, v2)
        o1 = Transpose <perm=[0, 2, 1, 3]> (o) o2 = Reshape(o1, flat) o3 = MatMul(o2, wo) h1 = Add(x, o3)
        {normalised(opset, "h1", "n2")}
        f = MatMul(n2, w1) g = MatMul(n2, w2) e = Tanh(g) z = Mul(f, e) f2 = MatMul(z, w3) h2 = Add(h1, f2)
        m2 = {mean} m3 = {squeeze} y = Gemm(m3, w4, b4)
    """
    weights: Weights = {**names, **more, "heads": [0, 0, 2, 6], "flat": [0, 0, 12], "eps": 1e-5}
    weights |= dict.fromkeys(("wq", "wk", "wv", "w1", "w2"), (8, 12)) | dict.fromkeys(("wo", "w3"), (12, 8))
    weights |= {"ls": (8,), "lb": (8,), "w4": (8, 5), "b4": (5,)}
    return "x[N,4,8] -> y[N,5]", body, weights


def normalised(opset: int, x: str, y: str) -> str:
    """LayerNormalization, spelled out before operator set 17."""
    if opset >= 17:
        return f"{y} = LayerNormalization({x}, ls, lb)"
    return f"""{y}m = ReduceMean <axes=[-1]> ({x}) {y}d = Sub({x}, {y}m) {y}q = Mul({y}d, {y}d)
        {y}v = ReduceMean <axes=[-1]> ({y}q) {y}e = Add({y}v, eps) {y}s = Sqrt({y}e) {y}n = Div({y}d, {y}s)
        {y}t = Mul({y}n, ls) {y} = Add({y}t, lb)"""


def model(body: Body, opset: int, kind: str = "float") -> onnx.ModelProto:
    """The finished model; constants that are tuples are the shapes of random weights."""
    signature, nodes, weights = body
    rng, (inputs, outputs) = np.random.default_rng(0), signature.split("->")
    ends = [f"{kind}{side[side.index('[') :]} {side.strip()[0]}" for side in (inputs, outputs)]
    graph = parser.parse_graph(f"g ({ends[0]}) => ({ends[1]}) {{ {nodes} }}")
    read = {name for node in graph.node for name in node.input}
    for name, value in weights.items():
        if name in read:
            graph.initializer.append(numpy_helper.from_array(tensor(value, rng, KINDS[kind]), name))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=min(10, 4 + opset // 4))


def tensor(value: object, rng: np.random.Generator, kind: type) -> NDArray[np.generic]:
    """A random weight of variance 1 / fan-in, or the given value in the model's element type."""
    if isinstance(value, tuple):
        return (rng.normal(size=value) / np.sqrt(np.prod(value[1:]))).astype(kind)
    array = np.asarray(value)
    return array.astype(kind) if array.dtype == np.float64 else array


def pruned_share(proto: onnx.ModelProto, folder: Path) -> float:
    """Prune half of every group, verified; the share of parameters left."""
    onnx.save(proto, folder / "dense.onnx")
    prune(folder / "dense.onnx", folder / "pruned.onnx", Target(ratio=0.5), options=QUICK)
    before, after = (
        sum(np.prod(t.dims) for t in p.graph.initializer if len(t.dims) > 1)
        for p in (proto, onnx.load(folder / "pruned.onnx"))
    )
    return float(after / before)


@pytest.mark.parametrize("build", [network, transformer])
@pytest.mark.parametrize("opset", OPSETS)
def test_every_operator_set(opset: int, build: Callable[[int], Body], tmp_path: Path) -> None:
    share = pruned_share(model(build(opset), opset), tmp_path)
    assert share == pruned_share(model(build(17), 17), tmp_path)
    assert share < 0.6


@pytest.mark.parametrize(("kind", "build"), [("double", transformer), ("float16", network), ("float16", transformer)])
def test_every_element_type(kind: str, build: Callable[[int], Body], tmp_path: Path) -> None:
    assert pruned_share(model(build(20), 20, kind), tmp_path) < 0.6


@pytest.mark.parametrize("kind", ["double", "bfloat16"])
def test_a_type_without_kernels_is_named_as_the_cause(kind: str, tmp_path: Path) -> None:
    """onnxruntime has no convolution in these types on the processor."""
    with pytest.raises(OnnxpruneError, match=r"Conv.*no kernel for this operator in the model's element type"):
        pruned_share(model(network(22), 22, kind), tmp_path)
