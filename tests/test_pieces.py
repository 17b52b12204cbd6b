"""Models that round activations are proved right although single values round the other way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxprune.data import Feeds
from onnxprune.errors import VerificationError
from onnxprune.importance import score
from onnxprune.pieces import rounded
from onnxprune.plan import Target, plan
from onnxprune.rewrite import masked, rewrite
from onnxprune.trace import Dependencies
from onnxprune.verify import compare, verify
from tests import graphs

DEPTH = 6


def quantised() -> Dependencies:
    """Convolutions with a rounding after each: some of the thousands of values lie on the edge of a step."""
    net = graphs.Net(3)
    net.weights |= {"s": np.array(0.02, np.float32), "z": np.array(128, np.uint8)}
    last = "x"
    for k in range(DEPTH):
        h = net.conv(last, f"h{k}", 32, 3 if k == 0 else 32, 3)
        q = net.op("QuantizeLinear", [h, "s", "z"], f"q{k}")
        last = net.op("DequantizeLinear", [q, "s", "z"], f"d{k}")
    net.conv(last, "y", 4, 32, 3)
    return graphs.traced(net.model(["N", 3, 32, 32], ["N", 4, "h", "w"]))


def batches() -> list[Feeds]:
    return [{"x": np.random.default_rng(1).normal(size=(8, 3, 32, 32)).astype(np.float32)}]


def test_a_last_bit_is_told_from_a_fault() -> None:
    dependencies = quantised()
    removed = plan(dependencies, score(dependencies), Target(ratio=0.5)).removed(dependencies)
    pruned = rewrite(dependencies, removed)
    assert rounded(pruned, dependencies.labels) == [f"h{k}" for k in range(DEPTH)]
    assert not compare(masked(dependencies, removed), pruned, batches()).ok  # or this test proves nothing
    found = verify(dependencies, removed, pruned, batches())
    assert found.ok and found.max_rel < 1e-5

    wrong = pruned.weights["h2.w"].copy()
    wrong[:, 0] = wrong[:, 1]
    with pytest.raises(VerificationError):
        verify(dependencies, removed, replace(pruned, weights={**pruned.weights, "h2.w": wrong}), batches())


def enlarging() -> Dependencies:
    """Layers that multiply every difference by a large factor: what rounding leaves of the outputs is not equal."""
    net = graphs.Net(4)
    last = "x"
    for k in range(DEPTH):
        h = net.conv(last, f"h{k}", 16, 3 if k == 0 else 16, 3)
        last = net.op("Sin", [net.op("Mul", [h, net.constant(f"k{k}", 40, np.float32)], f"m{k}")], f"s{k}")
    net.conv(last, "y", 4, 16, 3)
    return graphs.traced(net.model(["N", 3, 32, 32], ["N", 4, "h", "w"]))


def test_a_network_that_enlarges_rounding_is_proved_piece_by_piece() -> None:
    dependencies = enlarging()
    removed = plan(dependencies, score(dependencies), Target(ratio=0.5)).removed(dependencies)
    pruned = rewrite(dependencies, removed)
    assert not compare(masked(dependencies, removed), pruned, batches()).ok  # or this test proves nothing
    found = verify(dependencies, removed, pruned, batches())
    assert found.ok and found.pieces == DEPTH + 2 and found.max_rel < 1e-5

    wrong = pruned.weights["h2.w"].copy()
    wrong[:, 0] = wrong[:, 1]
    with pytest.raises(VerificationError, match="first at tensor 'h2'"):
        verify(dependencies, removed, replace(pruned, weights={**pruned.weights, "h2.w": wrong}), batches())
