"""Weights kept outside the .onnx file. Law: nothing outside its folder is read, and large ones are mapped."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, external_data_helper

from onnxprune.errors import ModelError
from onnxprune.graph import subgraphs

Array = NDArray[Any]


def every_tensor(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """All tensors stored in a graph: its initializers first, then attributes, and those of nested bodies."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors
        for body in subgraphs(node):
            yield from every_tensor(body)


def locations(tensor: TensorProto) -> list[str]:
    """Where a tensor's external data lies, as the file says: one entry, or none."""
    external = tensor.data_location == TensorProto.EXTERNAL
    return [e.value for e in tensor.external_data if external and e.key == "location"]


def fetch_external(proto: onnx.ModelProto, path: Path, small: int) -> dict[str, Array]:
    """Read the external data of every tensor, refusing files outside the model's folder.

    Args:
        proto: The model, whose tensors get their data.
        path: Its file.
        small: Elements up to which an initializer is read rather than mapped.

    Returns:
        Large initializers, which are mapped into memory and read only when they are looked at; the others get their
        data in the proto.
    """
    folder, held = path.parent.resolve(), {}
    for i, tensor in enumerate(every_tensor(proto.graph)):
        if not external_data_helper.uses_external_data(tensor):
            continue
        location = "".join(locations(tensor))
        file = (folder / location.replace("\0", "?")).resolve()
        if not file.is_relative_to(folder):
            what = f"external data of '{tensor.name}' points outside the model's folder: {location}"
            raise ModelError(what, where=str(path), remedy="move the data file beside the model")
        try:
            array = map_external(tensor, file, small) if i < len(proto.graph.initializer) else None
            if array is None:
                external_data_helper.load_external_data_for_tensor(tensor, str(folder))
            else:
                held[tensor.name] = array
        except (OSError, ValueError, OverflowError, onnx.checker.ValidationError) as error:
            what = f"external data of '{tensor.name}' cannot be read from {location}"
            remedy = "copy the data file beside the model"
            raise ModelError(what, where=f"{path}: {error}", remedy=remedy) from error
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
    return held


def map_external(tensor: TensorProto, file: Path, small: int) -> Array | None:
    """A large tensor whose data lies in a file as numpy would lay it out; None for any other.

    Raises:
        OSError, ValueError: The file is missing or too short.
    """
    info = external_data_helper.ExternalDataInfo(tensor)
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    size = math.prod(tensor.dims)
    packed = kind.name.startswith(("int4", "uint4", "int2", "uint2", "float4"))
    if size <= small or packed or info.length not in (None, size * kind.itemsize) or sys.byteorder != "little":
        return None
    return np.asarray(np.memmap(file, kind, "r", info.offset or 0, tuple(tensor.dims)))
