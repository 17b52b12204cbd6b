"""Laws of samples in memory: batches fit the model, samples of one shape are joined, and nothing else is."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune.data import Samples, batches
from onnxprune.data import samples as held_samples
from onnxprune.data.samples import concatenated, joined, samples_in, taken
from onnxprune.errors import DataError
from onnxprune.model import Model
from onnxprune.runtime import run
from tests import graphs
from tests.data.test_npz import images, model


def sequences() -> Model:
    """A model of clips of any length, with a number beside them."""
    return graphs.loaded(
        onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 17]> g (float[N, T] x, float s) => (float[N, T] y) { y = Mul (x, s) }'
        )
    )


def recurrent() -> Model:
    """A model whose state has its batch second."""
    return graphs.loaded(
        onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 17]> g (float[1, 3] x, float[2, 1, 4] h) => (float[1, 3] y) '
            "{ y = Identity (x) }"
        )
    )


@pytest.mark.parametrize(("count", "size", "limit"), [(6, 4, 16), (6, 6, 6), (40, 8, 16), (1, 8, 16), (5, 2, 3)])
def test_batches_are_the_samples_in_order(count: int, size: int, limit: int) -> None:
    x = images(count)
    parts = [feeds["x"] for feeds in batches(model(), {"x": x}, size=size, limit=limit)]
    together = np.concatenate(parts)
    np.testing.assert_array_equal(together, x[: len(together)])
    assert min(count, limit) <= len(together) <= min(count, limit + size - 1)
    assert all(len(p) == size for p in parts[:-1]) and 0 < len(parts[-1]) <= size


@pytest.mark.parametrize("batch", [1, 3, "N"])
def test_the_model_runs_on_every_batch(batch: int | str) -> None:
    held = model(batch)
    sizes = {len(run(held, feeds)["y"]) for feeds in batches(held, {"x": images(6)}, size=2)}
    assert sizes == {batch if isinstance(batch, int) else 2}


def test_inputs_without_a_common_number_of_samples_are_one_batch() -> None:
    feeds = {"x": images(6), "scale": np.ones(3, np.float32)}
    assert list(batches(model(), feeds)) == [feeds]


def test_inputs_without_axes_go_to_every_batch() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 2] x, float s) => (float[N, 2] y) { y = Mul (x, s) }'
    )
    held = graphs.loaded(proto)
    feeds = {"x": np.ones((4, 2), np.float32), "s": np.array(3, np.float32)}
    parts = list(batches(held, feeds, size=2))
    assert len(parts) == 2
    for part in parts:
        np.testing.assert_array_equal(run(held, part)["y"], np.full((2, 2), 3))  # 1 x 3 is exact


def clip(count: int, length: int, scale: float = 2.0) -> dict[str, np.ndarray]:
    return {"x": np.full((count, length), length, np.float32), "s": np.array(scale, np.float32)}


def test_samples_of_one_shape_are_joined_and_batches_never_mix_shapes() -> None:
    parts = [clip(2, 3), clip(1, 5), clip(3, 3)]
    found = Samples(joined(sequences(), parts, "here"))
    assert [feeds["x"].shape for feeds in found.sets] == [(5, 3), (1, 5)] and found.count == 6
    cut = list(found.batches(sequences(), size=2, limit=100))
    assert [feeds["x"].shape for feeds in cut] == [(2, 3), (2, 3), (1, 3), (1, 5)]
    assert [len(feeds["x"]) for feeds in found.batches(sequences(), size=2, limit=3)] == [2, 2]


def test_one_value_for_all_samples_or_an_error() -> None:
    with pytest.raises(DataError, match=r"'s', which has no axis of samples, has several values.*here"):
        joined(sequences(), [clip(1, 3), clip(1, 3, scale=3)], "here")


def test_what_has_no_common_number_of_samples_goes_in_as_it_came() -> None:
    part = {"x": np.ones((1, 3), np.float32), "h": np.ones((2, 1, 4), np.float32)}
    found = Samples(joined(recurrent(), [part] * 3, "here"))
    assert len(found.sets) == 3 == found.count
    assert [feeds["h"].shape for feeds in found.batches(recurrent(), size=8, limit=2)] == [(2, 1, 4)] * 2


def test_some_of_many_are_whole_batches_spread_over_all() -> None:
    x = {"x": np.arange(12, dtype=np.float32)[:, None, None, None] * np.ones((12, 3, 8, 8), np.float32)}
    assert taken(model(), x, 12, 0) is x
    rows = taken(model(3), x, 4, 0)["x"][:, 0, 0, 0]
    assert rows.tolist() in [[a, a + 1, a + 2, b, b + 1, b + 2] for a in (0, 3) for b in (6, 9)]


def test_large_arrays_lie_in_a_file_and_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x = images(6)
    monkeypatch.setattr(held_samples, "MEMORY", 100)
    found = concatenated([x[:2], x[2:]])
    assert isinstance(found, np.memmap) and np.array_equal(found, x)


def test_a_recurrent_state_beside_a_clip_is_no_count_of_samples() -> None:
    clip = {"x": np.zeros((1, 512)), "state": np.zeros((2, 1, 128))}
    assert samples_in([clip, clip]) == 2 and samples_in([{"x": np.zeros((5, 3))}, {"x": np.zeros((2, 3))}]) == 7
