"""Open models in onnxruntime. Law: the provider and threads are what the caller named, or an error says why.

A graph that comes with its weights apart, or is too large for one protobuf, is handed over with the arrays where they
lie: no copy, no temporary file.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import re
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
from google.protobuf.message import Message
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import DataError, ModelError, OnnxpruneError, ProviderError, RuntimeUnavailable
from onnxprune.runtime.accelerators import RECORD, assigned, failure, preload

Array = NDArray[Any]
Feeds = Mapping[str, Array]
MAPPED = 2**28  # bytes of weights from which onnxruntime is given a file to map
PROTO_LIMIT = 2**31 - 2**20  # bytes: protobuf refuses 2 GiB; leave room for the graph itself
PACKED = (TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1)  # of less than a byte: they stay in the graph
SMALL = 1024  # elements: tensors up to here stay in the graph, where onnxruntime's shape inference reads them
CPU = "CPUExecutionProvider"


class Weighted(Protocol):
    """A graph and its weights held apart, such as `onnxprune.model.Model`."""

    @property
    def proto(self) -> onnx.ModelProto:
        """The graph; initializers named in `weights` may have no data."""

    @property
    def weights(self) -> Mapping[str, Array]:
        """Initializer name -> array."""


@dataclass(frozen=True, eq=False)
class Parts:
    """A graph and its weights, apart."""

    proto: onnx.ModelProto
    weights: Mapping[str, Array]


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

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        """Provider -> its options, defaults included."""


Source = onnx.ModelProto | str | Path | bytes | Weighted


def session(
    model: Source,
    *,
    provider: str = "cpu",
    threads: int = 1,
    optimise: bool = True,
    spinning: bool = False,
    log_level: int = 4,
    fp16: bool = False,
) -> Session:
    """Open a model in onnxruntime.

    Args:
        model: Path, serialised bytes, ModelProto, or a graph with its weights apart.
        provider: cpu, cuda, tensorrt, or any execution provider onnxruntime lists, in any case.
        threads: Threads inside one operator; operators themselves run one after another.
        optimise: All graph optimisations, or none.
        spinning: Let idle threads spin. Off, so that two sessions in one process do not take each other's cores.
        log_level: onnxruntime's threshold, 0 (verbose) to 4 (fatal only: errors are raised, they need no log line too).
        fp16: The model holds float16: TensorRT takes it only when told so.

    Raises:
        ProviderError: The provider is absent or does not start.
        RuntimeUnavailable: onnxruntime is not installed, or refuses the model.
        ModelError: No file at that path.
    """
    options = session_options(threads=threads, optimise=optimise, spinning=spinning, log_level=log_level)
    return open_session(model, options, provider_name(provider), fp16=fp16)


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
    if not optimise:  # packed copies of the weights pay in speed alone
        options.add_session_config_entry("session.disable_prepacking", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    return options


def keep_optimised(options: Any, path: Path) -> None:
    """Let a session write the graph that it runs.

    Weights go to a file of their own: the graph then fits one protobuf whatever the model's size.
    """
    options.optimized_model_filepath = str(path)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights.bin")


def onnxruntime() -> Any:
    """The onnxruntime module, imported when first needed: it is an extra, and slow to import."""
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        if isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error  # Ctrl-C while its extension module was loading
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


def open_session(model: Source, options: Any, provider: str, *, fp16: bool = False) -> Session:
    """Create the session and make sure the wanted provider really runs: onnxruntime falls back without an error."""
    where = str(model) if isinstance(model, str | Path) else ""
    ort, providers = onnxruntime(), provider_list(provider, fp16=fp16)
    missing = preload(ort, provider)
    if provider != CPU:
        options.add_session_config_entry(RECORD, "1")
        if why := failure(ort, provider, providers):
            raise does_not_start(provider, where, missing or brief(why))
    with tempfile.TemporaryDirectory(prefix="onnxprune-", ignore_cleanup_errors=True) as folder:
        content, kept = _content(model, options, Path(folder))
        with refusals("refuses the model", where):  # without fallback: it would open and run on the CPU what fails
            opened: Session = ort.InferenceSession(content, options, providers=providers, enable_fallback=0)
    _refuse_elsewhere(opened, provider, where, missing)
    weakref.finalize(opened, kept.clear)  # onnxruntime reads these arrays in place: they live as long as the session
    return opened


def does_not_start(provider: str, where: str, why: str) -> ProviderError:
    """The error for a provider that this onnxruntime has, and this machine cannot run."""
    reason = f" ({why})" if why else ""
    remedy = "install the drivers and libraries it needs, or use the provider 'cpu'"
    return ProviderError(f"{provider} does not start on this machine{reason}", where=where, remedy=remedy)


def _refuse_elsewhere(opened: Session, provider: str, where: str, missing: str) -> None:
    """Raise ProviderError for a session that the provider does not run."""
    if opened.get_providers()[0] != provider:
        raise does_not_start(provider, where, missing)
    nodes = assigned(opened) if provider != CPU else None
    if nodes and not nodes[provider]:
        what = f"{provider} takes none of the model's {nodes.total()} nodes: they would run elsewhere"
        raise ProviderError(what, where=where, remedy="use the provider 'cpu'")


def provider_list(provider: str, *, fp16: bool = False) -> list[str | tuple[str, dict[str, str]]]:
    """What InferenceSession is told: a provider, then those that take what it cannot, with options where they count.

    CUDA searches all convolution algorithms at the first run of each shape: that is onnxruntime's default, and stated
    so that it stays. TensorFloat-32 is left at onnxruntime's default.
    """
    options = {"CUDAExecutionProvider": {"cudnn_conv_algo_search": "EXHAUSTIVE"}}
    if fp16:
        options["TensorrtExecutionProvider"] = {"trt_fp16_enable": "1"}
    others = ["CUDAExecutionProvider"] if provider == "TensorrtExecutionProvider" else []
    names = dict.fromkeys([provider, *others, CPU])
    return [(name, options[name]) if name in options else name for name in names]


def store(model: onnx.ModelProto | bytes | Weighted, folder: Path) -> Path:
    """Write a model into an empty folder, its weights in a file beside it where they are apart or large; its file."""
    path = folder / "model.onnx"
    if isinstance(model, bytes):
        path.write_bytes(model)
    elif isinstance(model, onnx.ModelProto) and weight_bytes(model) < PROTO_LIMIT:
        path.write_bytes(model.SerializeToString())
    else:
        return _write(*detach(model), folder)
    return path


def _content(model: Source, options: Any, folder: Path) -> tuple[str | bytes, list[Any]]:
    """What to hand to InferenceSession, and the OrtValues that must outlive it; declares those in `options`.

    onnxruntime copies the arrays it is handed, but maps the weights of a file: large models go through one in `folder`.
    """
    if isinstance(model, str | Path):
        if not Path(model).is_file():
            raise ModelError("no such file", where=str(model), remedy="check the path")
        return str(model), []
    if isinstance(model, bytes):
        return model, []
    if isinstance(model, onnx.ModelProto) and weight_bytes(model) < PROTO_LIMIT:
        return model.SerializeToString(), []
    graph, arrays = detach(model)
    if sum(array.nbytes for array in arrays.values()) > MAPPED:
        return str(_write(graph, arrays, folder)), []
    values = [ort_value(array) for array in arrays.values()]
    options.add_external_initializers(list(arrays), values)
    return graph.SerializeToString(), values


def _write(graph: onnx.ModelProto, arrays: Mapping[str, Array], folder: Path) -> Path:
    """Write a graph, and its weights beside it at page boundaries; the graph's file."""
    with (folder / "weights").open("wb") as file:
        for tensor in graph.graph.initializer:
            if tensor.name in arrays:
                file.write(b"\0" * (-file.tell() % 4096))
                del tensor.external_data[:]
                for key, value in (("location", "weights"), ("offset", file.tell())):
                    tensor.external_data.add(key=key, value=str(value))
                file.write(arrays[tensor.name].reshape(-1).view(np.uint8).data)
    path = folder / "model.onnx"
    path.write_bytes(graph.SerializeToString())
    return path


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
        if array is not None and array.size > SMALL and tensor.data_type not in PACKED:
            arrays[tensor.name] = np.asarray(array, order="C")
            entry.name, entry.data_type, entry.data_location = tensor.name, tensor.data_type, TensorProto.EXTERNAL
            entry.dims.extend(array.shape)
            entry.external_data.add(key="location", value="in-memory")  # never opened: the array replaces it
        elif array is not None:
            entry.CopyFrom(numpy_helper.from_array(np.asarray(array, order="C"), tensor.name))
        else:
            entry.CopyFrom(tensor)
    return graph, arrays


def _detachable(tensor: TensorProto) -> bool:
    """Whether onnxruntime can be handed this tensor as an array: large, present, and of whole bytes per element."""
    if math.prod(tensor.dims) <= SMALL or tensor.data_location == TensorProto.EXTERNAL:
        return False
    return tensor.data_type not in (*PACKED, TensorProto.STRING)


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


def brief(error: BaseException) -> str:
    """An exception's message on one line, without onnxruntime's codes and source positions, 240 characters at most."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ", "", text)
    if of_device := re.search(r"\b[A-Z]+ failure -?\d+: [^;]*[^; ]", text):  # CUDA's, cuDNN's, cuBLAS's own words
        return of_device[0]
    text = re.sub(r"\S*\.(?:cc|h|cpp):\d+ [^()]*::\w+\(.*?\)(?: \[[^]]*\])? ", "", text)
    return text if len(text) <= 240 else text[:237] + "..."


@contextlib.contextmanager
def refusals(what: str, where: str) -> Iterator[None]:
    """Turn whatever onnxruntime raises into one of our errors, on one line."""
    try:
        yield
    except OnnxpruneError:
        raise
    except Exception as error:
        # With bound inputs onnxruntime raises a bare RuntimeError for what is an InvalidArgument otherwise.
        misfit = type(error).__name__ in ("InvalidArgument", "ValueError") or "for input:" in str(error)
        if misfit and what.startswith("cannot run"):
            remedy = "feed every input an array of its type and shape"
            raise DataError(f"onnxruntime {what} on this data: {brief(error)}", where=where, remedy=remedy) from error
        why, remedy = brief(error), "check the model with onnx.checker, or try another onnxruntime version"
        if "Could not find an implementation" in str(error):
            remedy = (
                "it has no kernel for this operator in the model's element type: convert the model to float32 first"
            )
        if lacking := re.search(r"([\w.]+):(\w+)\(-?\d+\) is not a registered function/op", str(error)):
            why = f"it has no operator {lacking[1]}.{lacking[2]}"
            remedy = "what cannot be run cannot be verified: export the model without that operator"
        raise RuntimeUnavailable(f"onnxruntime {what}: {why}", where=where, remedy=remedy) from error
