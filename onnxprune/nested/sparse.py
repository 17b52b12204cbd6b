"""Tensors stored as indices and values. Law: the dense form holds the same numbers, or the tensor stays as it is."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.model import Array, take_data

DENSE_LIMIT = 2**24  # elements: 64 MB of float32; a runtime holds sparse weights densely anyway, the file would not


def expand_sparse(graph: onnx.GraphProto, weights: dict[str, Array], where: str) -> None:
    """Replace the sparse initializers of a graph by dense ones, where that is reasonable (in place).

    Raises:
        ModelError: The indices of one do not fit its dimensions.
    """
    for i in reversed(range(len(graph.sparse_initializer))):
        if (tensor := dense_tensor(graph.sparse_initializer[i], where)) is not None:
            weights[tensor.name] = take_data(tensor, where)
            graph.initializer.append(tensor)
            del graph.sparse_initializer[i]


def dense_tensor(sparse: onnx.SparseTensorProto, where: str) -> TensorProto | None:
    """The dense form of a sparse tensor; None for text and where it would be too large.

    Raises:
        ModelError: Its indices do not fit its dimensions.
    """
    dims, name = tuple(sparse.dims), sparse.values.name
    if sparse.values.data_type == TensorProto.STRING or int(np.prod(dims, dtype=np.float64)) > DENSE_LIMIT:
        return None
    try:
        values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
        flat = indices.ravel() if indices.ndim < 2 else np.ravel_multi_index(tuple(indices.T), dims)
        if flat.size != values.size or (flat.size and (flat.min() < 0 or flat.max() >= np.prod(dims))):
            raise ValueError("its indices do not fit its dimensions")
    except (ValueError, TypeError, RuntimeError, KeyError) as error:
        what = f"sparse tensor '{name}' is damaged: {error}"
        raise ModelError(what, where=where, remedy="export the model again") from error
    dense = np.zeros(dims, dtype=values.dtype)
    dense.ravel()[flat] = values.ravel()
    return numpy_helper.from_array(dense, name)
