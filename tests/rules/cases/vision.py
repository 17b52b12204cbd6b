"""Images, regions and deformed grids."""

from __future__ import annotations

import numpy as np

from tests.rules.cases.case import case, chain

chain(
    "GridSample",
    "g = AffineGrid(t, z) b = GridSample(a, g)",
    t=np.array([[[0.8, 0.2, 0.1], [-0.1, 0.7, 0.0]]] * 2), z=[2, 6, 4, 4], opset=20, ir=10,
)  # fmt: skip
chain("GridSample-given", "b = GridSample(a, g)", g=np.linspace(-0.9, 0.9, 64).reshape(2, 4, 4, 2), opset=16)
BOXES = np.array([[0.0, 0.0, 3.0, 3.0], [1.0, 0.5, 3.5, 2.5]])
chain("RoiAlign", "b = RoiAlign <output_height=4, output_width=4> (a, r, i)", r=BOXES, i=[0, 1], opset=16)
chain(
    "MaxRoiPool",
    "b = MaxRoiPool <pooled_shape=[2, 2]> (a, r)",
    r=np.array([[0.0, 0.0, 0.0, 3.0, 3.0], [1.0, 1.0, 0.0, 3.0, 2.0]]), out="2,2", lacks="it has no MaxRoiPool",
)  # fmt: skip
chain(
    "NonMaxSuppression",
    "c = NonMaxSuppression(r, s, k) f = Cast <to=FLOAT> (c) m = ReduceSum(f) n = Add(m, one) b = Mul(a, n)",
    r=BOXES.astype(np.float32)[None], s=np.array([[[0.9, 0.8]]], np.float32), k=np.array([2]), one=1.0,
    lacks="its NonMaxSuppression wants a score threshold",
)  # fmt: skip
chain(
    "MaxUnpool",
    "c, i = MaxPool <kernel_shape=[2, 2], strides=[2, 2]> (a) "
    "b = MaxUnpool <kernel_shape=[2, 2], strides=[2, 2]> (c, i)",
    whole=True,
)
case(
    "Col2Im",
    "x[N,7,9] -> y[N,5,4,4]",
    "a = Conv(x, w) b = Col2Im(a, s, k) y = Conv(b, v)",
    w=(24, 7, 1), v=(5, 6, 1, 1), s=[4, 4], k=[2, 2], opset=18,
)  # fmt: skip
chain(
    "DeformConv",
    "o = Conv(x, p) m = Conv(x, q) b = DeformConv <pads=[1, 1, 1, 1]> (a, u, o, t, m)",
    u=(8, 6, 3, 3), t=(8,), p=(18, 3, 1, 1), q=(9, 3, 1, 1), v=(5, 8, 1, 1), opset=19,
)  # fmt: skip
chain(
    "DeformConv-groups",
    "o = Conv(x, p) b = DeformConv <group=2> (a, u, o)",
    w=(8, 3, 1, 1), u=(6, 4, 1, 1), p=(2, 3, 1, 1), opset=19,
)  # fmt: skip
chain(
    "DeformConv-groups-of-both",
    "o = Conv(x, p) b = DeformConv <group=2, offset_group=2> (a, u, o)",
    w=(8, 3, 1, 1), u=(6, 4, 1, 1), p=(4, 3, 1, 1), opset=19, whole=True,
)  # fmt: skip
chain(
    "DeformConv-offset-groups",
    "o = Conv(x, p) b = DeformConv <offset_group=2> (a, u, o)",
    w=(8, 3, 1, 1), u=(6, 8, 1, 1), p=(4, 3, 1, 1), opset=19,
)  # fmt: skip
chain("CenterCropPad", "b = CenterCropPad <axes=[2, 3]> (a, s)", s=[2, 6], out="2,6", opset=18)
chain("CenterCropPad-sizes", "b = CenterCropPad <axes=[1, -1]> (a, s)", s=[6, 2], out="4,2", opset=18)
chain(
    "CenterCropPad-channels",
    "c = Conv(a, u) b = CenterCropPad <axes=[1]> (c, s)",
    s=[4],
    u=(6, 6, 1, 1),
    v=(5, 4, 1, 1),
    opset=18,
)
