"""Weights outside the .onnx file: large ones are mapped, small ones read, and nothing outside the folder is touched."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.errors import ModelError
from onnxprune.model import SMALL, load
from tests import graphs


def owner(array: np.ndarray) -> object:
    """What holds an array's memory."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.base


def test_large_weights_are_mapped_and_small_ones_read(tmp_path: Path) -> None:
    path = graphs.external(tmp_path, width=64)
    loaded, whole = load(path), onnx.load(path)
    sizes = set()
    for tensor in whole.graph.initializer:
        weight = loaded.weights[tensor.name]
        np.testing.assert_array_equal(weight, onnx.numpy_helper.to_array(tensor))
        assert isinstance(owner(weight), mmap.mmap) == (weight.size > SMALL) and not weight.flags.writeable
        sizes.add(weight.size > SMALL)
    assert sizes == {True, False}


def test_a_data_file_that_is_too_short_is_named(tmp_path: Path) -> None:
    path = graphs.external(tmp_path, width=64)
    data = tmp_path / "model.bin"
    data.write_bytes(data.read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"external data of '.*' cannot be read from model\.bin"):
        load(path)


def test_a_size_beyond_any_file_is_refused(tmp_path: Path) -> None:
    path = graphs.external(tmp_path, width=64)
    proto = onnx.load(path, load_external_data=False)
    next(t for t in proto.graph.initializer if t.external_data).dims[:] = [2**62, 2**62]
    onnx.save(proto, path)
    with pytest.raises(ModelError):
        load(path)
