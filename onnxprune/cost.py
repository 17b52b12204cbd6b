"""What a set of kept indices costs. Law: counted on the labels, equal to what is counted on the rewritten model.

MACs count Conv, ConvTranspose, Gemm and MatMul at batch 1; FLOPs would be twice that. Parameters count every floating
point initializer; bytes count all initializers of the dense model, not the vectors of sizes that `rewrite` may add.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.labels import Axes, Ids
from onnxprune.model import is_float
from onnxprune.rules import Product
from onnxprune.sharing import stored
from onnxprune.trace import Dependencies, Mask


@dataclass(frozen=True)
class Cost:
    """Size and work of a model.

    Attributes:
        params: Floating point weights and quantised filters.
        macs: Multiply-accumulates for one sample.
        bytes: Bytes of all weights.
    """

    params: int
    macs: int
    bytes: int

    def to_dict(self) -> dict[str, int]:
        """As plain numbers, for JSON."""
        return asdict(self)


def dense_mask(dependencies: Dependencies) -> Mask:
    """The mask that keeps everything."""
    return dependencies.keep(np.zeros(0, dtype=np.int64))


def cost(dependencies: Dependencies, keep: Mask | None = None) -> Cost:
    """The cost of a traced model when only the ids in `keep` stay (all of them by default).

    Args:
        dependencies: A traced model.
        keep: Boolean per id.
    """
    keep = dense_mask(dependencies) if keep is None else keep
    params = size = 0
    holders = stored(dependencies.model.copies, dependencies.labels, keep)
    filters = {s.tensor for s in dependencies.sources}  # quantised filters are parameters, sizes and indices are not
    for name, weight in dependencies.model.weights.items():
        if holders.get(name, name) != name:
            continue
        count = kept_elements(dependencies.labels.get(name), weight.shape, keep)
        params += count if is_float(weight) or name in filters else 0
        size += count * weight.dtype.itemsize
    return Cost(params, round(sum(macs(p, keep) for p in dependencies.products)), size)


def kept_elements(axes: Axes | None, shape: tuple[int, ...], keep: Mask) -> int:
    """Elements of an initializer that stay. An axis in blocks counts its living blocks' common width."""
    if axes is None:
        return int(np.prod(shape, dtype=np.int64))
    count = 1
    for axis, dense in zip(axes, shape, strict=True):
        count *= dense if axis.ids is None else width(axis.ids, keep)
    return count


def width(ids: Ids, keep: Mask) -> int:
    """Kept indices of an axis; of an axis in rows, those of one living row."""
    per_row: NDArray[np.int64] = keep[ids].sum(axis=-1)
    return int(per_row.max(initial=0))


def macs(product: Product, keep: Mask) -> float:
    """Multiplications of one contraction."""
    work = product.factor
    for ids in product.axes:
        work *= int(keep[ids].sum())
    if product.groups is not None:
        work /= max(1, int(keep[product.groups].any(axis=1).sum()))
    return work
