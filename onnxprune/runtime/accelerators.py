"""What a provider needs, and what it runs. Law: no time is given under the name of a provider that did not run.

onnxruntime goes on without a provider whose libraries are missing, and gives the nodes that a provider does not take to
the CPU, both without an error.
"""

from __future__ import annotations

import contextlib
import functools
import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

from onnx import TensorProto, helper

NVIDIA = ("CUDAExecutionProvider", "TensorrtExecutionProvider")
STARTED: set[str] = set()  # providers that have opened a model in this process
RECORD = "session.record_ep_graph_assignment_info"


def preload(ort: Any, provider: str) -> str:
    """Load the libraries of CUDA and cuDNN for a provider that needs them; what is missing, '' where nothing is.

    pip puts them into packages of their own (`nvidia-*`, which torch installs as well), where the system's loader does
    not look. onnxruntime finds them there if it is asked to.

    Args:
        ort: The onnxruntime module; before 1.21 it cannot do this.
        provider: The provider's full name.
    """
    if provider in NVIDIA and hasattr(ort, "set_default_logger_severity"):
        ort.set_default_logger_severity(4)  # it would print a library that is missing, which we raise
    load = getattr(ort, "preload_dlls", None)
    if load is None or provider not in NVIDIA:
        return ""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(Exception):  # it prints what fails
        load()
    lines = [line.strip() for line in said.getvalue().splitlines() if line.startswith("Failed to load")]
    return lines[-1] if lines else ""


@functools.cache
def trivial() -> bytes:
    """A model that does nothing."""
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "trivial", ends[:1], ends[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def failure(ort: Any, provider: str, providers: Sequence[Any]) -> Exception | None:
    """What a provider raises on a model that does nothing: then it is not the model's fault.

    Args:
        ort: The onnxruntime module.
        provider: The provider's full name; asked once in a process.
        providers: What a session is told.
    """
    if provider in STARTED:
        return None
    try:
        ort.InferenceSession(trivial(), providers=providers, enable_fallback=0)
    except Exception as error:
        return error
    STARTED.add(provider)
    return None


def assigned(opened: Any) -> Counter[str] | None:
    """Provider -> nodes it was given, of a session opened with `RECORD`; None where onnxruntime cannot tell."""
    tell = getattr(opened, "get_provider_graph_assignment_info", None)
    if tell is None:
        return None
    found: Counter[str] = Counter()
    for part in tell():
        found[str(part.ep_name)] += len(part.get_nodes())
    return found
