"""What networks are built of: several operators that belong together."""

from __future__ import annotations

from tests.rules.cases.case import NORM, case, chain, dense, positive

chain("residual", "c = Conv(a, u) d = Relu(c) e = Conv(d, t) b = Add(e, a)", u=(4, 6, 1, 1), t=(6, 4, 1, 1))
chain(
    "option-A-shortcut",
    "c = Slice(a, i, j, k, s) d = Pad(c, p) e = Conv <strides=[2, 2]> (a, u) b = Add(d, e)",
    u=(12, 6, 1, 1), i=[0, 0], j=[9, 9], k=[2, 3], s=[2, 2], p=[0, 3, 0, 0, 0, 3, 0, 0], v=(5, 12, 1, 1), out="2,2",
)  # fmt: skip
case(
    "sums-of-concatenations",
    "x[N,3,4,4] -> y[N,5,4,4]",
    "a = Conv(x, w) b = Conv(x, u) c = Conv(x, t) d = Conv(x, s) e = Concat <axis=1> (a, b) f = Concat <axis=1> (c, d) "
    "g = Add(e, f) y = Conv(g, v)",
    w=(2, 3, 1, 1), u=(6, 3, 1, 1), t=(5, 3, 1, 1), s=(3, 3, 1, 1), v=(5, 8, 1, 1),
)  # fmt: skip
chain(
    "squeeze-excite",
    "c = GlobalAveragePool(a) d = Conv(c, u) e = Relu(d) f = Conv(e, t) g = Sigmoid(f) b = Mul(a, g)",
    u=(4, 6, 1, 1), t=(6, 4, 1, 1),
)  # fmt: skip
chain("shared-weight", "c = Conv(a, u) d = Relu(c) b = Conv(d, u)", u=(6, 6, 1, 1))
chain(
    "shared-grouped-weight",
    "c = Conv <group=2> (a, u) d = Relu(c) b = Conv <group=2> (d, u)",
    w=(8, 3, 1, 1),
    u=(8, 4, 1, 1),
    v=(5, 8, 1, 1),
)
dense("weight-transposed", "t = Transpose(u) b = MatMul(a, t)", u=(4, 6), v=(4, 5))
chain("weight-through-identity", "t = Identity(u) b = Conv(a, t)", u=(6, 6, 1, 1))
chain(
    "initializers-listed-as-inputs",
    "c = BatchNormalization(a, s, t, m, q) d = Reshape(c, k) b = Relu(d)",
    k=[0, 6, 4, 4],
    listed=True,
    ir=3,
    opset=9,
    **NORM,
)
chain("dense-block",
      "c = Conv(a, u) d = Concat <axis=1> (a, c) e = BatchNormalization(d, s, t, m, q) f = Relu(e) b = Conv(f, g)",
      u=(4, 6, 1, 1), s=positive(10), t=(10,), m=(10,), q=positive(10), g=(6, 10, 1, 1))  # fmt: skip
chain("inverted-residual",
      "c = Conv(a, u) d = Clip(c, low, high) e = Conv <group=12> (d, t) f = Conv(e, g) b = Add(a, f)",
      u=(12, 6, 1, 1), t=(12, 1, 1, 1), g=(6, 12, 1, 1), low=0.0, high=6.0)  # fmt: skip
chain("split-and-merge", "c, d = Split <axis=1> (a) e = Conv(d, u) f = Concat <axis=1> (c, d, e) b = Conv(f, g)",
      u=(3, 3, 1, 1), g=(6, 9, 1, 1), opset=13)  # fmt: skip
chain("two-products", "c = Conv(a, u) d = Conv(a, t) e = Mul(c, d) b = Add(a, e)", u=(6, 6, 1, 1), t=(1, 6, 1, 1))
case(
    "unknown-operator",
    "x[2,3,7] -> y[2,3,5]",
    'a = MatMul(x, w) b, s = LinearAttention <q_num_heads=2, kv_num_heads=2, update_rule="linear"> (a, a, a) '
    "y = MatMul(b, v)",
    w=(7, 6), v=(6, 5), opset=27, ir=10, whole=True,
)  # fmt: skip
