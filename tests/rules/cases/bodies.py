"""Operators that run bodies: branches, loops and scans, with their own weights and with what they read from outside."""

from __future__ import annotations

import zlib

import numpy as np

from tests.rules.cases.case import Weight, case, dense


def own(name: str, *shape: int) -> str:
    """A weight inside a body."""
    values = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape).round(3).ravel()
    return f"{name} = Constant <value = float[{','.join(map(str, shape))}] {{{', '.join(map(str, values))}}}> ()"


def fork(
    name: str, then: str, other: str, rest: str = "b = Relu(c)", kind: str = "float[A,B,C,D]", **weights: Weight
) -> None:
    """Two cases `a` -> If -> c -> rest -> b, that take one branch each; the branches give `t` and `e`."""
    given: dict[str, Weight] = {"w": (6, 3, 1, 1), "v": (5, 6, 1, 1)} | weights
    last = "MatMul(b, v)" if kind == "float[A,B]" else "Conv(b, v)"
    for suffix, flag in (("", "Identity(one)"), ("-else", "Not(one)")):
        case(
            f"{name}{suffix}",
            f"x[N,3,4,4] -> y[N,5{',4,4' * (kind != 'float[A,B]')}]",
            f"a = Conv(x, w) big = ReduceMax <keepdims = 0> (x) one = Greater(big, low) p = {flag} "
            f"c = If(p) <then_branch = first () => ({kind} t) {{ {then} }}, "
            f"else_branch = second () => ({kind} e) {{ {other} }}> {rest} y = {last}",
            low=-99.0,
            **given,
        )


def turns(body: str, *, start: str = "a", rest: str = "b = Relu(h)", outs: str = "", count: str = "m") -> str:
    """`a` -> Loop with the state `s` -> body -> `n` -> h -> rest -> b; `outs`: (names outside, names inside)."""
    outside, _, inside = outs.partition("/")
    results = ", ".join(filter(None, ["h", outside]))
    ends = ", ".join(["bool go", "float[A,B] n", *(f"float[A,B] {n}" for n in filter(None, [inside]))])
    return (
        f"{results} = Loop ({count}, yes, {start}) <body = turn (int64 i, bool c, float[A,B] s) => ({ends}) "
        f"{{ go = Identity(c) {body} }}> {rest}"
    )


fork("If", "t = Relu(a)", "e = Mul(a, k)", k=(6, 1, 1))
fork(
    "If-own-weights",
    f"{own('f', 4, 6, 1, 1)} {own('g', 6, 4, 1, 1)} t0 = Conv(a, f) t1 = Relu(t0) t = Conv(t1, g)",
    f"{own('d', 6, 6, 1, 1)} e = Conv(a, d)",
)
fork("If-weight-given-out", "t = Identity(a)", own("e", 1, 6, 1, 1))
fork(
    "If-other-sizes",
    "t = MaxPool <kernel_shape=[4, 4]> (a)",
    "e = Identity(a)",
    "r = Conv(x, u) b = Mul(r, c)",
    u=(6, 3, 1, 1),
)
fork(
    "If-other-channels",
    f"{own('f', 8, 6, 1, 1)} {own('g', 8, 8, 1, 1)} t0 = Conv(a, f) t1 = Tanh(t0) t = Conv(t1, g)",
    "e = Identity(a)",
    "r = Conv(x, u) q = ReduceMean(c) b = Mul(r, q)",
    u=(6, 3, 1, 1),
)
fork(
    "If-nested",
    f"{own('f', 6, 6, 1, 1)} q = Not(p) t0 = If(q) <then_branch = i () => (float[A,B,C,D] o) {{ o = Relu(a) }}, "
    "else_branch = j () => (float[A,B,C,D] o2) { o2 = Conv(a, f) }> t = Tanh(t0)",
    "e = Relu(a)",
)
fork(
    "If-reshapes",
    "k = Constant <value_ints = [0, 96]> () t0 = Reshape(a, k) t1 = Gemm <transB = 1> (t0, g) t = Relu(t1)",
    "e0 = GlobalAveragePool(a) e1 = Flatten(e0) e = Gemm <transB = 1> (e1, d)",
    kind="float[A,B]",
    g=(4, 96), d=(4, 6), v=(4, 5),
)  # fmt: skip
fork(
    "If-reads-sizes",
    "s = Shape(a) t0 = ConstantOfShape <value = float[1] {0.5}> (s) t = Add(a, t0)",
    "e = Slice(a, i0, i4, i1)",
    "r = Conv(x, u) b = Concat <axis = 1> (c, r)",
    u=(2, 3, 1, 1), v=(5, 8, 1, 1), i0=[0], i4=[6], i1=[1],
)  # fmt: skip
dense("Loop", turns("n0 = MatMul(s, r) n = Tanh(n0)"), r=(6, 6), m=[3], yes=[True])
dense(
    "Loop-hidden-layer",
    turns(f"{own('f', 6, 9)} {own('g', 9, 6)} n0 = MatMul(s, f) n1 = Relu(n0) n = MatMul(n1, g)"),
    m=[2], yes=[True],
)  # fmt: skip
dense(
    "Loop-stacked",
    turns(
        "n = MatMul(s, r) z = Tanh(n)", outs="o/z", rest="q = ReduceMean <axes = [0], keepdims = 0> (o) b = Add(h, q)"
    ),
    r=(6, 6), m=3, yes=True, lacks="its reference implementation joins the stacked outputs along an axis they have",
)  # fmt: skip
dense(
    "Loop-growing",
    turns("n = Concat <axis = 0> (s, a)", rest="q = ReduceMean <axes = [0], keepdims = 0> (h) b = Add(a, q)"),
    m=[3], yes=[True],
)  # fmt: skip
dense(
    "Loop-growing-channels",
    turns("n = Concat <axis = 1> (s, s)", rest="q = ReduceMean <axes = [1]> (h) e = MatMul(x, u) b = Mul(e, q)"),
    u=(7, 6), m=[2], yes=[True],
)  # fmt: skip
dense("Loop-from-zeros", turns("n = Add(s, a)", start="zero"), zero=[[0.0] * 6], m=[3], yes=[True])
dense(
    "Loop-of-a-list",
    "e = SequenceEmpty <dtype = FLOAT> () l = Loop (m, yes, e) <body = turn (int64 i, bool c, seq(float[A,B]) s) => "
    "(bool go, seq(float[A,B]) n) { go = Identity(c) from = Gather(at, i) k = Add(i, one) to = Gather(at, k) "
    "part = Slice(a, from, to, one1) n = SequenceInsert(s, part) }> "
    "p0 = SequenceAt(l, zero) p1 = SequenceAt(l, one) b0 = MatMul(p0, u) b = Add(p1, b0)",
    w=(7, 8), u=(3, 5), v=(5, 5), at=[[0], [3], [8]], one=1, one1=[1], zero=0, m=2, yes=True,
)  # fmt: skip
SCAN = (
    "h0 = Gather <axis = {axis}> (a, zero) h, o = Scan <num_scan_inputs = 1 {more}, "
    "body = step (float[A,B] s, float[A,B] u) => (float[A,B] n, float[A,B] z) "
    "{{ n0 = MatMul(s, r) n1 = Add(n0, u) n = Tanh(n1) z = MatMul(n, g) }}> (h0, a) "
)
case(
    "Scan",
    "x[4,N,7] -> y[4,N,5], q[N,5]",
    "a = MatMul(x, w) " + SCAN.format(axis=0, more="") + "y = MatMul(o, v) q = MatMul(h, u)",
    w=(7, 6), r=(6, 6), g=(6, 9), v=(9, 5), u=(6, 5), zero=0,
)  # fmt: skip
case(
    "Scan-axes",
    "x[N,4,7] -> y[N,4,5]",
    "a = MatMul(x, w) "
    + SCAN.format(axis=1, more=", scan_input_axes = [1], scan_output_axes = [1], scan_input_directions = [1]")
    + "y = MatMul(o, v)",
    w=(7, 6), r=(6, 6), g=(6, 9), v=(9, 5), zero=0,
    lacks="its reference implementation scans axis 0, forwards, alone",
)  # fmt: skip
case(
    "Scan-over-channels",
    "x[N,7] -> y[N,5]",
    "a = MatMul(x, w) h0 = ReduceMax <axes = [1], keepdims = 0> (x) h, o = Scan <num_scan_inputs = 1, "
    "scan_input_axes = [1], body = step (float[A] s, float[A] u) => (float[A] n, float[A] z) "
    "{ n0 = Add(s, u) n = Tanh(n0) z = Identity(n) }> (h0, a) "
    "h1 = Unsqueeze(h, one) e = MatMul(x, u) b = Mul(e, h1) y = MatMul(b, v)",
    w=(7, 6), u=(7, 6), v=(6, 5), one=[1],
    lacks="its reference implementation scans axis 0, forwards, alone",
)  # fmt: skip
