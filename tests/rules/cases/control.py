"""Operators that read sizes or make tensors."""

from __future__ import annotations

import numpy as np

from tests.rules.cases.case import case, chain

chain("Shape", "s = Shape(a) f = Cast <to=FLOAT> (s) m = ReduceProd(f) b = Div(a, m)")
chain("Shape-part", "s = Shape <start=1, end=3> (a) f = Cast <to=FLOAT> (s) m = ReduceSum(f) b = Div(a, m)")
chain("ConstantOfShape", "s = Shape(a) c = ConstantOfShape <value=float[1] {0.5}> (s) b = Add(a, c)")
chain(
    "ConstantOfShape-concatenated",
    "s = Shape(a) c = ConstantOfShape <value=float[1] {0.5}> (s) b = Concat <axis=1> (c, a)",
    v=(5, 12, 1, 1),
)
chain("Range", "r = Range(i, j, d) b = Add(a, r)", i=0.0, j=4.0, d=1.0)
chain("RandomNormal", "r = RandomNormal <shape=[4, 4], seed=1.0, dtype=FLOAT> () b = Add(a, r)")
chain("RandomUniform", "r = RandomUniform <shape=[4, 4], seed=1.0, dtype=FLOAT> () b = Mul(a, r)")
chain("EyeLike", "e = EyeLike(d) b = MatMul(a, e)", d=(4, 4))
case(
    "Constant",
    "x[N,3,4,4] -> y[N,5,4,4], z:string[1]",
    'a = Conv(x, w) s = Constant <value_float=2.0> () t = CastLike(s, a) b = Mul(a, t) y = Conv(b, v) '
    'z = Constant <value_strings=["text"]> ()',
    w=(6, 3, 1, 1), v=(5, 6, 1, 1),
)  # fmt: skip
for _op, _old in (("Bernoulli", 15), ("RandomNormalLike", 14), ("RandomUniformLike", 14)):
    chain(_op, f"s = Sigmoid(a) r = {_op} <seed=1.0> (s) b = Mul(a, r)", opset=_old, whole=True)
case(
    "Multinomial",
    "x[N,7] -> y[N,5]",
    "a = MatMul(x, w) i = Multinomial <sample_size=6, seed=1.0> (a) f = Cast <to=FLOAT> (i) b = Add(a, f) "
    "y = MatMul(b, v)",
    w=(7, 6), v=(6, 5), whole=True, lacks="it has no Multinomial",
)  # fmt: skip
chain("Size", "n = Size(a) f = Cast <to=FLOAT> (n) d = Div(one, f) b = Mul(a, d)", one=1.0)
chain("BlackmanWindow", "h = BlackmanWindow <output_datatype=FLOAT> (n) b = Mul(a, h)", n=np.array(4))
