"""The work of each region as products of widths. Law: a width is what `cost` counts, so terms price what is written.

A region's time is modelled as a sum of terms with weights that are not negative (see `table`): something constant, the
elements it reads and writes, its multiply-accumulates. Kernels work in steps, so the last two enter in several forms:
with every width rounded up to the step that the machine rewards; with only the outputs rounded up, for a kernel may
take few inputs as they are; and once more where a width is no multiple of the step, or the inputs are fewer than one,
for other kernels and changes of layout take over there. Each term is a sum of products of widths, the widths of the
axes that can shrink; and a width is the dense one less what each group takes off it, so a whole plan is priced by
adding up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from onnxprune.cost import dense_mask, width
from onnxprune.graph import inputs_of, node_name
from onnxprune.labels import Axis, Ids
from onnxprune.latency.regions import Regions
from onnxprune.rules import Product
from onnxprune.trace import Dependencies, Mask

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Kind of work -> whether widths are rounded up to steps: all but the last, and the last (outputs).
ROUNDED = {
    "constant": (False, False),
    "elements": (False, False),
    "elements in steps": (True, True),
    "elements between steps": (False, False),
    "macs": (False, False),
    "macs in steps": (True, True),
    "macs with outputs in steps": (False, True),
    "macs between steps": (False, False),
    "macs of few inputs": (False, False),
}
BETWEEN = ("elements between steps", "macs between steps")  # count where a width is no multiple of the step
FEW = "macs of few inputs"  # count where the first width is less than one step
OUTPUTS = "macs with outputs in steps"
KINDS = tuple(ROUNDED)
FACTORS = 6  # widths multiplied in one product, at most; more axes than these count at their dense width


@dataclass(frozen=True, eq=False)
class Terms:
    """Products of widths.

    Attributes:
        axes: The distinct axes that can shrink: id arrays, of shape (width,) or (rows, width).
        counts: Of those, the ones that count living rows instead of a width. Shape (axes,).
        dense: Their dense widths; one more entry, which is 1. Shape (axes + 1,).
        region: Region of each product; the last region is for what belongs to none. Shape (products,).
        kind: Index into `KINDS`. Shape (products,).
        factor: What does not change. Shape (products,).
        widths: The axes multiplied. Shape (products, at most FACTORS); the number of axes stands for 1.
        multiple: What each of those widths is rounded up to a multiple of. Of the shape of `widths`.
        divisor: The axis divided by. Shape (products,).
        step: The width step the machine rewards.
    """

    axes: tuple[Ids, ...]
    counts: NDArray[np.bool_]
    dense: Floats
    region: Ints
    kind: Ints
    factor: Floats
    widths: Ints
    multiple: Ints
    divisor: Ints
    step: int

    def measure(self, keep: Mask) -> Floats:
        """The widths that are left. Shape (axes + 1,)."""
        return np.array([axis_width(a, c, keep) for a, c in zip(self.axes, self.counts, strict=True)] + [1.0])

    def touched(self, axes: Ints) -> NDArray[np.bool_]:
        """Whether some of these axes enter each product. Shape (products,)."""
        return np.asarray(np.isin(self.widths, axes).any(axis=1) | np.isin(self.divisor, axes))

    def products(self, widths: Floats) -> Floats:
        """Value of every product.

        Args:
            widths: Shape (axes + 1, ...), as `measure` gives them.

        Returns:
            Shape (products, ...).
        """
        rest = (1,) * (widths.ndim - 1)
        divisor = np.maximum(widths[self.divisor], 1.0)
        multiple = self.multiple.reshape(*self.multiple.shape, *rest)
        # Every group of a convolution is rounded up for itself: rounding their sum, fewer groups would be more work.
        multiple = np.where(multiple > 1, multiple * divisor[:, None], 1.0)
        each = np.ceil(widths[self.widths] / multiple - 1e-9) * multiple
        return np.asarray(self.factor.reshape(-1, *rest) * each.prod(axis=1) / divisor) * self.counted(widths)

    def counted(self, widths: Floats) -> NDArray[np.bool_]:
        """Whether each product counts at widths of shape (axes + 1, ...). Shape (products, ...)."""
        found = np.ones((self.kind.size, *widths.shape[1:]), dtype=bool)
        live = self.live.reshape(*self.live.shape, *(1,) * (widths.ndim - 1))
        found[self.between] = (live & (self.alone(widths, self.between) % self.step != 0)).any(axis=1)
        found[self.few] = self.alone(widths, self.few)[:, 0] < self.step
        return found

    def alone(self, widths: Floats, products: Ints) -> Floats:
        """Widths of one group of a grouped convolution; a depthwise one works on all groups at once."""
        each, by = widths[self.widths[products]], np.maximum(widths[self.divisor[products]], 1.0)[:, None]
        return np.where(each > by, each / by, each)

    @property
    def macs(self) -> Floats:
        """1 for the products that are the multiply-accumulates, 0 for the others. Shape (products,)."""
        return np.asarray(self.kind == KINDS.index("macs"), dtype=np.float64)

    @cached_property
    def between(self) -> Ints:
        """The products that count between steps."""
        return np.flatnonzero(np.isin(self.kind, [KINDS.index(name) for name in BETWEEN]))

    @cached_property
    def live(self) -> NDArray[np.bool_]:
        """Of those, the factors that are widths, and not the 1 that fills the row. Shape (products, factors)."""
        return np.asarray(self.widths[self.between] < len(self.axes))

    @cached_property
    def few(self) -> Ints:
        """The products that count where inputs are few."""
        return np.flatnonzero(self.kind == KINDS.index(FEW))

    def features(self, widths: Floats) -> Floats:
        """Work of each region by kind. Shape (regions + 1, kinds)."""
        found = np.zeros((int(self.region.max(initial=0)) + 1, len(KINDS)))
        np.add.at(found, (self.region, self.kind), self.products(widths))
        return found


@dataclass(frozen=True, eq=False)
class Price:
    """The time of a model as a function of its widths: products and what one of each costs.

    Attributes:
        terms: The products.
        ms: Milliseconds per product of each. Shape (products,).
    """

    terms: Terms
    ms: Floats

    def total(self, widths: Floats) -> Floats:
        """Milliseconds for widths of shape (axes + 1, ...). Shape (...)."""
        return np.asarray(np.tensordot(self.ms, self.terms.products(widths), axes=1))

    def part(self, products: NDArray[np.bool_]) -> Price:
        """The price of some of the products alone."""
        names = ("region", "kind", "factor", "widths", "multiple", "divisor")
        chosen = {name: getattr(self.terms, name)[products] for name in names}
        return Price(replace(self.terms, **chosen), self.ms[products])


def axis_width(ids: Ids, counted: bool, keep: Mask) -> float:
    """Kept indices of an axis, those of one living row where it is in rows; or the number of living rows."""
    return float(keep[ids].any(axis=-1).sum()) if counted else float(width(ids, keep))


@dataclass(eq=False)
class Builder:
    """Collects products while regions are walked."""

    dependencies: Dependencies
    axes: list[Ids] = field(default_factory=list)
    counts: list[bool] = field(default_factory=list)
    known: dict[tuple[bool, tuple[int, ...], bytes], int] = field(default_factory=dict)
    rows: list[tuple[int, int, float, tuple[int, ...], int]] = field(default_factory=list)

    def axis(self, ids: Ids, counted: bool = False) -> int:
        """The number of an axis that can shrink; -1 for one that cannot."""
        if not (self.dependencies.unit[ids] >= 0).any():
            return -1
        key = (counted, ids.shape, ids.tobytes())
        if key not in self.known:
            self.known[key] = len(self.axes)
            self.axes.append(ids)
            self.counts.append(counted)
        return self.known[key]

    def add(self, region: int, kind: str, factor: float, axes: Sequence[Ids], groups: Ids | None = None) -> None:
        """One product, as it is and rounded up."""
        found: list[int] = []
        numbers = [self.axis(ids) for ids in axes]
        for ids, number in zip(axes, numbers, strict=True):
            if number < 0 or len(found) == FACTORS:
                factor *= ids.shape[-1]
            else:
                found.append(number)
        fixed = {FEW: numbers[:1] == [-1], OUTPUTS: numbers[-1:] == [-1]}  # what cannot shrink has no such form
        by = -1 if groups is None else self.axis(groups, counted=True)
        factor /= groups.shape[0] if groups is not None and by < 0 else 1
        kinds = [k for k in KINDS if k.startswith(kind) and (found or k == kind) and not fixed.get(k)]
        self.rows += [(region, KINDS.index(k), factor, tuple(found), by) for k in kinds]


def terms_of(dependencies: Dependencies, regions: Regions, step: int) -> Terms:
    """The products of a traced model.

    Args:
        dependencies: A traced model.
        regions: Of its graph.
        step: The width step the machine rewards.
    """
    builder = Builder(dependencies)
    products: dict[str, list[Product]] = {}
    for product in dependencies.products:
        products.setdefault(product.node, []).append(product)
    for region, nodes in enumerate(regions.nodes):
        builder.add(region, "constant", 1.0, ())
        for node in nodes:
            for product in products.get(node_name(dependencies.model.proto.graph.node[node]), ()):
                builder.add(region, "macs", product.factor, product.axes, product.groups)
    for region, factor, axes in traffic(dependencies, regions):
        builder.add(region, "elements", factor, axes)
    builder.add(len(regions.nodes), "constant", 1.0, ())
    return built(builder, step)


def traffic(dependencies: Dependencies, regions: Regions) -> Iterator[tuple[int, float, list[Ids]]]:
    """What regions read and write that is not a weight, tensor by tensor: region, factor, and the axes with labels.

    Sizes that the model leaves open count as 1; they are the same for all plans.
    """
    graph = dependencies.model.proto.graph
    passed = {o.name: {-1} for o in graph.output}  # tensor -> regions it comes from or goes to
    for region, nodes in enumerate(regions.nodes):
        for node in (graph.node[i] for i in nodes):
            for name in {*inputs_of(node), *node.output} - {""}:
                passed.setdefault(name, set()).add(region)
    inputs = {i.name for i in graph.input}
    for name, places in passed.items():
        if name not in dependencies.model.weights and (len(places) > 1 or name in inputs):
            factor, axes = tensor(dependencies, name)
            yield from ((region, factor, axes) for region in sorted(places) if region >= 0)


def tensor(dependencies: Dependencies, name: str) -> tuple[float, list[Ids]]:
    """The elements of a tensor: what is fixed, and the axes with labels."""
    shape = dependencies.model.shapes.get(name, ())
    labels = dependencies.labels.get(name) or (Axis(),) * len(shape)
    factor = 1.0
    for dim, axis in zip(shape, labels, strict=False):
        if axis.ids is None and isinstance(dim, int):
            factor *= max(dim, 1)
    return factor, [axis.ids for axis in labels if axis.ids is not None]


def built(builder: Builder, step: int) -> Terms:
    """The collected products as arrays; `terms_of` has the arguments."""
    one = len(builder.axes)
    most = max([1, *(len(axes) for _, _, _, axes, _ in builder.rows)])
    widths = np.full((len(builder.rows), most), one, dtype=np.int64)
    multiple = np.ones_like(widths)
    for p, (_, kind, _, axes, _) in enumerate(builder.rows):
        others, last = ROUNDED[KINDS[kind]]
        widths[p, : len(axes)] = axes
        multiple[p, : len(axes)] = step if others else 1
        if axes and last:
            multiple[p, len(axes) - 1] = step
    keep = dense_mask(builder.dependencies)
    dense = [axis_width(a, c, keep) for a, c in zip(builder.axes, builder.counts, strict=True)]
    region, kinds, factor, _, by = zip(*builder.rows, strict=True)
    return Terms(
        axes=tuple(builder.axes),
        counts=np.array(builder.counts, dtype=bool),
        dense=np.array([*dense, 1.0]),
        region=np.array(region, dtype=np.int64),
        kind=np.array(kinds, dtype=np.int64),
        factor=np.array(factor),
        widths=widths,
        multiple=multiple,
        divisor=np.array([one if b < 0 else b for b in by], dtype=np.int64),
        step=step,
    )
