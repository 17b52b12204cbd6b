"""Einstein sums."""

from __future__ import annotations

from tests.rules.cases.case import case, dense

dense("Einsum", 'b = Einsum <equation="nk,km->nm"> (a, u)', u=(6, 6))
dense("Einsum-transposed-weight", 'b = Einsum <equation="nk, mk -> nm"> (a, u)', u=(6, 6))
dense("Einsum-implicit", 'c = Einsum <equation="nk,kb"> (a, u) b = Transpose(c)', u=(6, 6))
dense("Einsum-elementwise", 'b = Einsum <equation="nk,k->nk"> (a, u)', u=(6,))
dense("Einsum-three", 'b = Einsum <equation="nk,kr,rm->nm"> (a, u, t)', u=(6, 4), t=(4, 6))
dense(
    "Einsum-sums-alone",
    'c = MatMul(a, u) d = Einsum <equation="nk->n"> (c) e = Unsqueeze(d, k) b = Mul(a, e)',
    u=(6, 6),
    k=[1],
)
case(
    "Einsum-ellipsis",
    "x[N,3,7] -> y[N,3,5]",
    'a = Einsum <equation="...k,km->...m"> (x, w) b = Einsum <equation="...k->k..."> (a) '
    'y = Einsum <equation="k...,km->...m"> (b, v)',
    w=(7, 6), v=(6, 5),
)  # fmt: skip
case(
    "Einsum-stretched",
    "x[1,2,7] -> y[3,2,5]",
    'a = Einsum <equation="...nk,...km->...nm"> (x, w) y = Einsum <equation="...nk,...km->...nm"> (a, v)',
    w=(3, 7, 6), v=(1, 6, 5),
)  # fmt: skip
HEADS = (
    "q0 = MatMul(x, w) k0 = MatMul(x, u) a0 = MatMul(x, z) q = Reshape(q0, s) k = Reshape(k0, s) a = Reshape(a0, s) "
    'm = Einsum <equation="{}"> ({}) e = Mul(m, c) p = Softmax <axis=-1> (e) '
)
case(
    "Einsum-attention",
    "x[N,4,7] -> y[N,4,5]",
    HEADS.format("bihd,bjhd->bhij", "q, k") + 'o = Einsum <equation="bhij,bjhd->bihd"> (p, a) o1 = Reshape(o, t) '
    "y = MatMul(o1, v)",
    w=(7, 12), u=(7, 12), z=(7, 12), v=(12, 5), s=[0, 0, 3, 4], t=[0, 0, 12], c=0.5,
)  # fmt: skip
case(
    "Einsum-attention-projected",  # the output projection is summed over heads and dimensions
    "x[N,4,7] -> y[N,4,5]",
    HEADS.format("bihd,bjhd->bhij", "q, k") + 'y = Einsum <equation="bhij,bjhd,hdo->bio"> (p, a, v)',
    w=(7, 12), u=(7, 12), z=(7, 12), v=(3, 4, 5), s=[0, 0, 3, 4], c=0.5,
)  # fmt: skip
case(
    "Einsum-heads-in-the-weight",  # keras: the projections are three-dimensional
    "x[N,4,7] -> y[N,4,5]",
    'q = Einsum <equation="abc,cde->abde"> (x, w) k = Einsum <equation="abc,cde->abde"> (x, u) '
    'a = Einsum <equation="abc,cde->abde"> (x, z) m = Einsum <equation="aecd,abcd->acbe"> (k, q) '
    'p = Softmax <axis=-1> (m) o = Einsum <equation="acbe,aecd->abcd"> (p, a) '
    'y = Einsum <equation="abcd,cde->abe"> (o, v)',
    w=(7, 3, 4), u=(7, 3, 4), z=(7, 3, 4), v=(3, 4, 5),
)  # fmt: skip
case(
    "Einsum-positions",  # a table of relative positions, the same for every head
    "x[N,4,7] -> y[N,4,5]",
    "q0 = MatMul(x, w) q = Reshape(q0, s) "
    'm = Einsum <equation="bihd,jd->bhij"> (q, r) p = Softmax <axis=-1> (m) a = MatMul(x, z) '
    'o = Einsum <equation="bhij,bjd->bid"> (p, a) y = MatMul(o, v)',
    w=(7, 12), r=(4, 4), z=(7, 6), v=(6, 5), s=[0, 0, 3, 4],
)  # fmt: skip
case(
    "Einsum-linear-attention",  # keys and values meet first: both have dimensions in rows over the heads
    "x[N,4,7] -> y[N,4,5]",
    "q0 = MatMul(x, w) k0 = MatMul(x, u) a0 = MatMul(x, z) q = Reshape(q0, s) k = Reshape(k0, s) a = Reshape(a0, g) "
    'm = Einsum <equation="bjhd,bjhe->bhde"> (k, a) o = Einsum <equation="bihd,bhde->bihe"> (q, m) o1 = Reshape(o, t) '
    "y = MatMul(o1, v)",
    w=(7, 12), u=(7, 12), z=(7, 9), v=(9, 5), s=[0, 0, 3, 4], g=[0, 0, 3, 3], t=[0, 0, 9],
)  # fmt: skip
case(
    "Einsum-unsound-sum",  # neither operand is zero where its weights are
    "x[N,4,7] -> y[N,5]",
    'a = MatMul(x, w) e = Exp(a) f = Cos(a) m = Einsum <equation="nik,nik->nk"> (e, f) g = MatMul(x, u) h = Exp(g) '
    'd = Einsum <equation="nik,njk->nij"> (h, h) i = ReduceSum(d) j = Squeeze(i) l = Mul(m, j) y = MatMul(l, v)',
    w=(7, 6), u=(7, 6), v=(6, 5),
)  # fmt: skip
case(
    "Einsum-diagonal",
    "x[N,7] -> y[N,5]",
    'a = MatMul(x, w) s = Einsum <equation="ii->i"> (u) c = MatMul(a, t) b = Mul(c, s) y = MatMul(b, v)',
    w=(7, 6), t=(6, 6), u=(6, 6), v=(6, 5),
)  # fmt: skip
