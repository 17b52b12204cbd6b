"""What onnxruntime spends its time on. Law: every kernel that ran is listed, with the nodes of the model it came from.

onnxruntime fuses and rewrites nodes before it runs them, and invents names for what it makes. So the model is handed
over with every tensor and node renamed to a mark that survives in those names: a fused node is called after the tensor
it computes, or after one of the nodes it replaces. A kernel without any mark, such as a change of layout, belongs to
the kernel that made its input.
"""

from __future__ import annotations

import json
import re
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from onnxprune.errors import ProviderError
from onnxprune.graph import captured, every_graph, own_names
from onnxprune.runtime import sessions
from onnxprune.runtime.execute import parsed
from onnxprune.runtime.sessions import Feeds, Source

SUFFIX = "_kernel_time"


@dataclass(frozen=True)
class Kernel:
    """One node of the graph that onnxruntime runs.

    Attributes:
        name: Its name there, in the model's own names where it has any.
        op: Operator, with its domain unless that is ONNX's: 'Conv', 'com.microsoft.nchwc.Conv'.
        origin: The tensor of the model it was made for: what it, or the kernel before it, computes. '' where unknown.
        ms: Times of the runs, ms; the first is of the first run.
        inputs: Shapes of the inputs.
        outputs: Shapes of the outputs.
        provider: Execution provider that ran it.
    """

    name: str
    op: str
    origin: str
    ms: tuple[float, ...]
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    provider: str

    @property
    def typical_ms(self) -> float:
        """The lower quartile of its times, ms: other load only adds, the least may be a moment of raised clock."""
        return float(statistics.quantiles(self.ms, n=4)[0]) if len(self.ms) > 1 else self.ms[0]


@dataclass(frozen=True)
class Marks:
    """What the tensors of a model are called while it is profiled.

    Attributes:
        names: Original tensor names, by number.
        sign: What stands before and after the number of a mark; with it, no name of the model looks like one.
    """

    names: tuple[str, ...]
    sign: str = "@"

    def of(self, number: int) -> str:
        """The mark of a tensor."""
        return f"{self.sign}{number}{self.sign}"

    def find(self, text: str) -> str:
        """The tensor whose mark is in a name that onnxruntime made; '' where none is."""
        found = re.search(self.of(0).replace("0", r"(\d+)"), text)
        return self.names[int(found[1])] if found else ""

    def restored(self, text: str) -> str:
        """A name that onnxruntime made, in the model's own names."""
        return re.sub(self.of(0).replace("0", r"(\d+)"), lambda m: self.names[int(m[1])], text)


class Profiled:
    """A session that notes the time of every kernel; used as a context manager, it leaves no file behind."""

    def __init__(self, model: Source, feeds: Feeds, *, provider: str = "cpu", threads: int = 1) -> None:
        """Open a model for profiling.

        Args:
            model: Any model `session` takes; it is not changed.
            feeds: Input name -> array.
            provider: As for `session`.
            threads: Threads inside one operator.

        Raises:
            RuntimeUnavailable: onnxruntime refuses the model.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="onnxprune-", ignore_cleanup_errors=True)
        folder = Path(self._folder.name)
        graph, arrays = sessions.detach(parsed(model))
        self._marks = mark(graph.graph)
        options = sessions.session_options(threads=threads)
        options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
        sessions.keep_optimised(options, folder / "optimised.onnx")
        self._feeds = dict(feeds)
        try:
            self._session = sessions.open_session(
                sessions.Parts(graph, arrays), options, sessions.provider_name(provider)
            )
            self._graph = onnx.load(folder / "optimised.onnx", load_external_data=False).graph
        except BaseException:
            self._folder.cleanup()
            raise

    def __enter__(self) -> Profiled:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def run(self) -> None:
        """Run once."""
        with sessions.refusals("cannot run the model", ""):
            self._session.run(None, self._feeds)

    def kernels(self, *, skip: int = 0) -> list[Kernel]:
        """End the profile: every kernel that ran, in the order of the graph, without its first `skip` runs."""
        with sessions.refusals("cannot be profiled", ""):
            written: Any = self._session
            events = json.loads(Path(written.end_profiling()).read_text(encoding="utf-8", errors="replace"))
        found = collect(events, self._graph, self._marks)
        return [replace(k, ms=k.ms[skip:] or k.ms) for k in found]


def mark(graph: onnx.GraphProto) -> Marks:
    """Rename what the nodes of the main graph compute to '@i@', in place.

    Outputs of the graph keep their names, and so do tensors that bodies of control flow read. Nodes are named after
    their first output.
    """
    held = {o.name for o in graph.output}.union(*(captured(node) for node in graph.node))
    names = tuple(name for node in graph.node for name in node.output if name)
    every = "\n".join([*(n for inner in every_graph(graph) for n in own_names(inner)), *nodes_of_bodies(graph)])
    sign = "@"
    while re.search(rf"{sign}\d+{sign}", every):
        sign += "@"
    found = Marks(names, sign)
    marks = {name: found.of(i) for i, name in enumerate(names)}
    renamed = {name: new for name, new in marks.items() if name not in held}
    for node in graph.node:
        node.name = next((marks[o] for o in node.output if o), "")
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for info in graph.value_info:
        info.name = renamed.get(info.name, info.name)
    return found


def nodes_of_bodies(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes that keep theirs."""
    return [node.name for inner in every_graph(graph) if inner is not graph for node in inner.node]


def collect(events: Sequence[Mapping[str, Any]], graph: onnx.GraphProto, marks: Marks) -> list[Kernel]:
    """Kernels from onnxruntime's events and its optimised graph.

    Args:
        events: The profile.
        graph: The graph that ran.
        marks: What its tensors were called before.

    Raises:
        ProviderError: The profile has no kernels.
    """
    origins = origins_of(graph, marks)
    kinds = {node.name: f"{node.domain}.{node.op_type}".removeprefix("ai.onnx").lstrip(".") for node in graph.node}
    found: dict[str, list[Mapping[str, Any]]] = {}
    for event in events:
        name = str(event["name"])
        node = name.removesuffix(SUFFIX)
        # Nodes of bodies run inside the node that holds them, whose time is the time of all.
        if event.get("cat") == "Node" and node != name and node in origins:
            found.setdefault(node, []).append(event)
    if not found:
        raise ProviderError("onnxruntime's profile lists no kernels", remedy="profile with the provider 'cpu'")
    return [kernel(name, kinds[name], of_node, origins[name], marks) for name, of_node in found.items()]


def kernel(name: str, op: str, events: Sequence[Mapping[str, Any]], origin: str, marks: Marks) -> Kernel:
    """One kernel from its events, which name its operator without the domain."""
    facts = events[0]["args"]
    return Kernel(
        name=marks.restored(name),
        op=op,
        origin=origin,
        ms=tuple(float(e["dur"]) / 1e3 for e in events),
        inputs=shapes(facts.get("input_type_shape", ())),
        outputs=shapes(facts.get("output_type_shape", ())),
        provider=str(facts.get("provider", "")),
    )


def shapes(described: Sequence[Mapping[str, Sequence[int]]]) -> tuple[tuple[int, ...], ...]:
    """Shapes from a profile's list of {type: shape}."""
    return tuple(tuple(int(d) for d in shape) for entry in described for shape in entry.values())


def origins_of(graph: onnx.GraphProto, marks: Marks) -> dict[str, str]:
    """Node of the optimised graph -> the tensor of the model it was made for."""
    known = set(marks.names)
    made: dict[str, str] = {}
    origins: dict[str, str] = {}
    for node in graph.node:
        texts = [*node.output, node.name]
        own = next(filter(None, map(marks.find, texts)), "") or next((t for t in texts if t in known), "")
        before = next((made[name] for name in node.input if name in made), "")
        origins[node.name] = own or before
        made.update(dict.fromkeys(node.output, own or before))
    return origins
