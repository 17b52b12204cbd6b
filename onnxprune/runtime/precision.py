"""Models in float16. Law: inputs and outputs stay what they were, so that both precisions take the same data."""

from __future__ import annotations

import importlib
from typing import Any

import onnx
from onnx import numpy_helper

from onnxprune.errors import ModelError, RuntimeUnavailable
from onnxprune.runtime.execute import parsed
from onnxprune.runtime.sessions import PROTO_LIMIT, Source, brief, weight_bytes


def half(model: Source) -> onnx.ModelProto:
    """A copy of a model that computes in float16, between float32 inputs and outputs.

    onnxruntime's own converter does it (`onnxruntime.transformers.float16`): the package onnxconverter-common that it
    was taken from is no longer kept up.

    Raises:
        ModelError: The model cannot be converted, or is too large for one protobuf.
        RuntimeUnavailable: This onnxruntime has no converter.
    """
    proto = whole(model)
    try:
        converter: Any = importlib.import_module("onnxruntime.transformers.float16")
    except ImportError as error:
        what = f"onnxruntime's float16 converter cannot be imported ({brief(error)})"
        raise RuntimeUnavailable(what, remedy="install a complete onnxruntime, or leave float16 away") from error
    try:
        converted: onnx.ModelProto = converter.convert_float_to_float16(proto, keep_io_types=True)
    except Exception as error:
        what = f"the model cannot be converted to float16 ({brief(error)})"
        raise ModelError(what, remedy="time it in float32") from error
    return converted


def whole(model: Source) -> onnx.ModelProto:
    """A copy of a model as one protobuf, weights inside.

    Raises:
        ModelError: It is too large for that.
    """
    held, proto = parsed(model), onnx.ModelProto()
    weights = {} if isinstance(held, onnx.ModelProto) else held.weights
    source = held if isinstance(held, onnx.ModelProto) else held.proto
    if weight_bytes(source) + sum(a.nbytes for a in weights.values()) >= PROTO_LIMIT:
        raise ModelError("the model is too large to convert: 2 GiB and more", remedy="time it in float32")
    proto.CopyFrom(source)
    for tensor in proto.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    return proto
