"""Prove the surgery right. Law: the masked dense model and the pruned model give the same outputs.

Both run unoptimised in one runtime, so each node is the same kernel in both. They differ only in how many terms a sum
over channels has: the masked model adds zeros where the pruned one has nothing, and kernels group terms by width.
Rounding then differs by about eps * sqrt(terms) a layer. Over the exported zoo this stayed below 1e-5 of the largest
output in float32; 1e-4 leaves room for that. Wrong surgery (one channel off) shows at 1e-3 and above in the layer it
happened in, which is why the outputs of convolutions and matrix products are compared too. Half precision is
wider by the ratio of the epsilons. The absolute part covers outputs far below 1, such as saturated sigmoids, which
runtimes approximate with a fixed absolute error of about 1e-7. Where activations are rounded, a last bit may become a
whole step; such models are compared from one rounding to the next (see `pieces`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product, zip_longest

import numpy as np
import onnx

from onnxprune.branches import forced, pruned_branches
from onnxprune.data import Feeds
from onnxprune.data import batches as sample_batches
from onnxprune.errors import DataError, RuntimeUnavailable, VerificationError
from onnxprune.graph import every_node
from onnxprune.labels import Ids
from onnxprune.model import Array, Model, check, is_float
from onnxprune.pieces import between, cuts, rounded
from onnxprune.reference import restricted, unreachable
from onnxprune.rewrite import masked, severed, take
from onnxprune.runtime import Session, capture, leaves, run, session
from onnxprune.trace import Dependencies, Mask

RELATIVE = {"float64": 1e-9, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
ABSOLUTE = 1e-2  # added to the scale of an output; times the tolerance it allows 1e-6 in float32
REMEDY = "nothing was written; --skip the layer, and please report it"
ONE = {"size": 1, "limit": 1}  # sample of a batch
CHUNK = 64  # tensors captured at once when a difference is traced to its first tensor


@dataclass(frozen=True)
class Mixing:
    """A node that was pruned through although it mixes channels with each other."""

    node: str
    operator: str


@dataclass(frozen=True)
class Equivalence:
    """The result of a comparison.

    Attributes:
        ok: Whether every output agreed.
        kind: 'exact' (masked == pruned), or 'approximate': equal once every node in `through` sees only what stays.
        max_abs: Largest absolute difference over all outputs and batches.
        max_rel: Largest difference relative to the largest absolute value of its output plus 0.01.
        tolerance: The relative difference allowed.
        batches: Batches compared.
        worst: The output with the largest relative difference.
        through: The nodes that see fewer channels than they did; empty if exact.
        unproved: Of those, the ones for which no reference can be made. With any, only shapes and finite values were
            compared, and `max_abs` and `max_rel` say nothing.
        deviation: Largest relative difference of an output from the plainly masked model; None if there is no figure.
        pieces: In how many pieces the models were compared, because they enlarge rounding; 0: as a whole.
        not_run: Branches that could not be run on the inputs given; '' if none.
    """

    ok: bool
    kind: str
    max_abs: float
    max_rel: float
    tolerance: float
    batches: int
    worst: str = ""
    through: tuple[Mixing, ...] = ()
    unproved: tuple[str, ...] = ()
    deviation: float | None = None
    not_run: str = ""
    pieces: int = 0

    def to_dict(self) -> dict[str, object]:
        """As plain values, for JSON."""
        empty = {"through", "unproved", "deviation"} if not self.through else set()
        empty |= {name for name in ("not_run", "pieces") if not getattr(self, name)}
        return {key: value for key, value in asdict(self).items() if key not in empty}


def tolerance(model: Model) -> float:
    """The relative tolerance for the least precise float type among a model's larger weights."""
    kinds = {w.dtype.name for w in model.weights.values() if is_float(w) and w.ndim > 1}
    return max((RELATIVE.get(kind, RELATIVE["float32"]) for kind in kinds), default=RELATIVE["float32"])


def compare(a: Model, b: Model, batches: Sequence[Feeds], *, threads: int = 1) -> Equivalence:
    """Run two models on the same inputs and compare all outputs.

    Args:
        a: The reference; it also sets the tolerance.
        b: The other model, with the same inputs and outputs.
        batches: Inputs.
        threads: Threads inside one operator.
    """
    first, second = (session(m, threads=threads, optimise=False) for m in (a, b))
    allowed = tolerance(a)
    ok, max_abs, max_rel, worst = True, 0.0, 0.0, ""
    for feeds in batches:
        for name, (x, y) in outputs(first, second, feeds):
            absolute, relative, same = difference(x, y, allowed)
            ok = ok and same
            max_abs = max(max_abs, absolute)
            if relative >= max_rel:
                max_rel, worst = relative, name
    return Equivalence(ok, "exact", max_abs, max_rel, allowed, len(batches), worst)


def outputs(a: Session, b: Session, feeds: Feeds) -> Iterator[tuple[str, tuple[Array, Array]]]:
    """The outputs of two sessions side by side, tensor by tensor; what only one has stands beside nothing."""
    left, right, nothing = run(a, feeds), run(b, feeds), np.zeros(0, np.bool_)
    for name in left:
        for x, y in zip_longest(leaves(left[name]), leaves(right[name])):
            yield name, (nothing if x is None else x, nothing[None] if y is None else y)


def difference(x: Array, y: Array, allowed: float) -> tuple[float, float, bool]:
    """Largest absolute difference, the same over max |x| + 0.01, and whether that is within the tolerance.

    Entries that are not finite must be the same in both.
    """
    if x.shape != y.shape:
        return np.inf, np.inf, False
    if not is_float(x):
        same = bool(np.array_equal(x, y))
        return float(not same), float(not same), same
    wide, narrow = x.astype(np.float64), y.astype(np.float64)
    finite = np.isfinite(wide)
    if not np.array_equal(wide[~finite], narrow[~finite], equal_nan=True) or not np.isfinite(narrow[finite]).all():
        return np.inf, np.inf, False
    if not finite.any():
        return 0.0, 0.0, wide.size == 0  # nothing finite proves nothing
    absolute = float(np.abs(wide[finite] - narrow[finite]).max())
    scale = float(np.abs(wide[finite]).max())
    relative = absolute / (scale + ABSOLUTE)
    return absolute, relative, relative <= allowed


def verify(
    dependencies: Dependencies,
    removed: Ids,
    pruned: Model,
    batches: Sequence[Feeds],
    *,
    original: Model | None = None,
    threads: int = 1,
) -> Equivalence:
    """Check the pruned model: valid, shapes consistent, and equal to the masked dense model on the given inputs.

    Args:
        dependencies: The traced model.
        removed: Unit numbers that were removed.
        pruned: The result of `rewrite`.
        batches: Inputs to compare on.
        original: The model as loaded; if given, it must agree with its normalised form too.
        threads: Threads inside one operator.

    Raises:
        VerificationError: Something differs; the message names the first tensor that does.
    """
    if not batches:
        raise VerificationError("there are no inputs to compare the models on", remedy="give data with --data")
    check_standard(dependencies.model, pruned)
    if original is not None:
        check_normalised(original, dependencies.model, batches, threads)
    keep = dependencies.keep(removed)
    if lost := unreachable(dependencies, keep):
        return approximated(compare_forms(dependencies.model, pruned, batches, threads), dependencies, keep, lost)
    found, where = compare_within(dependencies, removed, pruned, batches, threads)
    if found.ok and not where:
        return found
    what = f"the pruned model differs from the masked one by {found.max_rel:.1e} (allowed {found.tolerance:.0e})"
    raise VerificationError(what, where=where, remedy=REMEDY)


def compare_within(
    dependencies: Dependencies, removed: Ids, pruned: Model, batches: Sequence[Feeds], threads: int
) -> tuple[Equivalence, str]:
    """Compare outputs, inner layers and branches; the result, and where it fails."""
    keep = dependencies.keep(removed)
    reference, found = compare_masked(dependencies, removed, pruned, batches, threads)
    if not found.ok:
        each = (first_difference(dependencies, keep, reference, pruned, feeds, threads) for feeds in batches)
        return found, next(filter(None, each), "no single tensor differs")
    if not found.pieces and (where := inner_difference(dependencies, keep, reference, pruned, batches[0], threads)):
        found = compare_pieces(found, dependencies, keep, reference, pruned, batches, threads)
        if not found.pieces:
            return found, where
    found = worst_branch(found, dependencies, keep, reference, pruned, batches[0], threads)
    return found, "" if found.ok else f"where it takes the other branch of an If, at output '{found.worst}'"


def compare_masked(
    dependencies: Dependencies, removed: Ids, pruned: Model, batches: Sequence[Feeds], threads: int
) -> tuple[Model, Equivalence]:
    """The model that the pruned one must equal, and how closely it does."""
    keep = dependencies.keep(removed)
    for cut in (masked, severed):
        plain = cut(dependencies, removed)
        reference = restricted(dependencies, keep, plain)
        found = compare_closely(dependencies, keep, reference, pruned, batches, threads)
        if found.max_abs < np.inf:  # else zeros met a division, and the channels are cut off at their readers instead
            break
    if reference is not plain:
        deviation = compare(plain, pruned, batches, threads=threads).max_rel
        found = approximated(found, dependencies, keep, deviation=deviation)
    return reference, found


def approximated(
    found: Equivalence,
    dependencies: Dependencies,
    keep: Mask,
    unproved: Sequence[str] = (),
    deviation: float = np.inf,
) -> Equivalence:
    """The result for a model that was pruned through nodes that mix channels."""
    aside = deviation if np.isfinite(deviation) else None
    through = tuple(Mixing(n.name or n.output[0], n.op_type) for n in dependencies.approximate(keep))
    return replace(found, kind="approximate", through=through, unproved=tuple(unproved), deviation=aside)


def compare_forms(dense: Model, pruned: Model, batches: Sequence[Feeds], threads: int) -> Equivalence:
    """What can be said without a reference: outputs have the dense ones' shapes, and are finite where those are.

    Raises:
        VerificationError: They do not.
    """
    first, second = (session(m, threads=threads, optimise=False) for m in (dense, pruned))
    for feeds in batches:
        for name, (x, y) in outputs(first, second, feeds):
            if x.shape != y.shape or not np.isfinite(y[np.isfinite(x)] if is_float(x) else 0).all():
                what = f"output '{name}' of the pruned model has another shape, or values that are not finite"
                raise VerificationError(what, remedy="nothing was written; leave --through-norms out")
    return Equivalence(True, "approximate", 0.0, 0.0, tolerance(dense), len(batches))


def worst_branch(
    found: Equivalence,
    dependencies: Dependencies,
    keep: Mask,
    reference: Model,
    pruned: Model,
    feeds: Feeds,
    threads: int,
) -> Equivalence:
    """The comparison that is worst when each If takes either branch: inputs alone may never lead into one of them.

    A branch that cannot be run on these inputs stays unproved, and is named.
    """
    for name, taken in product(pruned_branches(dependencies, keep), (False, True)):
        a, b = (forced(m, name, taken) for m in (reference, pruned))
        try:
            told = all(np.isfinite(out).all() for out in run(session(a), feeds).values() if is_float(out))
            other = compare(a, b, [feeds], threads=threads) if told else None
        except (DataError, RuntimeUnavailable):
            other = None
        if other is None:
            where = f"'{name}' where its condition is {taken}"
            found = replace(found, not_run=", ".join(filter(None, (found.not_run, where))))
            continue
        if not other.ok:
            return other
        if other.max_rel > found.max_rel:
            measured = {key: getattr(other, key) for key in ("ok", "max_abs", "max_rel", "worst")}
            found = replace(found, **measured)
    return found


def compare_closely(
    dependencies: Dependencies, keep: Mask, reference: Model, pruned: Model, batches: Sequence[Feeds], threads: int
) -> Equivalence:
    """Compare two models; if they differ, piece by piece, for the model may only enlarge what rounding left."""
    found = compare(reference, pruned, batches, threads=threads)
    return found if found.ok else compare_pieces(found, dependencies, keep, reference, pruned, batches, threads)


def compare_pieces(
    found: Equivalence,
    dependencies: Dependencies,
    keep: Mask,
    reference: Model,
    pruned: Model,
    batches: Sequence[Feeds],
    threads: int,
) -> Equivalence:
    """Compare two models from one cut to the next: `found`, where that does not agree either or nothing can be cut.

    Models that round are compared on 16 samples of every batch, others on one.
    """
    names, few = cuts(pruned, dependencies.labels), {} if rounded(pruned, dependencies.labels) else ONE
    if not names:
        return found
    max_abs, max_rel, worst = 0.0, 0.0, ""
    for feeds in (part for whole in batches for part in sample_batches(reference, whole, **few)):
        for name, x, y in between(dependencies, keep, reference, pruned, feeds, threads):
            absolute, relative, same = difference(x, y, found.tolerance)
            if not same:
                return found
            max_abs = max(max_abs, absolute)
            if relative >= max_rel:
                max_rel, worst = relative, name
    return replace(found, ok=True, max_abs=max_abs, max_rel=max_rel, worst=worst, pieces=len(names) + 1)


def check_normalised(original: Model, dense: Model, batches: Sequence[Feeds], threads: int) -> None:
    """The normalised model computes what the loaded one does."""
    same = compare(original, dense, batches, threads=threads)
    if not same.ok:
        what = f"the normalised model differs from the original at output '{same.worst}' by {same.max_rel:.1e}"
        raise VerificationError(what, remedy="please report this model")


def check_standard(dense: Model, pruned: Model) -> None:
    """onnx's checker and strict shape inference on the pruned graph; inference only where the dense graph passes it."""
    check(pruned.proto, "the pruned model")
    if infer_strictly(dense) is None and (problem := infer_strictly(pruned)) is not None:
        what = f"shape inference fails on the pruned model: {problem}"
        raise VerificationError(what, remedy="please report this model")


def infer_strictly(model: Model) -> str | None:
    """What strict shape inference says against a model, in one line, or None."""
    try:
        onnx.shape_inference.infer_shapes(model.proto, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        return str(error).strip().splitlines()[-1]
    return None


def first_difference(
    dependencies: Dependencies, keep: Mask, reference: Model, pruned: Model, feeds: Feeds, threads: int
) -> str:
    """The first tensor, in the order of the nodes, whose kept part differs between the two models; empty if none."""
    dense = {name for node in reference.proto.graph.node for name in node.output}
    written = [(name, node) for node in pruned.proto.graph.node for name in node.output if name in dense]
    return first_of(written, dependencies, keep, reference, pruned, feeds, threads)


def inner_difference(
    dependencies: Dependencies, keep: Mask, reference: Model, pruned: Model, feeds: Feeds, threads: int
) -> str:
    """The first of up to 64 outputs of convolutions and matrix products whose kept part differs; empty if none.

    Outputs alone can hide wrong surgery: a Softmax or Sigmoid at the end squeezes any logits into [0, 1]. Rounded
    activations are left out, for there a last bit may become a whole step.
    """
    nodes = pruned.proto.graph.node
    if any("QuantizeLinear" in n.op_type and n.input[0] not in pruned.weights for n in every_node(pruned.proto.graph)):
        return ""
    readers = {s.node for s in dependencies.sources}
    made = [(n.output[0], n) for n in nodes if (n.name or n.output[0]) in readers]
    made = [(o, n) for o, n in made if not any(a.by for a in dependencies.labels.get(o, ()))]
    chosen = [made[i] for i in np.unique(np.linspace(0, len(made) - 1, CHUNK).astype(int))] if made else []
    one = next(sample_batches(reference, feeds, size=1, limit=1))
    return first_of(chosen, dependencies, keep, reference, pruned, one, threads)


def first_of(
    written: Sequence[tuple[str, onnx.NodeProto]],
    dependencies: Dependencies,
    keep: Mask,
    reference: Model,
    pruned: Model,
    feeds: Feeds,
    threads: int,
) -> str:
    """The first of the given tensors whose kept part differs between the two models; empty if none."""
    allowed = tolerance(reference)
    for start in range(0, len(written), CHUNK):
        part = written[start : start + CHUNK]
        names = [name for name, _ in part]
        left = capture(reference, feeds, names, threads=threads)
        right = capture(pruned, feeds, names, threads=threads)
        for name, node in part:
            if (axes := dependencies.labels.get(name)) is None:
                continue
            dims = dependencies.model.shapes.get(name) or ()
            plain = all(len(a.by) < 2 and all(isinstance(dims[b], int) for b in a.by) for a in axes)
            kept = take(left[name], axes, keep) if plain else left[name]
            if not difference(kept, right[name], allowed)[2]:
                return f"first at tensor '{name}', written by {node.op_type} '{node.name}'"
    return ""
