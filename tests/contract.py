"""The command line as other programs meet it: run it in this process, and check what a run left against its report."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnxprune import cli

REPO = Path(__file__).resolve().parent.parent
COLOURS = ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "TTY_COMPATIBLE", "COLUMNS")
Array = NDArray[Any]


@dataclass(frozen=True)
class Result:
    """What a command left: its exit code and both streams."""

    code: int
    out: str
    err: str

    @cached_property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def words(self) -> str:
        """Everything printed, without colours, boxes, line breaks and runs of spaces."""
        text = re.sub(r"\x1b\[[0-9;]*m", "", self.out + self.err)
        return " ".join(re.sub("[\u2500-\u259f]", " ", text).split())


def onnxprune(*args: object) -> Result:
    """Run a command line in this process: fast, and tests can patch what it calls."""
    out, err, before, code = io.StringIO(), io.StringIO(), sys.argv, 0
    sys.argv = ["onnxprune", *map(str, args)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = before
    return Result(code, out.getvalue(), err.getvalue())


def environment() -> dict[str, str]:
    """For real processes: the package of this repository, whatever the working folder, and no forced colours."""
    kept = {k: v for k, v in os.environ.items() if k not in COLOURS}
    return {**kept, "PYTHONPATH": str(REPO)}


def process(*args: object, cwd: Path | None = None) -> Result:
    """Run a command line as users do, with both streams in pipes."""
    command = [sys.executable, "-m", "onnxprune", *map(str, args)]
    done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, encoding="utf-8")
    return Result(done.returncode, done.stdout, done.stderr)


def prune(model: Path, *options: object, out: Path | str | None = None) -> list[object]:
    """The arguments of a quick `prune`; options given later win."""
    output = model.with_name("small.onnx") if out is None else out
    return ["prune", model, "-o", output, "--align", "1", "--no-bench", *options]


def inflated(shared: Path, name: str, tied: bool) -> onnx.ModelProto:
    """An exported architecture with weights; `tied`: with parameters of equal value stored once, as exported."""
    spec = spec_from_file_location("inflate", shared / "skeletons" / "inflate.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    proto: onnx.ModelProto = module.inflate(str(shared / "skeletons" / f"{name}.onnx"), 0, tied)
    return proto


def stored(proto: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    """Write a model and return its path."""
    onnx.save(proto, folder / name)
    return folder / name


def snapshot(folder: Path) -> dict[str, str]:
    """Every file under a folder, hidden ones included, by content."""
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def refused(arguments: list[object], pattern: str, folder: Path) -> None:
    """Run a command line, and check the law."""
    before = snapshot(folder)
    found = onnxprune(*arguments)
    assert (found.code, found.out) == (1, ""), found
    assert found.err.startswith("onnxprune: ") and found.err.count("\n") == 1 and "internal error" not in found.err
    assert re.search(pattern, found.err), found.err
    assert snapshot(folder) == before


def as_constants(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with every initializer in a Constant node, whose own name says nothing."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    nodes = [
        helper.make_node("Constant", [], [tensor.name], name=f"constant_{i}", value=tensor)
        for i, tensor in enumerate(copy.graph.initializer)
    ] + list(copy.graph.node)
    del copy.graph.node[:], copy.graph.initializer[:]
    copy.graph.node.extend(nodes)
    return copy


def held(proto: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """The initializers of a file and the values of its Constant nodes, those of bodies included, by tensor name."""
    found, graphs = {}, [proto.graph]
    for graph in graphs:
        found |= {t.name: t for t in graph.initializer}
        for node in graph.node:
            graphs += [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                found[node.output[0]] = node.attribute[0].t
    return found


def infer(model: onnx.ModelProto | Path, feeds: dict[str, Array]) -> dict[str, Array]:
    """Run a model in onnxruntime itself, not through the package."""
    content = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


def check_report(report: dict[str, Any], *, timed: bool = False) -> None:
    """The keys and types that the contract promises."""
    assert report["schema"] == "onnxprune/report/1"
    for side in ("before", "after"):
        assert set(report[side]) == {"params", "macs", "bytes"}
        assert all(isinstance(n, int) and n >= 0 for n in report[side].values())
    assert all(report["after"][key] <= n for key, n in report["before"].items())
    for entry in report["frozen"]:
        assert set(entry) == {"tensor", "axis", "node", "reason"} and entry["reason"] and entry["tensor"]
    for entry in report["isolated"]:
        assert set(entry) == {"group", "reason"} and entry["reason"]
        assert entry["group"] in {g["name"] for g in report["groups"] if g["channels_after"] == g["channels_before"]}
    verified = report["verified"]
    assert set(verified) == {"ok", "kind", "max_abs", "max_rel"}
    assert verified["ok"] is True and verified["kind"] in ("exact", "approximate")
    assert (report["latency"] is not None) == timed
    for axes in report["removed"].values():
        for axis, indices in axes.items():
            assert axis.isdecimal() and indices and indices == sorted(set(indices))


def check_removed(report: dict[str, Any], before: Path, after: Path) -> None:
    """`removed` is complete: each tensor lost exactly the indices listed, and without recovery is what is left."""
    dense, pruned = held(onnx.load(before)), held(onnx.load(after))
    removed, per_group, copies = report["removed"], report["removed_per_group"], report["copies"]
    dense |= {copy: dense[name] for copy, name in copies.items()}
    assert removed and not removed.keys() - dense.keys()
    for name, tensor in dense.items():
        stored = name if name in pruned else twin(name, report, set(pruned))
        if stored is None:
            assert name not in removed, f"'{name}' is listed and gone"
            continue
        array, found = numpy_helper.to_array(tensor), numpy_helper.to_array(pruned[stored])
        for axis, indices in removed.get(name, {}).items():
            array = np.delete(array, indices, axis=int(axis))
        if name in per_group:  # a grouped weight behind a channel shuffle
            assert array.shape[1] - len(per_group[name]["1"][0]) == found.shape[1], name
            continue
        assert found.shape == array.shape, name
        if report["recovery"] is None:  # otherwise its values were refitted
            np.testing.assert_array_equal(found, array, err_msg=name)


def twin(name: str, report: dict[str, Any], pruned: set[str]) -> str | None:
    """The copy under whose name one that lost the same is stored; None for what is not a copy."""
    copies, removed = report["copies"], report["removed"]
    alike = [c for c, of in copies.items() if of == copies.get(name) and removed.get(c) == removed.get(name)]
    return next((c for c in alike if c in pruned), None)


def parted(proto: onnx.ModelProto, after: onnx.ModelProto, copies: dict[str, str]) -> None:
    """Give the input the copies that its report names, for the readers that read them in the output."""
    tensors, readers = held(proto), {node.output[0]: node for node in after.graph.node}
    for node in list(proto.graph.node):
        if node.output[0] in copies:  # the Identity that handed it out
            proto.graph.node.remove(node)
            continue
        for slot, name in enumerate(readers[node.output[0]].input if node.output[0] in readers else ()):
            if name in copies:
                node.input[slot] = name
    read = {name for node in proto.graph.node for name in node.input}
    for copy in read & copies.keys():
        tensor = proto.graph.initializer.add()
        tensor.CopyFrom(tensors[copies[copy]])
        tensor.name = copy


def check_masked(report: dict[str, Any], before: Path, after: Path, feeds: dict[str, Array]) -> None:
    """With the listed indices zeroed, the input computes what the output does; no code of the package takes part."""
    proto = onnx.load(before)
    parted(proto, onnx.load(after), report["copies"])
    tensors = held(proto)
    for name, axes in report["removed"].items():
        if name not in tensors:  # a copy stored under another's name
            continue
        array = numpy_helper.to_array(tensors[name]).copy()
        for axis, indices in axes.items():
            np.moveaxis(array, int(axis), 0)[indices] = 0
        tensors[name].CopyFrom(numpy_helper.from_array(array, tensors[name].name))
    expected, found = infer(proto, feeds), infer(after, feeds)
    dense = infer(before, feeds)
    for name, output in expected.items():
        scale = float(np.abs(output).max())
        # Optimised kernels group the terms of a sum by width; one channel off shows at 1e-3 and above.
        np.testing.assert_allclose(found[name], output, rtol=0, atol=1e-4 * scale, err_msg=name)
        assert np.abs(dense[name] - output).max() > 1e-3 * scale, "the mask changes nothing: the check would be empty"
