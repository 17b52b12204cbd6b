"""The ways of recovery that go from front to back. Law: what a method cannot do to a layer it says, layer by layer."""

from __future__ import annotations

import onnx

from onnxprune.model import Model
from onnxprune.recover.affine import corrected, distance, missing, shift
from onnxprune.recover.affine import statistics as matched
from onnxprune.recover.answer import Layer
from onnxprune.recover.refit import refitted
from onnxprune.recover.registry import Task, method
from onnxprune.recover.state import Recovery, front_to_back

Found = tuple[Model, list[Layer]]


@method("ridge")
def ridge(task: Task) -> Found:
    """Refit every linear layer by ridge regression; scale and shift the channels of what cannot be refitted.

    He et al. 2017, arXiv 1707.06168, section 3.2, with the full kernel x channel Gram matrix, as there; the penalty on
    the change, and the choice of it on samples held out, are ours.
    """

    def visit(state: Recovery, at: int, node: onnx.NodeProto) -> Layer | None:
        if node.op_type == "BatchNormalization" and node.input[0] in state.changed:
            return None  # refitted behind it already
        found = refitted(state, at, node)
        if node.op_type != "BatchNormalization" and (found is None or found.method):
            return found
        other = corrected(state, at, node, (matched, shift), missing, "statistics")
        return other if found is None or (other is not None and other.method) else found

    return front_to_back(task, visit)


@method("statistics")
def statistics(task: Task) -> Found:
    """Give every channel the mean and standard deviation that it has in the dense network.

    Re-estimated statistics of BatchNormalization (BNFix of CoBRA; Finkelstein et al. 2019, arXiv 1906.03193, for means
    alone; Jordan et al. 2022, REPAIR, arXiv 2211.08403, for both). They are written into its scale and shift, which
    computes the same; where it was folded, into the weights and the bias of the layer. A layer is judged by how
    far means and deviations are from the dense ones' on samples held out.
    """
    return front_to_back(
        task, lambda state, at, node: corrected(state, at, node, (matched, shift), distance, "statistics")
    )


@method("bias")
def bias(task: Task) -> Found:
    """Shift every channel by the mean of what it misses.

    Finkelstein et al. 2019, arXiv 1906.03193; FLAP, An et al. 2023, arXiv 2312.11983, section 3.3, for pruning.
    """
    return front_to_back(task, lambda state, at, node: corrected(state, at, node, (shift,), missing, "bias"))
