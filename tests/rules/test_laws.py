"""The laws every operator's rule keeps, on every case and several random plans.

1. Commute: the pruned model holds, in every tensor, the kept indices of what the masked model holds. Where a node mixes
   an axis that shrinks with itself, that is the masked model in which it sees only what stays (`reference`).
2. Non-interference: whatever stands in the removed indices, the kept ones do not change. Read off the labels alone,
   node by node and on the whole graph, so that a fault shared by masking and slicing shows.
3. Conservation: an output's ids come from its node's inputs, or are new; there is one for each index.

Tolerance: both sides add the same products in float64, in another order and with zeros between them. A sum of n terms
rounds by at most n * 2**-53 of their magnitudes; n < 300 and a few layers deep that is below 1e-12, and a wrong channel
shows at 1e-2. What onnx's reference implementation cannot run, onnxruntime does in float32, where the same bound times
2**29 would be 5e-4, but rounding is random and grows with the root of n: 1e-5 holds with a margin of ten.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from onnxprune.cost import cost
from onnxprune.graph import every_node
from onnxprune.importance import Scores
from onnxprune.labels import Axes, Axis, Ids
from onnxprune.model import Array, Model
from onnxprune.normalise import normalise
from onnxprune.plan import Limits, Target, plan
from onnxprune.reference import restricted
from onnxprune.rewrite import masked, removal, rewrite
from onnxprune.rules import RULES
from onnxprune.rules.records import Records
from onnxprune.runtime import capture
from onnxprune.trace import Dependencies, Mask, Tracer, trace
from onnxprune.verify import check_standard
from tests.rules import contrib
from tests.rules.cases import CASES, Case
from tests.rules.contractions import contracted_axes, contracts, factors

TOLERANCE = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 1e-5}

Tensors = Mapping[str, Array]
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


# --- running ---------------------------------------------------------------------------------------------------------


class Add(OpRun):
    """Add before operator set 7, which lines operands up at `axis`; the reference implementation lacks it."""

    op_domain = ""

    def _run(self, a: Array, b: Array, axis: int = 0, broadcast: int = 0) -> tuple[Array]:
        return (a + b.reshape(b.shape + (1,) * (a.ndim - axis - b.ndim)) if broadcast else a + b,)


class MeanVarianceNormalization(OpRun):
    """The operator as its function body has it; that body's constants are float32, and nothing is cast to meet them."""

    op_domain = ""

    def _run(self, x: Array, axes: tuple[int, ...] = (0, 2, 3)) -> tuple[Array]:
        over = tuple(axes)
        return ((x - x.mean(over, keepdims=True)) / (x.std(over, keepdims=True) + 1e-9),)


def evaluate(case: Case, model: Model, feeds: Tensors) -> dict[str, Array]:
    """Every tensor of a model."""
    names = [o for node in model.proto.graph.node for o in node.output if o]
    if case.lacks:
        return dict(feeds) | dict(model.weights) | capture(model, feeds, names)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # removed indices may hold anything, logarithms of negative numbers included
        new = [MeanVarianceNormalization, *([Add] if case.opset < 7 else [])]
        found = ReferenceEvaluator(model.full(), new_ops=new).run(None, dict(feeds), intermediate=True)
    assert isinstance(found, dict)
    return {name: np.asarray(v) for name, v in found.items() if name and not isinstance(v, list)}  # no sequences


def alone(
    case: Case, model: Model, node: onnx.NodeProto, inputs: list[Array | None], values: Tensors
) -> dict[str, Array]:
    """The outputs of one node, run by itself; `values` tells their types, and holds what its bodies read."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [f"in{i}" if value is not None else "" for i, value in enumerate(inputs[: len(node.input)])]
    given = {f"in{i}": value for i, value in enumerate(inputs[: len(node.input)]) if value is not None}
    given |= {n: v for n, v in zip(captured(node), inputs[len(node.input) :], strict=True) if v is not None}
    types = {n: helper.np_dtype_to_tensor_dtype(v.dtype) for n, v in given.items()}
    held = {n: v for n, v in given.items() if v.dtype.kind == "V"}  # types of a few bits, which cannot be fed
    given = {n: v for n, v in given.items() if n not in held}
    infos = [helper.make_tensor_value_info(n, types[n], v.shape) for n, v in given.items()]
    kinds = {o: helper.np_dtype_to_tensor_dtype(values[o].dtype) for o in node.output if o}
    outs = [helper.make_tensor_value_info(o, kind, None) for o, kind in kinds.items()]
    stored = [numpy_helper.from_array(v, n) for n, v in held.items()]
    graph = helper.make_graph([copy], "g", infos, outs, stored)
    proto = helper.make_model(graph, opset_imports=model.proto.opset_import)
    proto.ir_version = max(case.ir, 4)
    return evaluate(case, Model(proto, {}), given)


def captured(node: onnx.NodeProto) -> list[str]:
    """What the bodies of a node read from outside themselves, in order."""
    bodies = [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    found: dict[str, None] = {}
    for body in bodies:
        inside = {i.name for i in body.input} | {o for n in body.node for o in n.output}
        read = [name for n in body.node for name in (*n.input, *captured(n))] + [o.name for o in body.output]
        found |= dict.fromkeys(name for name in read if name and name not in inside)
    return list(found)


# --- labels read independently of the package ------------------------------------------------------------------------


def wide(axes: Axes, k: int, shape: tuple[int, ...]) -> Ids:
    """The ids of axis `k`, shaped to broadcast over its tensor."""
    ids = axes[k].ids
    assert ids is not None
    for t, b in enumerate(axes[k].by):
        times = shape[b] // ids.shape[t]  # the axis falls into blocks; where its size is open, rows repeat along it
        ids = np.concatenate([ids] * times, axis=t) if axes[b].ids is None else np.repeat(ids, times, axis=t)
    order = [*axes[k].by, k]
    ids = np.transpose(ids, np.argsort(order))
    return ids.reshape([shape[d] if d in order else 1 for d in range(len(shape))])


def kept(axes: Axes | None, shape: tuple[int, ...], keep: Mask, only: int | None = None) -> NDArray[np.bool_]:
    """Which entries of a tensor stay; with `only`, looking at that axis alone."""
    mask = np.ones(shape, dtype=bool)
    for k in range(len(axes or ())):
        if axes is not None and axes[k].ids is not None and only in (None, k):
            mask &= keep[wide(axes, k, shape)]
    return mask


def rows_first(axes: Axes, rank: int) -> list[int]:
    """Tensor axes in an order in which no axis stands before those that its rows run over."""
    order: list[int] = []
    while len(order) < rank:
        order.append(next(k for k in range(rank) if k not in order and (not axes or set(axes[k].by) <= set(order))))
    return order


def random_like(array: Array, rng: np.random.Generator) -> Array:
    """Random numbers of an array's type."""
    if array.dtype.kind == "f":
        return (3 * rng.normal(size=array.shape)).astype(array.dtype)
    high = max(2, int(array.max(initial=0)) + 1)  # integers may be indices, so they stay in the range seen
    return rng.integers(0, 2 if array.dtype.kind == "b" else high, array.shape).astype(array.dtype)


def close(case: Case, a: Array, b: Array, what: str) -> None:
    """Both hold the same numbers, up to rounding."""
    assert a.shape == b.shape, f"{what}: {a.shape} and {b.shape}"
    if a.dtype.kind != "f":
        assert np.array_equal(a, b), what
        return
    finite = np.isfinite(a)
    assert np.array_equal(a[~finite], b[~finite], equal_nan=True), what
    scale = np.abs(a[finite]).max(initial=0.0)
    worst = np.abs(a[finite] - b[finite]).max(initial=0.0)
    assert worst <= TOLERANCE[case.dtype] * (scale + 1e-3), f"{what}: off by {worst:.1e}, of {scale:.1e}"


# --- what to remove --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Subject:
    """A case, traced, with its dense tensors and a few removals: (units, pruned model)."""

    case: Case
    dependencies: Dependencies
    feeds: Tensors
    values: Tensors
    removals: tuple[tuple[Ids, Model], ...]

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        """The dense graph's nodes."""
        return list(self.dependencies.model.proto.graph.node)


def study(case: Case) -> Subject:
    """Trace a case and prune it several times."""
    dependencies, feeds = trace(case.model(), through_norms=case.through), case.feeds()
    model = dependencies.model
    values = evaluate(case, model, feeds) | dict(model.weights) | feeds
    chosen = [(removed, rewrite(dependencies, removed)) for removed in removals(dependencies, case.name)]
    return Subject(case, dependencies, feeds, values, tuple(chosen))


studied = cache(study)


def removals(dependencies: Dependencies, name: str) -> Iterator[Ids]:
    """Units chosen by random scores: so much of every group, all but one, and of each group another share."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    varied = tuple((group.name, (0.2 + 0.3 * i) % 1) for i, group in enumerate(dependencies.groups))
    equal = [(Target(ratio=r), Limits()) for r in (0.2, 0.3, 0.5, 0.6, 0.99)]
    whole = [(Target(ratio=r), Limits(rows="whole")) for r in (0.4, 0.6)]
    for aim, limits in [*equal, *whole, (None, Limits(layer_ratios=varied))]:
        if not dependencies.groups:
            return
        scores = Scores("random", rng.random(dependencies.unit_count))
        removed = plan(dependencies, scores, aim, limits).removed(dependencies)
        if removed.size:
            yield removed


# --- law 1 -----------------------------------------------------------------------------------------------------------


def commute(subject: Subject) -> None:
    case, dependencies = subject.case, subject.dependencies
    for removed, pruned in subject.removals:
        keep = dependencies.keep(removed)
        small = evaluate(case, pruned, subject.feeds)
        large = evaluate(case, restricted(dependencies, keep, masked(dependencies, removed)), subject.feeds)
        for name in [o for node in subject.nodes for o in node.output if o in small]:
            mask = kept(dependencies.labels.get(name), large[name].shape, keep)
            assert mask.sum() == small[name].size, f"{name}: {mask.sum()} entries stay, {small[name].shape} are there"
            order = rows_first(dependencies.labels.get(name) or (), large[name].ndim)
            small_rows = small[name].transpose(order)
            large_rows = large[name].transpose(order)[mask.transpose(order)].reshape(small_rows.shape)
            close(case, large_rows, small_rows, name)
            stated = pruned.shapes.get(name, small[name].shape)
            assert all(not isinstance(d, int) or d == n for d, n in zip(stated, small[name].shape, strict=True)), name


def valid(subject: Subject) -> None:
    """The pruned graph passes the checker and can be pruned again; its cost is the one counted on the labels."""
    dependencies = subject.dependencies
    for removed, pruned in subject.removals:
        check_standard(dependencies.model, pruned)
        dense, small = cost(dependencies), cost(trace(normalise(pruned)))
        stated = cost(dependencies, dependencies.keep(removed))
        smaller = small.bytes < dense.bytes or small.params < dense.params
        apart = dependencies.model.copies and small.macs < dense.macs  # vectors shared before may be two now
        assert smaller or apart
        same = set(pruned.weights) == set(dependencies.model.weights)  # a node that reads sizes may add constants
        assert stated.macs == small.macs and (not same or stated.params == small.params)
        complete(dependencies, removed, pruned)


def complete(dependencies: Dependencies, removed: Ids, pruned: Model) -> None:
    """The list of what was removed names everything that got smaller."""
    found = removal(dependencies, removed)
    for name, weight in dependencies.model.weights.items():
        if name not in pruned.weights or pruned.weights[name].dtype.kind not in "fu":
            continue
        lost = {k: len(at) for k, at in found.indices.get(name, {}).items()}
        lost |= {k: len(blocks[0]) for k, blocks in found.per_block.get(name, {}).items()}
        after = tuple(size - lost.get(k, 0) for k, size in enumerate(weight.shape))
        assert pruned.weights[name].shape == after, name


# --- law 2 -----------------------------------------------------------------------------------------------------------


def fill(
    dependencies: Dependencies, node: onnx.NodeProto, values: Tensors, keep: Mask, seed: int
) -> list[Array | None]:
    """A node's inputs, then what its bodies read, with random numbers in the removed indices.

    One side of a contraction holds zeros there.
    """
    rng = np.random.default_rng(seed)
    found: list[Array | None] = []
    inner = {n.input[1]: n for n in every_node(dependencies.model.proto.graph) if contracts(n) and len(n.input) > 1}
    for i, name in enumerate([*node.input, *captured(node)]):
        if not name:
            found.append(None)
            continue
        value, axes = np.array(values[name]), dependencies.labels.get(name)
        mask = kept(axes, value.shape, keep)
        value[~mask] = random_like(value, rng)[~mask]
        reader, operand = (inner[name], 1) if i >= len(node.input) and name in inner else (node, i)
        cut = ~mask & contrib.at_zero(reader, operand, value.shape)
        for axis in contracted_axes(reader, operand, value.ndim):
            cut |= ~kept(axes, value.shape, keep, only=axis)
        value[cut] = np.broadcast_to(contrib.zero_of(reader, operand, values), value.shape)[cut]
        found.append(value)
    return found


def interference_free(subject: Subject) -> None:
    case, dependencies, values = subject.case, subject.dependencies, subject.values
    for removed, _ in subject.removals:
        keep = dependencies.keep(removed)
        mixing = {node.output[0] for node in dependencies.approximate(keep)}  # on the whole graph they are looked at
        for node in [n for n in subject.nodes if n.output[0] not in mixing]:
            read = [n for n in (*node.input, *captured(node)) if n]
            if all(kept(dependencies.labels.get(n), values[n].shape, keep).all() for n in read):
                continue
            one, two = (
                alone(case, dependencies.model, node, fill(dependencies, node, values, keep, seed), values)
                for seed in (1, 2)
            )
            for name in filter(None, node.output):
                mask = kept(dependencies.labels.get(name), one[name].shape, keep)
                close(case, one[name][mask], two[name][mask], f"{node.op_type} -> {name}")


def cut_off(subject: Subject) -> None:
    """On the whole graph: once the consumers' weights are zero, the producers' can be anything."""
    dependencies = subject.dependencies
    nodes = every_node(dependencies.model.proto.graph)
    if any(both_computed(dependencies.model, node) or node.op_type in contrib.RANGED for node in nodes):
        return  # such a node has no weights to zero; node by node it is tested all the same
    for removed, _ in subject.removals:
        keep = dependencies.keep(removed)
        noisy = [restricted(dependencies, keep, randomised(dependencies, keep, seed)) for seed in (1, 2)]
        one, two = (evaluate(subject.case, model, subject.feeds) for model in noisy)
        for info in dependencies.model.proto.graph.output:
            close(subject.case, one[info.name], two[info.name], info.name)


def both_computed(model: Model, node: onnx.NodeProto) -> bool:
    """Whether a contraction has no stored operand."""
    operands = [n for i, n in enumerate(node.input) if i in factors(node)]
    return contracts(node) and (computed_heads(node) or not any(n in model.weights for n in operands))


def computed_heads(node: onnx.NodeProto) -> bool:
    """Whether a node multiplies queries and keys that it computed itself."""
    return node.domain == contrib.RUNTIME and node.op_type.endswith("Attention")


def randomised(dependencies: Dependencies, keep: Mask, seed: int) -> Model:
    """The dense model with zeros where removed indices are consumed and random numbers where they are produced."""
    model, rng, weights = dependencies.model, np.random.default_rng(seed), {}
    produced, zeros = {(s.tensor, s.axis) for s in dependencies.sources}, contrib.zero_points(model)
    summing = [node for node in every_node(model.proto.graph) if contracts(node)]
    operands = {tensor for tensor, _ in produced}
    operands |= {name for node in summing for name in node.input[: 4 if contrib.contracts(node) else 2]}
    for name, weight in model.weights.items():
        value, axes = np.array(weight), dependencies.labels.get(name) or ()
        mask = kept(axes, value.shape, keep)
        value[~mask] = np.abs(random_like(value, rng))[~mask]  # a negative variance would make everything NaN
        for k in range(len(axes)):
            if name in operands and (name, k) not in produced:
                cut = ~kept(axes, value.shape, keep, only=k)
                value[cut] = np.broadcast_to(zeros.get(name, np.zeros((), value.dtype)), value.shape)[cut]
        weights[name] = value
    return Model(model.proto, weights, shapes=model.shapes)


# --- law 3 -----------------------------------------------------------------------------------------------------------


def conserved(subject: Subject) -> None:
    tracer = Tracer(subject.dependencies.model, records=Records(through=subject.case.through))
    for node in subject.nodes:
        opened = tracer.ties.count
        tracer.visit(node)
        given = [tracer.labels.get(n) or () for n in (*node.input, *captured(node)) if n]
        known = np.unique(np.concatenate([np.zeros(0, np.int64), *(ids_of(a) for axes in given for a in axes)]))
        for name in filter(subject.values.__contains__, node.output):
            axes = tracer.labels.get(name)
            for k, axis in enumerate(axes or ()):
                ids = ids_of(axis)
                assert np.isin(ids[ids < opened], known).all(), f"{node.op_type} -> {name}: ids from elsewhere"
                fits(axis, k, subject.values[name].shape, f"{node.op_type} -> {name}")
            assert axes is None or len(axes) == subject.values[name].ndim, f"{node.op_type} -> {name}"


def ids_of(axis: Axis) -> Ids:
    return np.zeros(0, np.int64) if axis.ids is None else axis.ids.ravel()


def fits(axis: Axis, k: int, shape: tuple[int, ...], what: str) -> None:
    """One id for each index, and one row for each block of the axes that the rows run over."""
    if axis.ids is None:
        return
    assert axis.ids.shape[-1] == shape[k], f"{what}: {axis.ids.shape} ids on axis {k} of {shape}"
    assert axis.ids.ndim == len(axis.by) + 1 and k not in axis.by, what
    assert all(shape[b] % n == 0 for b, n in zip(axis.by, axis.ids.shape, strict=False)), what


Law = Callable[[Subject], None]
LAWS: tuple[Law, ...] = (commute, valid, interference_free, cut_off, conserved)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@every_case
def test_law(case: Case, law: Law) -> None:
    law(studied(case))


# --- the cases prove something ---------------------------------------------------------------------------------------


def test_every_operator_has_a_case() -> None:
    used = {(node.domain, node.op_type) for case in CASES.values() for node in case.proto().graph.node}
    assert not set(RULES) - used


@every_case
def test_case_is_not_vacuous(case: Case) -> None:
    subject = studied(case)
    assert case.whole == (not subject.removals)
    for info in subject.dependencies.model.proto.graph.output:
        value = subject.values[info.name]
        assert value.dtype.kind != "f" or (np.isfinite(value).all() and np.ptp(value) > 0)
