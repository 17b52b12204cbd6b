"""Run sessions: for their outputs, for tensors inside them, for timing. Law: no model is changed by running it."""

from __future__ import annotations

import ctypes
import difflib
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard, cast

import numpy as np
import onnx
from onnx import helper

from onnxprune.errors import ModelError
from onnxprune.graph import every_node
from onnxprune.runtime import sessions
from onnxprune.runtime.sessions import Array, Feeds, Session, Source, Weighted, ort_value, refusals, session, unusual

# Where a provider's inputs and outputs live; a provider not listed works on host memory.
DEVICES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda", "DmlExecutionProvider": "dml"}


def run(model: Source | Session, feeds: Feeds, outputs: list[str] | None = None) -> dict[str, Array]:
    """Run once and return output name -> array, for all outputs or those named.

    Raises:
        DataError: The feeds do not fit the model's inputs.
        RuntimeUnavailable: The model cannot be opened, or fails while it runs.
    """
    opened = model if _is_session(model) else session(cast(Source, model))
    names = [o.name for o in opened.get_outputs()] if outputs is None else list(outputs)
    kinds = {o.name: o.type for o in opened.get_outputs()}
    odd = any(unusual(leaf.dtype) for value in feeds.values() for leaf in leaves(value))
    odd = odd or any("bfloat" in kinds.get(n, "") or "float8" in kinds.get(n, "") for n in names)
    with refusals("cannot run the model", ""):
        if not odd:
            return dict(zip(names, opened.run(names, dict(feeds)), strict=True))
        values = {name: ort_value(np.asarray(a, order="C")) for name, a in feeds.items()}
        return {n: _to_numpy(v) for n, v in zip(names, opened.run_with_ort_values(names, values), strict=True)}


def leaves(value: Any) -> Iterator[Array]:
    """The tensors of an output, in order: of a list those of its items, of a map its keys, ascending, and their values.

    An optional output that is absent has none.
    """
    if isinstance(value, Mapping):
        yield np.asarray(sorted(value), dtype=object)
        yield np.asarray([value[key] for key in sorted(value)])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)
    elif value is not None:
        yield np.asarray(value, dtype=object) if isinstance(value, str) else np.asarray(value)


def _is_session(model: object) -> TypeGuard[Session]:
    return callable(getattr(model, "run_with_iobinding", None))


def _to_numpy(value: Any) -> Array:
    """Copy an OrtValue out, also of the types onnxruntime cannot turn into numpy arrays."""
    dtype = helper.tensor_dtype_to_np_dtype(value.element_type())
    if not unusual(dtype):
        return np.asarray(value.numpy())
    shape = tuple(value.shape())
    raw = ctypes.string_at(value.data_ptr(), math.prod(shape) * dtype.itemsize)
    return np.frombuffer(raw, dtype).reshape(shape)


def runner(opened: Session, feeds: Feeds) -> Callable[[], None]:
    """A function that runs the session once on these feeds, for timing.

    On a device the inputs and outputs are placed there beforehand and each call waits for the device, so that a call
    times the model and not the copies (onnxruntime's IO binding).
    """
    device = DEVICES.get(opened.get_providers()[0], "cpu")
    if device != "cpu" or any(unusual(a.dtype) for a in feeds.values()):
        return bound_runner(opened, feeds, device)
    held = dict(feeds)

    def once() -> None:
        opened.run(None, held)

    with refusals("cannot run the model", ""):
        once()
    return once


def bound_runner(opened: Session, feeds: Feeds, device: str) -> Callable[[], None]:
    """`runner` with inputs and outputs bound to a device's memory; the first run finds the outputs' sizes."""
    binding = opened.io_binding()

    def once() -> None:
        opened.run_with_iobinding(binding)
        binding.synchronize_outputs()

    with refusals("cannot run the model", ""):
        for name, array in feeds.items():
            binding.bind_ortvalue_input(name, ort_value(np.asarray(array, order="C"), device))
        for output in opened.get_outputs():
            binding.bind_output(output.name, device)
        binding.synchronize_inputs()
        once()
        for output, value in zip(opened.get_outputs(), binding.get_outputs(), strict=True):
            binding.bind_ortvalue_output(output.name, value)
    return once


def capture(
    model: Source, feeds: Feeds, names: Iterable[str], *, threads: int = 1, optimise: bool = False
) -> dict[str, Array]:
    """The values of named tensors inside the main graph, on one run.

    Args:
        model: Any model `session` takes; it is not changed.
        feeds: Input name -> array.
        names: Tensors: inputs, outputs, initializers, or anything between.
        threads: Threads inside one operator.
        optimise: Let onnxruntime fuse what lies between the named tensors; off, every node runs as it is written.

    Raises:
        ModelError: No tensor has such a name.
    """
    wanted = list(dict.fromkeys(names))
    if not wanted:
        return {}
    graph, arrays = sessions.detach(parsed(model))
    present = {o.name for o in graph.graph.output}
    _refuse_unknown(graph.graph, wanted)
    for name in wanted:
        if name not in present:
            graph.graph.output.add().name = name  # onnxruntime infers the type
    opened = session(sessions.Parts(graph, arrays), threads=threads, optimise=optimise)
    return run(opened, feeds, wanted)


def parsed(model: Source) -> onnx.ModelProto | Weighted:
    """The model as a protobuf, if it is not one already."""
    if isinstance(model, bytes):
        return onnx.load_model_from_string(model)
    return onnx.load(model) if isinstance(model, str | Path) else model


def _refuse_unknown(graph: onnx.GraphProto, wanted: list[str]) -> None:
    """Raise ModelError for a name that no tensor of the graph has."""
    known = {o for node in graph.node for o in node.output if o}
    known |= {i.name for i in graph.input} | {t.name for t in graph.initializer}
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            remedy = f"did you mean '{near[0]}'?" if near else "names are those of the ONNX graph"
            raise ModelError(f"no tensor is named '{name}'", remedy=remedy)


def optimised_ops(model: Source, *, provider: str = "cpu") -> Counter[str]:
    """Kinds and numbers of the nodes onnxruntime really runs after optimisation, as 'domain::op' -> count.

    Raises:
        RuntimeUnavailable: onnxruntime refuses the model.
    """
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
        path = Path(folder) / "optimised.onnx"
        options = sessions.session_options()
        sessions.keep_optimised(options, path)
        sessions.open_session(model, options, sessions.provider_name(provider))
        graph = onnx.load(path, load_external_data=False).graph
    return Counter(f"{node.domain or 'ai.onnx'}::{node.op_type}" for node in every_node(graph))


def signature(opened: Session) -> dict[str, tuple[str, tuple[int | str | None, ...]]]:
    """Input name -> (type such as 'tensor(float)', shape)."""
    return {i.name: (str(i.type), tuple(i.shape)) for i in opened.get_inputs()}
