"""Load and save ONNX files. Law: what pruning does not touch comes out as it went in.

A `Model` is a weight-free `ModelProto` (names, nodes, shapes, small constants) beside its weights as numpy arrays. The
arrays are shared between the dense, masked and pruned models, so a copy of the graph never copies the weights.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, external_data_helper, numpy_helper

from onnxprune.encoding import foreign_name
from onnxprune.errors import ModelError, OutputError
from onnxprune.external import every_tensor, fetch_external, locations

Array = NDArray[Any]
Dim = int | str | None
Shape = tuple[Dim, ...]

SMALL = 1024  # elements: tensors up to here stay in the proto too, where shape inference can read them
STRAY = ("LayerNormalization", "SimplifiedLayerNormalization")  # onnxruntime writes them without a domain
DATA_FIELDS = tuple("raw_data float_data int32_data int64_data double_data uint64_data string_data".split())
PROTO_LIMIT = 2**31 - 2**20  # bytes: protobuf refuses to serialise 2 GiB; leave room for the graph itself


@dataclass(frozen=True, eq=False)
class Model:
    """A model: its graph and its weights.

    Attributes:
        proto: The ModelProto with the data of large initializers left out.
        weights: Initializer name -> array, for every dense initializer of the main graph.
        path: The file it came from, if any.
        external: Whether that file kept weights outside itself.
        shapes: Tensor name -> dimensions (int, symbol, or None), filled by `normalise`.
        values: Tensor name -> known value: int64 or object array (None = unknown entry), filled by `normalise`.
        misfits: First output of a node that onnx says does not fit its inputs -> why, filled by `normalise`.
        copies: Tensor that a reader of a shared parameter has for itself -> the tensor of the file (see `sharing`).
    """

    proto: onnx.ModelProto
    weights: Mapping[str, Array]
    path: Path | None = None
    external: bool = False
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    values: Mapping[str, Array] = field(default_factory=dict)
    misfits: Mapping[str, str] = field(default_factory=dict)
    copies: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def opsets(self) -> dict[str, int]:
        """Operator set domain -> version; the default domain is ''."""
        return {"" if o.domain == "ai.onnx" else o.domain: o.version for o in self.proto.opset_import}

    @cached_property
    def inputs(self) -> list[onnx.ValueInfoProto]:
        """Graph inputs that the caller must feed (initializers listed as inputs are left out)."""
        held = {t.name for t in self.proto.graph.initializer}
        held |= {t.values.name for t in self.proto.graph.sparse_initializer}
        return [i for i in self.proto.graph.input if i.name not in held]

    @property
    def nbytes(self) -> int:
        """Bytes of all weights."""
        return sum(w.nbytes for w in self.weights.values())

    @property
    def params(self) -> int:
        """Number of floating point weights, the usual meaning of 'parameters'."""
        return sum(w.size for w in self.weights.values() if is_float(w))

    def known(self, name: str) -> Array | None:
        """The value of a tensor, or what is known of it (None for an unknown entry): of constants and small results."""
        value = self.values.get(name)
        return self.weights.get(name) if value is None else value

    def full(self) -> onnx.ModelProto:
        """The complete ModelProto, weights included.

        Raises:
            ModelError: Never for models under 2 GiB; larger ones can be held but not serialised by protobuf.
        """
        whole = onnx.ModelProto()
        whole.CopyFrom(self.proto)
        for tensor in whole.graph.initializer:
            if tensor.name in self.weights:
                fill(tensor, self.weights[tensor.name])
        return whole


def is_float(array: Array) -> bool:
    """Whether the array holds floating point numbers (the ml_dtypes kinds count)."""
    return array.dtype.kind == "f" or array.dtype.name.startswith(("bfloat", "float"))


def fill(tensor: TensorProto, array: Array) -> None:
    """Write `array` into `tensor`; data type and dimensions follow the array, everything else stays."""
    empty(tensor)
    tensor.ClearField("dims")
    tensor.MergeFrom(numpy_helper.from_array(np.asarray(array, order="C"), tensor.name))


def empty(tensor: TensorProto) -> None:
    """Take the data out of a tensor; its name, type, dimensions, doc string and metadata stay."""
    for name in DATA_FIELDS:
        tensor.ClearField(name)


def bare(name: str, array: Array) -> TensorProto:
    """The initializer entry of a weight in a weight-free proto: no data when it is large."""
    if array.size <= SMALL:
        return numpy_helper.from_array(np.asarray(array, order="C"), name)
    return TensorProto(name=name, data_type=onnx.helper.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape)


def load(path: str | os.PathLike[str]) -> Model:
    """Read an .onnx file and its external data.

    Args:
        path: The file.

    Raises:
        ModelError: Missing, unreadable, truncated or invalid file, external data that is missing or lies outside the
            model's folder, or an operator set newer than the installed onnx.
    """
    path = Path(path)
    proto = read_proto(path)
    external = any(external_data_helper.uses_external_data(t) for t in every_tensor(proto.graph))
    mapped = fetch_external(proto, path, SMALL) if external else {}
    return from_proto(proto, path=path, external=external, mapped=mapped)


def from_proto(
    proto: onnx.ModelProto,
    *,
    path: Path | None = None,
    external: bool = False,
    mapped: Mapping[str, Array] | None = None,
) -> Model:
    """Split a ModelProto (which is consumed: its large initializers lose their data) into graph and weights.

    Args:
        proto: The model.
        path: The file it came from.
        external: Whether that file kept weights outside itself.
        mapped: Initializers whose data is not in `proto`.

    Raises:
        ModelError: The model fails onnx's checker, or its operator set is too new.
    """
    where = str(path) if path else "model"
    check_opsets(proto, where)
    weights: dict[str, Array] = dict(mapped or {})
    for tensor in proto.graph.initializer:
        if tensor.data_type != TensorProto.STRING and tensor.name not in weights:
            weights[tensor.name] = take_data(tensor, where)
    check(proto, where)
    return Model(compact(proto), weights, path, external)


def compact(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that holds no more than its fields.

    Protobuf frees a message's memory as a whole: the original would fill the space of the weights taken out of it.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy


def read_proto(path: Path) -> onnx.ModelProto:
    """Parse the file without its external data."""
    if path.is_dir():
        raise ModelError("is a directory, not an .onnx file", where=str(path), remedy="name the file inside it")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror})", where=str(path), remedy="check the path") from error
    if not data:
        raise ModelError("the file is empty", where=str(path), remedy="export the model again")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        remedy = "export it again; a download may have been cut short"
        raise ModelError("is not an ONNX model, or is truncated", where=str(path), remedy=remedy) from error
    if not proto.HasField("graph") or not proto.opset_import:
        raise ModelError("is not an ONNX model: no graph or no operator set", where=str(path), remedy="export it again")
    if (name := foreign_name(proto)) is not None:
        raise ModelError(f"a name in it is not UTF-8: {name!r}", where=str(path), remedy="the file is damaged")
    return proto


def data_files(path: Path) -> set[Path]:
    """The files that hold the external data of a model file."""
    tensors = every_tensor(read_proto(path).graph)
    return {(path.parent / location).resolve() for tensor in tensors for location in locations(tensor)}


def check_opsets(proto: onnx.ModelProto, where: str) -> None:
    """Refuse operator sets this onnx does not know: their rules would be guesses."""
    newest = onnx.defs.onnx_opset_version()
    for opset in proto.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version > newest:
            what = f"operator set {opset.version} is newer than the {newest} known to onnx {onnx.__version__}"
            raise ModelError(what, where=where, remedy="upgrade onnx, or export with an older operator set")


def take_data(tensor: TensorProto, where: str) -> Array:
    """The tensor's value; large ones lose their data in the proto, so it is held once."""
    try:
        array: Array = numpy_helper.to_array(tensor)
        if array.shape != tuple(tensor.dims):
            raise ValueError(f"its dimensions are {list(tensor.dims)}")
    except (ValueError, TypeError, RuntimeError, KeyError) as error:
        what = f"initializer '{tensor.name}' is damaged: {error}"
        raise ModelError(what, where=where, remedy="export the model again") from error
    if array.size > SMALL:
        array = array if array.flags.owndata else np.array(array)
        empty(tensor)
    array.flags.writeable = False
    return array


def check(proto: onnx.ModelProto, where: str) -> None:
    """Run onnx's checker over the graph (weights are left out: their sizes were checked when they were read)."""
    probe = onnx.ModelProto()
    probe.CopyFrom(proto)
    for tensor in probe.graph.initializer:
        if int(np.prod(tensor.dims, dtype=np.int64)) > SMALL:
            stand_in(tensor)
    version = max((o.version for o in probe.opset_import if not o.domain), default=1)
    for node in (n for n in probe.graph.node if n.op_type in STRAY and not onnx.defs.has(n.op_type, version, "")):
        node.domain = "stray"  # the checker passes what belongs to a domain that it does not know
    probe.opset_import.add(domain="stray", version=1)
    try:
        onnx.checker.check_model(probe)
    except (onnx.checker.ValidationError, RuntimeError, ValueError) as error:  # ValueError: names that are not UTF-8
        first = (str(error).strip() or "invalid").splitlines()[0]
        raise ModelError(f"fails onnx's checker: {first}", where=where, remedy="repair or re-export it") from error


def stand_in(tensor: TensorProto) -> None:
    """Make a data-less tensor an empty one, which the checker accepts; it looks at no shapes."""
    tensor.CopyFrom(TensorProto(name=tensor.name, data_type=tensor.data_type, dims=[0]))


def save(model: Model, path: str | os.PathLike[str]) -> None:
    """Write the model. The file appears whole or not at all: it is written beside `path` and then renamed.

    Weights go to `PATH.data` when the model came from external data or is too large for one protobuf file.

    Raises:
        OutputError: The place cannot be written.
    """
    path = Path(path)
    try:
        if model.external or model.nbytes > PROTO_LIMIT:
            save_external(model, path)
        else:
            write_atomic(path, model.full().SerializeToString())
    except OSError as error:
        what = f"cannot be written ({error.strerror or error})"
        raise OutputError(what, where=str(path), remedy="choose another place") from error


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file through a temporary one in the same folder, so that readers never see half of it."""
    with replacing(path) as (file,):
        file.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def replacing(*targets: Path) -> Iterator[list[BinaryIO]]:
    """Temporary files that take the places of `targets` when the block ends; if it fails, nothing has changed."""
    with ExitStack() as held:
        staged: list[Path] = []
        files: list[BinaryIO] = []
        for target in targets:
            handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
            held.callback(Path(name).unlink, missing_ok=True)
            staged.append(Path(name))
            files.append(held.enter_context(os.fdopen(handle, "wb")))
        yield files
        for file, temporary in zip(files, staged, strict=True):
            file.close()
            temporary.chmod(0o666 & ~umask())
        swap(staged, targets)


def swap(staged: Sequence[Path], targets: Sequence[Path]) -> None:
    """Rename each staged file to its target; if that fails midway, put the old files back."""
    aside = [t.with_name(f"{s.name}.old.tmp") for s, t in zip(staged[:-1], targets[:-1], strict=True)]
    fresh = [t for t in targets[:-1] if not t.exists()]
    try:
        for temporary, target, old in zip(staged[:-1], targets[:-1], aside, strict=True):
            if target not in fresh:
                target.replace(old)
            temporary.replace(target)
        staged[-1].replace(targets[-1])  # alone, a rename is atomic
    except BaseException:
        for target, old in zip(targets[:-1], aside, strict=True):
            if old.exists():
                old.replace(target)
            elif target in fresh:
                target.unlink(missing_ok=True)
        raise
    for old in aside:
        old.unlink(missing_ok=True)


@cache
def umask() -> int:
    """The process's file mode mask: temporary files are private, finished ones should not be.

    Asked once: it is read by setting it, and two threads that do so could leave it at 0.
    """
    mask = os.umask(0)
    os.umask(mask)
    return mask


def save_external(model: Model, path: Path) -> None:
    """Write the graph to `path` and the large weights to `PATH.data`, both or neither.

    Raises:
        OutputError: The model that the weights come from keeps its own there.
    """
    proto, data = onnx.ModelProto(), path.with_name(path.name + ".data")
    source = model.path
    if source and source.exists() and source.resolve() != path.resolve() and data.resolve() in data_files(source):
        what = f"its weights would replace those of {source}"
        raise OutputError(what, where=str(data), remedy="choose another name")
    proto.CopyFrom(model.proto)
    with replacing(data, path) as (weights, graph):
        for tensor in proto.graph.initializer:
            if tensor.name in model.weights:
                append_external(tensor, model.weights[tensor.name], data.name, weights)
        graph.write(proto.SerializeToString())


def append_external(tensor: TensorProto, array: Array, location: str, file: BinaryIO) -> None:
    """Append one weight to the data file, page aligned so that runtimes can map it."""
    if array.size <= SMALL:
        fill(tensor, array)
        return
    file.write(b"\0" * (-file.tell() % 4096))
    start = file.tell()
    raw = numpy_helper.from_array(np.asarray(array, order="C")).raw_data
    file.write(raw)
    empty(tensor)
    tensor.dims[:] = array.shape
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", start), ("length", len(raw))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
