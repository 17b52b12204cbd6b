"""Run a model from front to back in pieces. Law: no node runs twice because of a later piece, whatever its weights are.

Between two pieces only the tensors are held that something behind the cut reads, batch by batch. So a layer's weights
may be changed when everything before it has run, and what runs after it sees the change: as sequential reconstruction
needs it. Beyond a given size, what is held lies in files.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxprune.graph import inputs_of
from onnxprune.model import Array, Model, bare
from onnxprune.runtime import Feeds, leaves, run, session
from onnxprune.runtime.sessions import Parts, Session

MEMORY = 2**31  # bytes of activations held in memory


class Walk:
    """A model on its way through its nodes.

    Attributes:
        model: The model; `change` replaces weights of nodes that have not run yet.
        at: Number of the next node.
        live: Per batch, the tensors that hold what nodes from there on read.
    """

    def __init__(self, model: Model, batches: Sequence[Feeds], *, threads: int = 1, memory: int = MEMORY) -> None:
        self.model, self.threads, self.at = model, threads, 0
        self.nodes = list(model.proto.graph.node)
        self.live: list[dict[str, Array]] = [dict(batch) for batch in batches]
        self.made = {name: i for i, node in enumerate(self.nodes) for name in node.output if name}
        self.last = {name: i for i, node in enumerate(self.nodes) for name in inputs_of(node)}
        self.shelf = Shelf(memory)

    def change(self, weights: Mapping[str, Array]) -> None:
        """Replace weights."""
        self.model = replace(self.model, weights={**self.model.weights, **weights})

    def frontier(self, at: int) -> list[str]:
        """Tensors that exist before node `at` and are read there or later; weights aside."""
        return [
            name
            for name, last in self.last.items()
            if last >= at and self.made.get(name, -1) < at and name not in self.model.weights
        ]

    def values(self, upto: int, names: Sequence[str]) -> Iterator[dict[str, Array]]:
        """Go on to node `upto`, and give named tensors of each batch, which may lie behind it.

        To have the weights of node `upto` changed afterwards is fine, even if they were used for what is given.
        The walk stands at `upto` when all batches have been taken.
        """
        front = self.frontier(upto)
        ahead = max([upto, *(self.made[name] + 1 for name in names if name in self.made)])
        wanted = [name for name in dict.fromkeys([*front, *names]) if name not in self.live[0]]
        opened = self.piece(self.nodes[self.at : ahead], wanted) if wanted else None
        held = Shelf(self.shelf.memory)
        for b, feeds in enumerate(self.live):
            found = dict(feeds)
            if opened is not None:
                inputs = {i.name: feeds[i.name] for i in opened.get_inputs()}
                found |= run(opened, inputs, wanted)
            self.live[b] = {name: held.keep(found[name]) for name in front}
            yield {name: found[name] for name in names}
        self.at, self.shelf = upto, held  # the files of the one before go with it

    def piece(
        self,
        nodes: Sequence[onnx.NodeProto],
        wanted: Sequence[str],
        model: Model | None = None,
        threads: int | None = None,
    ) -> Session:
        """A session over some nodes, from what is live to what is wanted; `model` may have other weights."""
        model = model or self.model
        read = {name for node in nodes for name in inputs_of(node)}
        graph = onnx.GraphProto(name="piece", node=nodes)
        for name in sorted(read & set(self.live[0])):
            graph.input.append(declared(name, [batch[name] for batch in self.live]))
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
        weights = {name: model.weights[name] for name in read if name in model.weights}
        graph.initializer.extend(bare(name, array) for name, array in weights.items())
        proto = model.proto
        whole = onnx.ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import, graph=graph)
        whole.functions.extend(proto.functions)
        return session(Parts(whole, weights), threads=threads or self.threads)


def declared(name: str, values: Sequence[Any]) -> onnx.ValueInfoProto:
    """An input that takes these values: tensors, or lists of tensors, any of which may be empty."""
    listed = isinstance(values[0], list)
    array = next((leaf for value in values for leaf in leaves(value)), np.zeros((), np.float32))
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    if listed:
        return helper.make_tensor_sequence_value_info(name, kind, None)
    return helper.make_tensor_value_info(name, kind, [None] * array.ndim)


class Shelf:
    """Arrays in memory, up to a number of bytes; those beyond it in files, which are deleted with the shelf."""

    def __init__(self, memory: int) -> None:
        self.memory, self.used, self.files = memory, 0, 0
        self.folder: Path | None = None

    def keep(self, array: Any) -> Any:
        """The same array, or a view of a file that holds it; of a list of tensors, a list of these."""
        if isinstance(array, list):
            return [self.keep(item) for item in array]
        if isinstance(array, np.memmap):  # from the shelf before; a mapped file outlives its name
            return array
        if self.used + array.nbytes <= self.memory:
            self.used += array.nbytes
            return array
        if self.folder is None:
            self.folder = Path(tempfile.mkdtemp(prefix="onnxprune-activations-"))
            self.close = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        path = self.folder / f"{self.files}.npy"
        self.files += 1
        np.save(path, array)
        return np.asanyarray(np.load(path, mmap_mode="r"))
