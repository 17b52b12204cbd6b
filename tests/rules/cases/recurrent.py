"""Recurrent layers."""

from __future__ import annotations

import numpy as np

from tests.rules.cases.case import Weight, case

DIRECTIONS = "the reference implementation runs one direction"
FEATURES = "the reference implementation ignores this attribute or input"


def layer(name: str, kind: str, body: str = "Y", *, hidden: int = 4, sides: int = 1, **rest: object) -> None:
    """Add a case `x -> MatMul -> {kind} -> body -> MatMul -> y` on sequences of 3 steps and batches of 2."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    given: dict[str, object] = {
        "u": (5, 6), "w": (sides, gates * hidden, 6), "r": (sides, gates * hidden, hidden),
        "d": (sides, 2 * gates * hidden), "v": (sides * hidden, 5),
    }  # fmt: skip
    case(name, "x[3,2,5] -> y[3,2,5]", f"a = MatMul(x, u) {body} y = MatMul(b, v)", **(given | rest))  # type: ignore[arg-type]


S1: dict[str, Weight] = {"one": [1]}
S2: dict[str, Weight] = {"flat": [3, 2, -1]}
BOTH = "t = Transpose <perm=[0, 2, 1, 3]> (h) b = Reshape(t, flat)"
SIDES = 'hidden_size=4, direction="bidirectional"'

layer("LSTM", "LSTM", "h = LSTM <hidden_size=4> (a, w, r, d) b = Squeeze(h, one)", **S1)
layer("LSTM-reverse", "LSTM", 'h = LSTM <hidden_size=4, direction="reverse"> (a, w, r) b = Squeeze(h, one)', **S1)
layer("GRU", "GRU", "h = GRU <hidden_size=4> (a, w, r, d) b = Squeeze(h, one)", **S1)
layer(
    "GRU-linear",
    "GRU",
    "h = GRU <hidden_size=4, linear_before_reset=1> (a, w, r, d) b = Squeeze(h, one)",
    **S1,
)
layer("RNN", "RNN", "h = RNN <hidden_size=4> (a, w, r, d) b = Squeeze(h, one)", **S1)
for _kind in ("LSTM", "GRU", "RNN"):
    layer(
        f"{_kind}-bidirectional", _kind, f"h = {_kind} <{SIDES}> (a, w, r, d) {BOTH}", sides=2, lacks=DIRECTIONS, **S2
    )
layer(
    "LSTM-bidirectional-summed", "LSTM", f"h = LSTM <{SIDES}> (a, w, r, d) b = ReduceSum <keepdims=0> (h, one)",
    sides=2, v=(4, 5), lacks=DIRECTIONS, **S1,
)  # fmt: skip
case(
    "LSTM-everything",
    "x[3,2,5] -> y[3,2,5], z[1,2,5], e[1,2,5]",
    "a = MatMul(x, u) h, l, c = LSTM <hidden_size=4, clip=0.8, input_forget=0> (a, w, r, d, n, i, j, p) "
    "b = Squeeze(h, one) y = MatMul(b, v) z = MatMul(l, v1) e = MatMul(c, v2)",
    u=(5, 6), w=(1, 16, 6), r=(1, 16, 4), d=(1, 32), n=np.array([3, 2], np.int32), i=(1, 2, 4), j=(1, 2, 4), p=(1, 12),
    v=(4, 5), v1=(4, 5), v2=(4, 5), one=[1], lacks=FEATURES,
)  # fmt: skip
case(
    "LSTM-everything-bidirectional",
    "x[3,2,5] -> y[3,2,5], z[2,5], e[2,2,5]",
    f"a = MatMul(x, u) h, l, c = LSTM <{SIDES}> (a, w, r, d, n, i, j, p) {BOTH} y = MatMul(b, v) "
    "l0 = Gather <axis=0> (l, i0) l1 = Gather <axis=0> (l, i1) m = Concat <axis=1> (l0, l1) z = Gemm(m, v1) "
    "e = MatMul(c, v2)",
    u=(5, 6), w=(2, 16, 6), r=(2, 16, 4), d=(2, 32), n=np.array([3, 2], np.int32), i=(2, 2, 4), j=(2, 2, 4), p=(2, 12),
    v=(8, 5), v1=(8, 5), v2=(4, 5), i0=np.array(0), i1=np.array(1), lacks=DIRECTIONS, **S2,
)  # fmt: skip
case(
    "GRU-bidirectional-last-states",
    "x[3,2,5] -> z[2,5]",
    f"a = MatMul(x, u) h, l = GRU <{SIDES}, linear_before_reset=1> (a, w, r, d, , i) l0 = Gather <axis=0> (l, i0) "
    "l1 = Gather <axis=0> (l, i1) m = Concat <axis=1> (l1, l0) z = Gemm(m, v)",
    u=(5, 6), w=(2, 12, 6), r=(2, 12, 4), d=(2, 24), i=(2, 2, 4), v=(8, 5), i0=np.array(0), i1=np.array(1),
    lacks=DIRECTIONS,
)  # fmt: skip
for _layout, _kind, _gates in ((1, "LSTM", 4), (1, "GRU", 3)):
    case(
        f"{_kind}-batch-first",
        "x[2,3,5] -> y[2,3,1,5], z[2,1,5]",
        f"a = MatMul(x, u) h, l = {_kind} <hidden_size=4, layout=1> (a, w, r, d, , i) y = MatMul(h, v) "
        "z = MatMul(l, v)",
        u=(5, 6), w=(1, 4 * _gates, 6), r=(1, 4 * _gates, 4), d=(1, 8 * _gates), i=(2, 1, 4), v=(4, 5),
    )  # fmt: skip
case(
    "RNN-activations",  # a state of zero does not stay one, yet feeds nothing that is kept
    "x[3,2,5] -> y[3,2,5]",
    'a = MatMul(x, u) h = RNN <hidden_size=4, activations=["Affine"], activation_alpha=[0.5], activation_beta=[0.3]> '
    "(a, w, r, d) b = Squeeze(h, one) y = MatMul(b, v)",
    u=(5, 6), w=(1, 4, 6), r=(1, 4, 4), d=(1, 8), v=(4, 5), one=[1],
)  # fmt: skip
case(
    "LSTM-stacked-with-zero-states",  # torch: the layers slice their states from one tensor of zeros
    "x[3,2,5] -> y[3,2,5]",
    f"z = ConstantOfShape(s) z0 = Slice(z, i0, i2, i0) z1 = Slice(z, i2, i4, i0) "
    f"h0, l0, c0 = LSTM <{SIDES}> (x, w, r, d, , z0, z0) t0 = Transpose <perm=[0, 2, 1, 3]> (h0) a = Reshape(t0, flat) "
    f"h, l1, c1 = LSTM <{SIDES}> (a, w1, r1, d1, , z1, z1) {BOTH} y = MatMul(b, v)",
    w=(2, 16, 5), r=(2, 16, 4), d=(2, 32), w1=(2, 16, 8), r1=(2, 16, 4), d1=(2, 32), v=(8, 5),
    s=[4, 2, 4], i0=[0], i2=[2], i4=[4], lacks=DIRECTIONS, **S2,
)  # fmt: skip
case(
    "LSTM-decoder",  # the last states of one layer are the first of the next
    "x[3,2,5] -> y[3,2,5]",
    "h0, l0, c0 = LSTM <hidden_size=4> (x, w, r, d) h, l1, c1 = LSTM <hidden_size=4> (x, w1, r1, d1, , l0, c0) "
    "b = Squeeze(h, one) y = MatMul(b, v)",
    w=(1, 16, 5), r=(1, 16, 4), d=(1, 32), w1=(1, 16, 5), r1=(1, 16, 4), d1=(1, 32), v=(4, 5), one=[1],
)  # fmt: skip
case(
    "LSTM-streaming",  # its states come from the caller, who knows their size
    "x[3,2,5], i[1,2,4], j[1,2,4] -> y[3,2,5], l[1,2,4], c[1,2,4]",
    "a = MatMul(x, u) h, l, c = LSTM <hidden_size=4> (a, w, r, d, , i, j) b = Squeeze(h, one) y = MatMul(b, v)",
    u=(5, 6), w=(1, 16, 6), r=(1, 16, 4), d=(1, 32), v=(4, 5), one=[1],
)  # fmt: skip
case(
    "GRU-weights-computed",  # TorchScript without constant folding reorders gates in the graph
    "x[3,2,5] -> y[3,2,5]",
    "ra, za, na = Split <axis=0> (w0, thirds) wa = Concat <axis=0> (za, ra, na) w = Unsqueeze(wa, zero) "
    "rb, zb, nb = Split <axis=0> (r0, thirds) rz = Concat <axis=0> (zb, rb, nb) r = Unsqueeze(rz, zero) "
    "a = MatMul(x, u) h = GRU <hidden_size=4, linear_before_reset=1> (a, w, r) b = Squeeze(h, one) y = MatMul(b, v)",
    u=(5, 6), w0=(12, 6), r0=(12, 4), v=(4, 5), zero=[0], one=[1], thirds=[4, 4, 4],
)  # fmt: skip
case(
    "LSTM-stacked-states",  # torch: the last states of all layers in one tensor, of which the last layer's are read
    "x[3,2,5] -> y[2,5]",
    f"h0, l0 = LSTM <{SIDES}> (x, w, r, d) t0 = Transpose <perm=[0, 2, 1, 3]> (h0) a = Reshape(t0, flat) "
    f"h1, l1 = LSTM <{SIDES}> (a, w1, r1, d1) m = Concat <axis=0> (l0, l1) m0 = Gather <axis=0> (m, i2) "
    "m1 = Gather <axis=0> (m, i3) b = Concat <axis=1> (m0, m1) y = Gemm(b, v)",
    w=(2, 16, 5), r=(2, 16, 4), d=(2, 32), w1=(2, 16, 8), r1=(2, 16, 4), d1=(2, 32), v=(8, 5),
    i2=np.array(-2), i3=np.array(-1), lacks=DIRECTIONS, **S2,
)  # fmt: skip
case(
    "GRU-last-state-alone",  # what nobody reads has no name
    "x[3,2,5] -> y[2,5]",
    "a = MatMul(x, u) , l = GRU <hidden_size=4> (a, w, r) b = Squeeze(l, zero) y = Gemm(b, v)",
    u=(5, 6), w=(1, 12, 6), r=(1, 12, 4), v=(4, 5), zero=[0],
    lacks="the reference implementation writes outputs without a name",
)  # fmt: skip
