"""The only door to onnxruntime. Law: a session's provider and threads are what the caller named, or an error says why.

Nothing here changes a model it is given. Models are read from a path, bytes, a ModelProto, or anything that keeps a
graph (`proto`) and its arrays (`weights`) apart; in that case, and for models too large for one protobuf, onnxruntime
is handed the arrays where they lie: no copy, no temporary file.
"""

from __future__ import annotations

import contextlib
import ctypes
import difflib
import importlib
import math
import os
import platform
import re
import tempfile
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
from google.protobuf.message import Message
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import DataError, ModelError, OnnxpruneError, ProviderError, RuntimeUnavailable

Array = NDArray[Any]
Feeds = Mapping[str, Array]

PROTO_LIMIT = 2**31 - 2**20  # bytes: protobuf refuses 2 GiB; leave room for the graph itself
SMALL = 1024  # elements: tensors up to here stay in the graph, where onnxruntime's shape inference reads them
# Where a provider's inputs and outputs live; a provider not listed works on host memory.
DEVICES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda", "DmlExecutionProvider": "dml"}
# Tried in turn for sizes a model leaves open: (height and width, length of a sequence).
GUESSES = ((224, 16), (256, 128), (64, 64), (640, 512), (32, 1), (299, 256))


class Weighted(Protocol):
    """A graph and its weights held apart, such as `onnxprune.model.Model`."""

    @property
    def proto(self) -> onnx.ModelProto:
        """The graph; initializers named in `weights` may have no data."""

    @property
    def weights(self) -> Mapping[str, Array]:
        """Initializer name -> array."""


class Session(Protocol):
    """The part of onnxruntime's InferenceSession that this package uses."""

    def run(self, output_names: list[str] | None, input_feed: Any) -> list[Any]:
        """Run once, on host arrays."""

    def run_with_ort_values(self, output_names: list[str] | None, input_dict_ort_values: Any) -> list[Any]:
        """Run once, on OrtValues."""

    def run_with_iobinding(self, iobinding: Any) -> None:
        """Run once, on what is bound."""

    def io_binding(self) -> Any:
        """A new, empty binding."""

    def get_inputs(self) -> list[Any]:
        """Inputs, each with name, type and shape."""

    def get_outputs(self) -> list[Any]:
        """Outputs, each with name, type and shape."""

    def get_providers(self) -> list[str]:
        """Providers in order of preference."""


Source = onnx.ModelProto | str | Path | bytes | Weighted


def session(
    model: Source,
    *,
    provider: str = "cpu",
    threads: int = 1,
    optimise: bool = True,
    spinning: bool = False,
    log_level: int = 4,
) -> Session:
    """Open a model in onnxruntime.

    Args:
        model: Path, serialised bytes, ModelProto, or a graph with its weights apart.
        provider: cpu, cuda, tensorrt, or any execution provider onnxruntime lists, in any case.
        threads: Threads inside one operator; operators themselves run one after another.
        optimise: All graph optimisations, or none.
        spinning: Let idle threads spin. Off, so that two sessions in one process do not take each other's cores.
        log_level: onnxruntime's threshold, 0 (verbose) to 4 (fatal only: errors are raised, they need no log line too).

    Raises:
        ProviderError: The provider is absent or does not start.
        RuntimeUnavailable: onnxruntime is not installed, or refuses the model.
        ModelError: No file at that path.
    """
    options = session_options(threads=threads, optimise=optimise, spinning=spinning, log_level=log_level)
    return _open(model, options, provider_name(provider))


def session_options(*, threads: int = 1, optimise: bool = True, spinning: bool = False, log_level: int = 4) -> Any:
    """The SessionOptions for the arguments of `session`."""
    if threads < 1:
        raise DataError(f"{threads} threads were asked for", remedy="ask for 1 or more")
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    options.log_severity_level = log_level
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    return options


def onnxruntime() -> Any:
    """The onnxruntime module, imported when first needed: it is an extra, and slow to import."""
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        remedy = "pip install onnxprune[cpu], or onnxprune[gpu] for CUDA and TensorRT"
        raise RuntimeUnavailable(f"onnxruntime cannot be imported ({brief(error)})", remedy=remedy) from error


def provider_name(provider: str) -> str:
    """The name onnxruntime itself uses for a provider: 'cuda' -> 'CUDAExecutionProvider'.

    Raises:
        ProviderError: The installed onnxruntime does not have it; those it has are listed.
    """
    present = list(onnxruntime().get_available_providers())
    wanted = provider.lower().removesuffix("executionprovider")
    for name in present:
        if str(name).lower().removesuffix("executionprovider") == wanted:
            return str(name)
    here = ", ".join(name.removesuffix("ExecutionProvider").lower() for name in present)
    gpu = wanted in ("cuda", "tensorrt")
    remedy = "pip install onnxprune[gpu]" if gpu else "use one of those present"
    raise ProviderError(f"onnxruntime has no provider '{provider}'", where=f"present: {here}", remedy=remedy)


def _open(model: Source, options: Any, provider: str) -> Session:
    """Create the session and make sure the wanted provider really runs: onnxruntime falls back without an error."""
    content, kept = _content(model, options)
    where = str(model) if isinstance(model, str | Path) else ""
    providers = list(dict.fromkeys([provider, *_fallbacks(provider), "CPUExecutionProvider"]))
    with refusals("refuses the model", where):
        opened: Session = onnxruntime().InferenceSession(content, options, providers=providers)
    if opened.get_providers()[0] != provider:
        remedy = "install the drivers and libraries it needs, or use the provider 'cpu'"
        raise ProviderError(f"{provider} does not start on this machine", where=where, remedy=remedy)
    weakref.finalize(opened, kept.clear)  # onnxruntime reads these arrays in place: they live as long as the session
    return opened


def _fallbacks(provider: str) -> list[str]:
    """TensorRT leaves the nodes it cannot take to CUDA."""
    return ["CUDAExecutionProvider"] if provider == "TensorrtExecutionProvider" else []


def _content(model: Source, options: Any) -> tuple[str | bytes, list[Any]]:
    """What to hand to InferenceSession, and the OrtValues that must outlive it; declares those in `options`."""
    if isinstance(model, str | Path):
        if not Path(model).is_file():
            raise ModelError("no such file", where=str(model), remedy="check the path")
        return str(model), []
    if isinstance(model, bytes):
        return model, []
    if isinstance(model, onnx.ModelProto) and weight_bytes(model) < PROTO_LIMIT:
        return model.SerializeToString(), []
    graph, arrays = detach(model)
    values = [ort_value(array) for array in arrays.values()]
    options.add_external_initializers(list(arrays), values)
    return graph.SerializeToString(), values


def weight_bytes(proto: onnx.ModelProto) -> int:
    """Bytes of the initializers' values.

    Protobuf's ByteSize would serialise the whole model to count it, and fails at 2 GiB.
    """
    total = 0
    for tensor in proto.graph.initializer:
        if tensor.data_type != TensorProto.STRING and tensor.data_location != TensorProto.EXTERNAL:
            total += math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return total


def detach(model: onnx.ModelProto | Weighted) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A copy of the graph whose large initializers are declared external, and their arrays; `model` is untouched."""
    proto, weights = (model, {}) if isinstance(model, onnx.ModelProto) else (model.proto, dict(model.weights))
    graph, arrays = onnx.ModelProto(), {}
    _copy_fields(proto, graph, leave="graph")
    _copy_fields(proto.graph, graph.graph, leave="initializer")
    for tensor in proto.graph.initializer:
        entry = graph.graph.initializer.add()
        array = weights.get(tensor.name)
        if array is None and _detachable(tensor):
            array = numpy_helper.to_array(tensor)
        if array is not None and array.size > SMALL:
            arrays[tensor.name] = np.ascontiguousarray(array)
            entry.name, entry.data_type, entry.data_location = tensor.name, tensor.data_type, TensorProto.EXTERNAL
            entry.dims.extend(array.shape)
            entry.external_data.add(key="location", value="in-memory")  # never opened: the array replaces it
        elif array is not None:
            entry.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))
        else:
            entry.CopyFrom(tensor)
    return graph, arrays


def _detachable(tensor: TensorProto) -> bool:
    """Whether onnxruntime can be handed this tensor as an array: large, present, and of whole bytes per element."""
    if math.prod(tensor.dims) <= SMALL or tensor.data_location == TensorProto.EXTERNAL:
        return False
    packed = (TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1, TensorProto.STRING)
    return tensor.data_type not in packed


def _copy_fields(source: Message, target: Message, *, leave: str) -> None:
    """Copy every set field but one: a message without its heavy part."""
    for field, value in source.ListFields():
        if field.name == leave:
            continue
        if isinstance(value, Message):
            getattr(target, field.name).CopyFrom(value)
        elif isinstance(value, str | bytes | int | float):
            setattr(target, field.name, value)
        else:
            getattr(target, field.name).extend(value)


def ort_value(array: Array, device: str = "cpu") -> Any:
    """The array as an OrtValue. On the CPU it shares the array's memory and keeps the array alive."""
    ort = onnxruntime()
    if not unusual(array.dtype):
        return ort.OrtValue.ortvalue_from_numpy(array, device, 0)
    # numpy itself has no bfloat16 or float8, so onnxruntime must be told; it takes these from the host only.
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, helper.np_dtype_to_tensor_dtype(array.dtype))


def unusual(dtype: np.dtype[Any]) -> bool:
    """Whether numpy itself lacks this type (bfloat16, float8: the ml_dtypes package has them)."""
    return dtype.name.startswith(("bfloat", "float8"))


def run(model: Source | Session, feeds: Feeds, outputs: list[str] | None = None) -> dict[str, Array]:
    """Run once and return output name -> array, for all outputs or those named.

    Raises:
        DataError: The feeds do not fit the model's inputs.
        RuntimeUnavailable: The model cannot be opened, or fails while it runs.
    """
    opened: Session = model if _is_session(model) else session(model)  # type: ignore[assignment, arg-type]
    names = [o.name for o in opened.get_outputs()] if outputs is None else list(outputs)
    kinds = {o.name: o.type for o in opened.get_outputs()}
    odd = any(unusual(np.asarray(a).dtype) for a in feeds.values())
    odd = odd or any("bfloat" in kinds.get(n, "") or "float8" in kinds.get(n, "") for n in names)
    with refusals("cannot run the model", ""):
        if not odd:
            return dict(zip(names, opened.run(names, dict(feeds)), strict=True))
        values = {name: ort_value(np.ascontiguousarray(a)) for name, a in feeds.items()}
        return {n: _to_numpy(v) for n, v in zip(names, opened.run_with_ort_values(names, values), strict=True)}


def _is_session(model: object) -> bool:
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
            binding.bind_ortvalue_input(name, ort_value(np.ascontiguousarray(array), device))
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
    graph, arrays = detach(_parsed(model))
    present = {o.name for o in graph.graph.output}
    _refuse_unknown(graph.graph, wanted)
    for name in wanted:
        if name not in present:
            graph.graph.output.add().name = name  # onnxruntime infers the type
    opened = session(_Parts(graph, arrays), threads=threads, optimise=optimise)
    return run(opened, feeds, wanted)


class _Parts:
    """A graph and its weights, apart."""

    def __init__(self, proto: onnx.ModelProto, weights: Mapping[str, Array]) -> None:
        self.proto, self.weights = proto, weights


def _parsed(model: Source) -> onnx.ModelProto | Weighted:
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


def random_feeds(
    model: Source, *, batch: int = 1, seed: int = 0, sizes: Mapping[str, int] | None = None
) -> dict[str, Array]:
    """Seeded random arrays for every input of a model: normal floats, integers 0 or 1, random booleans.

    Sizes the model leaves open: the first axis is the batch; a symbol has one size everywhere; others are guessed
    (224 x 224 images with 3 channels, sequences of 16), and if the model does not run on a guess the next is tried.

    Args:
        model: Any model `session` takes.
        batch: Size of an open first axis.
        seed: Same seed, same arrays.
        sizes: Symbol, or 'input.axis' ('images.2'), -> size; overrides every guess.

    Raises:
        DataError: An input has no tensor type or no rank, holds text, or no guess makes the model run.
    """
    inputs = _fed(model)
    shapes = [_shapes(inputs, batch, guess, dict(sizes or {})) for guess in GUESSES]
    _refuse_unused(inputs, sizes or {})
    first = draw(inputs, shapes[0], seed)
    if all(other == shapes[0] for other in shapes):
        return first
    opened = session(model, optimise=False)
    for guess in shapes:
        feeds = draw(inputs, guess, seed)
        with contextlib.suppress(DataError, RuntimeUnavailable):
            run(opened, feeds)
            return feeds
    names = ", ".join(f"'{i.name}'" for i in inputs)
    remedy = "give the data (--data X.npz), or the sizes of the open axes"
    raise DataError("no guess at the open input sizes makes the model run", where=f"inputs {names}", remedy=remedy)


def _fed(model: Source) -> list[onnx.ValueInfoProto]:
    """The graph inputs that are not initializers."""
    proto: Any = model
    if isinstance(model, str | Path):
        proto = onnx.load(model, load_external_data=False)
    elif not isinstance(model, onnx.ModelProto):
        parsed = _parsed(model)
        proto = parsed if isinstance(parsed, onnx.ModelProto) else parsed.proto
    held = {t.name for t in proto.graph.initializer} | {t.values.name for t in proto.graph.sparse_initializer}
    return [i for i in proto.graph.input if i.name not in held]


def _shapes(
    inputs: list[onnx.ValueInfoProto], batch: int, guess: tuple[int, int], known: dict[str, int]
) -> list[tuple[int, ...]]:
    """One shape per input; `known` collects the size of each symbol as it is met."""
    shapes = []
    for value in inputs:
        if value.type.WhichOneof("value") != "tensor_type" or not value.type.tensor_type.HasField("shape"):
            what = f"input '{value.name}' is not a tensor of known rank"
            raise DataError(what, remedy="give it as data (--data X.npz)")
        dims = value.type.tensor_type.shape.dim
        last = dims[-1].dim_value if dims else 0
        shape = []
        for axis, dim in enumerate(dims):
            own = f"{value.name}.{axis}"
            # Recurrent state is (layers, batch, features): a fixed first axis puts the batch second.
            is_batch = axis == 0 or (axis == 1 and len(dims) == 3 and dims[0].dim_value > 1 and last > 0)
            default = batch if is_batch or _names_batch(dim.dim_param) else _guessed(axis, len(dims), last, guess)
            open_size = known[own] if own in known else known.setdefault(dim.dim_param or own, default)
            shape.append(dim.dim_value if dim.dim_value > 0 else open_size)
        shapes.append(tuple(shape))
    return shapes


def _names_batch(symbol: str) -> bool:
    return "batch" in symbol.lower() or symbol == "N"


def _guessed(axis: int, rank: int, last: int, guess: tuple[int, int]) -> int:
    """A size for an open axis: colour channels, height and width of images and volumes, or a sequence's length."""
    if rank < 4:
        return guess[1]
    channels_last = last in (1, 3, 4)
    return 3 if axis == 1 and not channels_last else guess[0]


def _refuse_unused(inputs: list[onnx.ValueInfoProto], sizes: Mapping[str, int]) -> None:
    """Raise DataError for a size that names no open axis: a typing mistake would otherwise pass unseen."""
    axes = [(i.name, a, d) for i in inputs for a, d in enumerate(i.type.tensor_type.shape.dim) if d.dim_value <= 0]
    known = {f"{name}.{axis}" for name, axis, _ in axes} | {d.dim_param for _, _, d in axes if d.dim_param}
    for name in sizes:
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise DataError(f"'{name}' is no open input axis", where=f"open: {listed}", remedy="name one of those")


def draw(inputs: list[onnx.ValueInfoProto], shapes: list[tuple[int, ...]], seed: int) -> dict[str, Array]:
    """Random arrays of these shapes and the inputs' declared types."""
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for value, shape in zip(inputs, shapes, strict=True):
        kind = value.type.tensor_type.elem_type
        if kind in (TensorProto.STRING, TensorProto.UNDEFINED):
            what = f"input '{value.name}' holds text" if kind else f"input '{value.name}' has no type"
            raise DataError(what, remedy="give it as data (--data X.npz)")
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        whole = dtype.kind in "iub" or dtype.name.startswith(("int", "uint"))
        feeds[value.name] = (rng.integers(0, 2, shape) if whole else rng.standard_normal(shape)).astype(dtype)
    return feeds


def optimised_ops(model: Source, *, provider: str = "cpu") -> Counter[str]:
    """Kinds and numbers of the nodes onnxruntime really runs after optimisation, as 'domain::op' -> count.

    Raises:
        RuntimeUnavailable: onnxruntime refuses the model.
    """
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
        path = Path(folder) / "optimised.onnx"
        options = session_options()
        options.optimized_model_filepath = str(path)
        # Weights go to a file of their own: the graph then fits one protobuf whatever the model's size.
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights.bin")
        _open(model, options, provider_name(provider))
        graph = onnx.load(path, load_external_data=False).graph
    return Counter(f"{node.domain or 'ai.onnx'}::{node.op_type}" for node in _every_node(graph))


def _every_node(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of nested bodies included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in [attribute.g, *attribute.graphs]:
                yield from _every_node(body)


def signature(opened: Session) -> dict[str, tuple[str, tuple[int | str | None, ...]]]:
    """Input name -> (type such as 'tensor(float)', shape)."""
    return {i.name: (str(i.type), tuple(i.shape)) for i in opened.get_inputs()}


def environment() -> dict[str, Any]:
    """What a measured time depends on: software versions, the processor, its vector instructions, its load."""
    ort = onnxruntime()
    model, flags = _processor()
    return {
        "onnxruntime": str(ort.__version__),
        "providers": [str(p) for p in ort.get_available_providers()],
        "cpu": model,
        "simd": flags,
        "cores": os.cpu_count() or 1,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def _processor() -> tuple[str, list[str]]:
    """Processor name and the vector instruction sets it has, as far as the system tells."""
    fallback = platform.processor() or platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return fallback, []
    pairs = [line.partition(":") for line in text.split("\n\n")[0].splitlines()]
    facts = {key.strip().lower(): value.strip() for key, _, value in pairs}
    flags = facts.get("flags", facts.get("features", "")).split()
    vector = re.compile(r"sse4|avx|fma$|f16c|amx|asimd|neon|sve|sme\d?$|bf16|i8mm|rvv")
    return facts.get("model name", fallback), sorted(flag for flag in flags if vector.match(flag))


def brief(error: BaseException) -> str:
    """An exception's message on one line, without onnxruntime's codes and source positions, 240 characters at most."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ", "", text)
    text = re.sub(r"\S*\.(?:cc|h|cpp):\d+ \S+::\S+\(.*?\)(?: \[\S*\])? ", "", text)
    return text if len(text) <= 240 else text[:237] + "..."


@contextlib.contextmanager
def refusals(what: str, where: str) -> Iterator[None]:
    """Turn whatever onnxruntime raises into one of our errors, on one line."""
    try:
        yield
    except OnnxpruneError:
        raise
    except Exception as error:
        if type(error).__name__ in ("InvalidArgument", "ValueError") and what.startswith("cannot run"):
            remedy = "feed every input an array of its type and shape"
            raise DataError(f"onnxruntime {what} on this data: {brief(error)}", where=where, remedy=remedy) from error
        remedy = "check the model with onnx.checker, or try another onnxruntime version"
        raise RuntimeUnavailable(f"onnxruntime {what}: {brief(error)}", where=where, remedy=remedy) from error
