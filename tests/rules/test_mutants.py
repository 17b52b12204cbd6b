"""Planted faults. Each must break a law on the case named beside it, and each law must catch some fault by itself."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from onnxprune.labels import Axes, Axis, Ids
from onnxprune.model import Array
from onnxprune.rules import RULES, contract, layout, norm, op, pointwise, reduce, scatter, select
from onnxprune.rules.edit import Edit
from onnxprune.rules.op import Op
from onnxprune.rules.registry import RESIZES, Rule
from onnxprune.trace import Mask
from tests.rules.cases import CASES
from tests.rules.test_laws import LAWS, Law, study

Patch = pytest.MonkeyPatch
reference = importlib.import_module("onnxprune.reference")
tracer = importlib.import_module("onnxprune.trace.tracer")
rewrite = importlib.import_module("onnxprune.rewrite")  # the package exports a function of that name


@dataclass(frozen=True, eq=False)
class Mutant:
    """One fault: how to plant it, and the case that must show it."""

    plant: Callable[[Patch], None]
    case: str

    @property
    def name(self) -> str:
        return self.plant.__name__


MUTANTS: list[Mutant] = []


def mutant(*cases: str) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Declare a fault and the cases it must show on."""

    def register(plant: Callable[[Patch], None]) -> Callable[[Patch], None]:
        MUTANTS.extend(Mutant(plant, case) for case in cases)
        return plant

    return register


def replace_rule(patch: Patch, kind: str, trace: Callable[[Op], Sequence[Axes]]) -> None:
    patch.setitem(RULES, ("", kind), Rule(trace, "planted", "planted"))


def forget_resize(patch: Patch, kind: str) -> None:
    patch.delitem(RESIZES, ("", kind))


# --- labels that move wrongly ----------------------------------------------------------------------------------------


@mutant("Concat", "sums-of-concatenations", "dense-block")
def concat_without_offset(patch: Patch) -> None:
    def first_again(o: Op, operands: Sequence[Axes], axis: int) -> Axis:
        ids = next(axes[axis].ids for axes in operands if axes[axis].ids is not None)
        size = o.out_shape()[axis]
        assert ids is not None and isinstance(size, int)
        return Axis(np.resize(ids, size))

    patch.setattr(layout, "concatenated", first_again)


@mutant("Transpose")
def transpose_by_the_inverse(patch: Patch) -> None:
    def inverse(o: Op) -> Sequence[Axes]:
        return [o.permuted(o.input(0), np.argsort(o.attr("perm", [])).tolist())]

    replace_rule(patch, "Transpose", inverse)


@mutant("Transpose")
def transpose_to_the_next_labels(patch: Patch) -> None:
    def shifted(o: Op) -> Sequence[Axes]:
        axes = o.permuted(o.input(0), o.attr("perm", []))
        return [tuple(axis if axis.ids is None else Axis(axis.ids + 1, axis.by) for axis in axes)]

    replace_rule(patch, "Transpose", shifted)


@mutant("Pad", "Pad-axes")
def pad_before_and_after_swapped(patch: Patch) -> None:
    padded = layout.padded
    patch.setattr(layout, "padded", lambda o, x, k, before, after: padded(o, x, k, after, before))


@mutant("Flatten", "Reshape-flattens")
def flatten_in_the_wrong_order(patch: Patch) -> None:
    def backwards(axis: Axis, own: int, members: Sequence[int], shape: Sequence[int]) -> Ids:
        assert axis.ids is not None
        return np.resize(axis.ids.ravel(), shape)

    patch.setattr(op, "spread", backwards)


@mutant("DepthToSpace-CRD")
def depth_to_space_always_dcr(patch: Patch) -> None:
    attr = Op.attr
    patch.setattr(Op, "attr", lambda o, name, default: default if name == "mode" else attr(o, name, default))


@mutant("Tile")
def tile_repeats_each(patch: Patch) -> None:
    def each(axis: Axis, times: int) -> Axis:
        return axis if axis.ids is None else Axis(np.repeat(axis.ids, times, axis=-1))

    patch.setattr(layout, "tiled", each)


@mutant("Gemm-transB-square")
def gemm_ignores_trans_b(patch: Patch) -> None:
    attr = Op.attr
    patch.setattr(Op, "attr", lambda o, name, default: default if name == "transB" else attr(o, name, default))


@mutant("Gather", "Slice-backwards")
def picked_in_sorted_order(patch: Patch) -> None:
    picked = Op.picked
    patch.setattr(Op, "picked", lambda o, axes, k, index: picked(o, axes, k, np.sort(index)))


# --- ties that are missing -------------------------------------------------------------------------------------------


@mutant("BatchNormalization", "dense-block")
def batch_normalization_parameters_not_tied(patch: Patch) -> None:
    replace_rule(patch, "BatchNormalization", lambda o: [o.input(0)])


@mutant("Add", "residual")
def summands_not_joined(patch: Patch) -> None:
    patch.setattr(pointwise, "overlay", lambda o, a, dims_a, b, dims_b, i: (a, dims_a))


@mutant("Conv", "Conv-1d")
def conv_bias_not_tied(patch: Patch) -> None:
    has = Op.has
    patch.setattr(Op, "has", lambda o, i: has(o, i) and not (o.kind == "Conv" and i == 2))


@mutant("MatMul", "attention")
def product_without_contraction(patch: Patch) -> None:
    join = Op.join
    patch.setattr(Op, "join", lambda o, a, b: a if o.kind == "MatMul" else join(o, a, b))


@mutant("Conv-grouped", "ShuffleNet-unit")
def groups_free_to_differ(patch: Patch) -> None:
    patch.setattr(contract, "couple", lambda o, into, out: None)


@mutant("Slice-of-rows")
def rows_free_before_the_slice(patch: Patch) -> None:
    patch.setattr(select, "cut", lambda o, axes, k, index: o.picked(axes, k, index))


@mutant("MatMulInteger-per-column")
def zero_points_not_tied(patch: Patch) -> None:
    patch.setattr(contract, "per_index", lambda o, axis, i: axis)


@mutant("ScatterND-channels")
def updates_not_tied(patch: Patch) -> None:
    join = Op.join
    patch.setattr(Op, "join", lambda o, a, b: a if o.kind == "ScatterND" else join(o, a, b))


@mutant("GatherElements-channels", "TopK-channels")
def mixed_axes_pass(patch: Patch) -> None:
    for module in (scatter, reduce, norm):
        patch.setattr(module, "mixing", lambda o, i, mixed, reason: o.input(i))


@mutant("Col2Im")
def taps_laid_out_as_blocks(patch: Patch) -> None:
    collapse = Op.collapse
    patch.setattr(Op, "collapse", lambda o, ids: collapse(o, ids.T.reshape(ids.shape) if o.kind == "Col2Im" else ids))


@mutant("DeformConv-offset-groups")
def offset_groups_free_to_differ(patch: Patch) -> None:
    patch.setattr(Op, "rows", lambda o, ids, parents=None: None)


@mutant("Gather-scalar")
def picked_index_may_go(patch: Patch) -> None:
    freeze = Op.freeze_ids
    patch.setattr(Op, "freeze_ids", lambda o, ids, *why: Axis() if o.kind == "Gather" else freeze(o, ids, *why))


# --- axes that should freeze -----------------------------------------------------------------------------------------


@mutant("Softmax", "Softmax-over-heads")
def softmax_passes(patch: Patch) -> None:
    replace_rule(patch, "Softmax", pointwise.unary)


@mutant("LRN")
def local_response_passes(patch: Patch) -> None:
    replace_rule(patch, "LRN", pointwise.unary)


@mutant("LayerNormalization-last")
def layer_normalization_only_ties(patch: Patch) -> None:
    def tie(o: Op) -> Sequence[Axes]:
        x = list(o.input(0))
        for i in (1, 2):
            x[-1] = o.join(x[-1], o.input(i)[0])
        return [tuple(x)]

    replace_rule(patch, "LayerNormalization", tie)


@mutant("Softmax-over-heads")
def rows_outlive_what_mixes_them(patch: Patch) -> None:
    patch.setattr(Op, "without_rows", lambda o, axes, k, gone: axes[k])


@mutant("MaxPool-indices")
def positions_of_maxima_pass(patch: Patch) -> None:
    replace_rule(patch, "MaxPool", lambda o: [(*o.input(0)[:2], Axis(), Axis())] * o.outputs)


@mutant("Resize-barely", "Resize-crops-channels")
def same_size_taken_for_untouched(patch: Patch) -> None:
    patch.setattr(reduce, "untouched", lambda o, before, after, k: before == after)


@mutant("ReduceMean-channels", "ArgMax-channels")
def reduction_over_channels_passes(patch: Patch) -> None:
    patch.setattr(Op, "fix", lambda o, axes, k, tensor, reason: Axis() if o.kind in reduce_kinds else axes[k])


reduce_kinds = {*reduce.REDUCE.split(), "ArgMax"}


# --- stored sizes ----------------------------------------------------------------------------------------------------


@mutant("Slice", "Slice-attributes")
def slice_bounds_not_resized(patch: Patch) -> None:
    forget_resize(patch, "Slice")


@mutant("Split-uneven", "Split-attribute")
def split_sizes_reversed(patch: Patch) -> None:
    correct = RESIZES["", "Split"]

    def reverse(edit: Edit) -> None:
        edit.node.output[:] = list(edit.node.output)[::-1]
        correct(edit)
        edit.node.output[:] = list(edit.node.output)[::-1]

    patch.setitem(RESIZES, ("", "Split"), reverse)


@mutant("Gather")
def gather_not_renumbered(patch: Patch) -> None:
    forget_resize(patch, "Gather")


@mutant("Conv-depthwise", "Conv-groups-narrowed")
def group_attribute_not_reduced(patch: Patch) -> None:
    forget_resize(patch, "Conv")


@mutant("Reshape-fixed", "Reshape-computed", "channel-shuffle")
def reshape_target_not_resized(patch: Patch) -> None:
    forget_resize(patch, "Reshape")


@mutant("Pad-attributes", "option-A-shortcut")
def padding_put_before(patch: Patch) -> None:
    set_input, set_attr = Edit.set_input, Edit.set_attr

    def front(pads: Sequence[int]) -> Array:
        value = np.array(pads)
        half = value.size // 2
        return np.concatenate([value[:half] + value[half:], 0 * value[half:]])

    patch.setattr(Edit, "set_input", lambda e, i, value: set_input(e, i, front(value)))
    patch.setattr(Edit, "set_attr", lambda e, name, value: set_attr(e, name, front(value).tolist()))


@mutant("Expand-computed", "Shape")
def shape_shows_pruned_sizes(patch: Patch) -> None:
    forget_resize(patch, "Shape")


@mutant("Resize-sizes", "Resize-axes-with-channels")
def resize_target_not_resized(patch: Patch) -> None:
    forget_resize(patch, "Resize")


@mutant("Slice-strided")
def uneven_steps_ignored(patch: Patch) -> None:
    patch.setattr(select, "bounds_of", lambda at: (at[0], at[-1] + 1, at[1] - at[0] if len(at) > 1 else 1))


@mutant("Squeeze-everything", "Squeeze-everything-11")
def squeeze_drops_what_shrank_to_one(patch: Patch) -> None:
    forget_resize(patch, "Squeeze")


@mutant("ScatterND-channels")
def scattered_indices_not_renumbered(patch: Patch) -> None:
    forget_resize(patch, "ScatterND")


@mutant("Compress")
def condition_not_shortened(patch: Patch) -> None:
    forget_resize(patch, "Compress")


@mutant("Size")
def size_shows_pruned_number(patch: Patch) -> None:
    forget_resize(patch, "Size")


@mutant("CenterCropPad-sizes")
def crop_not_resized(patch: Patch) -> None:
    forget_resize(patch, "CenterCropPad")


# --- the two leaf functions ------------------------------------------------------------------------------------------


@mutant("Conv", "Gemm")
def masks_nothing(patch: Patch) -> None:
    patch.setattr(rewrite, "zero", lambda array, axes, keep: array.copy())


@mutant("Conv", "Gemm")
def takes_the_neighbours(patch: Patch) -> None:
    take = rewrite.take

    def shifted(array: Array, axes: Axes, keep: Mask) -> Array:
        return take(np.roll(array, 1, axis=0), axes, keep)

    patch.setattr(rewrite, "take", shifted)


@mutant("DequantizeLinear")
def zero_point_taken_for_zero(patch: Patch) -> None:
    patch.setattr(rewrite, "zero_points", lambda model: {})


# --- traced through ---------------------------------------------------------------------------------------------------


@mutant("through-LayerNormalization", "through-unit-length", "through-GroupNormalization-by-reshape")
def mixing_not_noted(patch: Patch) -> None:
    patch.setattr(op.Op, "mixes", lambda o, axes, k, tensor, reason: axes[k])


@mutant("through-centred-queries")
def a_mean_taken_for_zero(patch: Patch) -> None:
    patch.setattr(tracer, "note_mixed", lambda o, outputs: None)


@mutant("through-unscaled-queries", "through-GroupNormalization-by-reshape")
def rows_laid_back_in_another_order(patch: Patch) -> None:
    returns = reference.Cut.returns.fget
    patch.setattr(reference.Cut, "returns", property(lambda cut: returns(cut)[::-1].copy()))


# --- they are caught -------------------------------------------------------------------------------------------------


def holds(law: Law, case: str) -> bool:
    """Whether a law holds; a graph that can no longer be built or run breaks every law."""
    try:
        law(study(CASES[case]))
    except Exception:
        return False
    return True


@pytest.mark.parametrize("fault", MUTANTS, ids=lambda m: f"{m.name}-{m.case}")
def test_fault_is_caught(fault: Mutant, monkeypatch: Patch) -> None:
    fault.plant(monkeypatch)
    assert not all(holds(law, fault.case) for law in LAWS)


@pytest.mark.parametrize("law", [law for law in LAWS if law.__name__ != "valid"], ids=lambda law: law.__name__)
def test_law_catches_a_fault_by_itself(law: Law) -> None:
    caught = []
    for fault in MUTANTS:
        with pytest.MonkeyPatch.context() as patch:
            fault.plant(patch)
            try:
                law(study(CASES[fault.case]))
            except AssertionError:
                caught.append(fault.name)
            except Exception:
                continue  # it cannot be built or run, which proves nothing about this law
    assert caught
