"""What curves are measured on. Law: samples of any form the model takes run in batches of a sensible size."""

from __future__ import annotations

import numpy as np

from onnxprune.data import Samples
from onnxprune.pipeline.curves import BATCH, CURVE, curve_batches
from tests import graphs


def test_small_samples_run_together_and_the_first_are_enough() -> None:
    samples = Samples(({"x": np.zeros((400, 3, 8, 8), np.float32)},))
    found = curve_batches(graphs.loaded(graphs.chain()), samples)
    assert [len(batch["x"]) for batch in found] == [BATCH] * (CURVE // BATCH)


def test_large_samples_run_in_small_batches() -> None:
    samples = Samples(({"x": np.zeros((4, 3, 512, 512), np.float32)},))
    net = graphs.Net()
    net.head(net.op("Relu", [net.conv("x", "a", 4, 3, 3)], "r"), 4)
    model = graphs.loaded(net.model(["N", 3, 512, 512], ["N", 5]))
    assert [len(batch["x"]) for batch in curve_batches(model, samples)] == [1] * 4


def test_an_input_without_a_sample_axis() -> None:
    net = graphs.Net()
    net.op("Mul", ["x", "s"], "scaled")
    net.op("MatMul", ["scaled", net.weight("a", 4, 6)], "h")
    net.op("MatMul", ["h", net.weight("b", 6, 3)], "y")
    proto = net.model(["N", 4], ["N", 3])
    proto.graph.input.append(graphs.helper.make_tensor_value_info("s", 1, []))
    samples = Samples(({"x": np.ones((10, 4), np.float32), "s": np.array(2, np.float32)},))
    found = curve_batches(graphs.loaded(proto), samples)
    assert len(found) == 1 and found[0]["s"] == 2


def test_samples_in_order_of_their_classes_are_not_of_the_first_class_alone() -> None:
    values = np.arange(4 * CURVE, dtype=np.float32)
    samples = Samples(({"x": np.broadcast_to(values[:, None, None, None], (4 * CURVE, 3, 8, 8))},))
    found = np.concatenate([batch["x"][:, 0, 0, 0] for batch in curve_batches(graphs.loaded(graphs.chain()), samples)])
    assert len(found) == CURVE and (np.diff(found) > 0).all()
    assert (np.bincount((found // CURVE).astype(int)) == CURVE // 4).all()
