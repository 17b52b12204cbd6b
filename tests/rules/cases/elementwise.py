"""Operators that act on each element alone."""

from __future__ import annotations

import numpy as np

from onnxprune.rules.pointwise import UNARY
from tests.rules.cases.case import GONE, SINGLE, chain, join, positive

PREPARE = {  # what brings the values into the operator's domain
    **dict.fromkeys(("Acos", "Asin", "Atanh", "Log", "Sqrt", "Reciprocal"), "s = Sigmoid(a) b = {}(s)"),
    "Acosh": "e = Abs(a) s = Exp(e) b = Acosh(s)",
    "BitwiseNot": "s = Cast <to=7> (a) t = BitwiseNot(s) b = Cast <to=FLOAT> (t)",
    "BitCast": "r = Round(a) p = Abs(r) s = BitCast <to=7> (p) b = BitCast <to=FLOAT> (s)",
    "Not": "r = Relu(a) s = Cast <to=9> (r) t = Not(s) b = Cast <to=FLOAT> (t)",
    "Cast": "s = Cast <to=6> (a) b = Cast <to=FLOAT> (s)",
    "IsInf": "r = Relu(a) l = Log(r) s = IsInf(l) b = Cast <to=FLOAT> (s)",
    "IsNaN": "l = Log(a) s = IsNaN(l) b = Cast <to=FLOAT> (s)",
}
SINCE = {"BitwiseNot": 18, "Mish": 18, "Gelu": 20, "Swish": 24, "BitCast": 26}
for _op in UNARY:
    _lacks = SINGLE if _op == "Celu" else ""
    chain(_op, PREPARE.get(_op, "b = {}(a)").format(_op), opset=SINCE.get(_op, 17), ir=10, lacks=_lacks)

chain("Clip", "b = Clip(a, low, high)", low=-0.5, high=0.5)
chain("Clip-attributes", "b = Clip <min=-0.5, max=0.5> (a)", opset=6)
chain("CastLike", "b = CastLike(a, t)", t=(1,))
chain("Dropout", "b = Dropout(a)")
chain("Dropout-mask", "s, m = Dropout(a) f = Cast <to=FLOAT> (m) b = Mul(s, f)", opset=13)
chain("Dropout-off", "s, m = Dropout(a, r, t) b = Add(s, a)", r=np.array(0.5, np.float32), t=np.array(False), opset=13)
chain(
    "Dropout-training",
    "b = Dropout <seed=7> (a, r, t)",
    r=np.array(0.5, np.float32),
    t=np.array(True),
    opset=13,
    whole=True,
)
chain(
    "ImageScaler",
    "b = ImageScaler <scale=2.0, bias=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]> (a)",
    opset=8,
    lacks=GONE,
    whole=True,
)
chain("Affine", "b = Affine <alpha=2.0, beta=0.5> (a)", opset=8, lacks=GONE, whole=True)
chain("Crop", "b = Crop <border=[1, 0, 0, 1]> (a)", out="3,3", opset=8, lacks=GONE)


for _op in ("Add", "Max", "Mean", "Min", "Mul", "Sub", "Sum"):
    join(_op, f"b = {_op}(a, c)")
for _op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"):
    join(_op, f"r = Round(a) s = Round(c) t = {_op}(r, s) b = Cast <to=FLOAT> (t)")
for _op in ("And", "Or", "Xor"):
    join(_op, f"p = Greater(a, zero) q = Greater(c, zero) t = {_op}(p, q) b = Cast <to=FLOAT> (t)", zero=0.0)
for _op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
    body = f"p = Cast <to=7> (a) q = Cast <to=7> (c) t = {_op}(p, q) b = Cast <to=FLOAT> (t)"
    join(_op, body, opset=18)
join(
    "BitShift",
    'f = Abs(a) g = Abs(c) p = Cast <to=13> (f) q = Cast <to=13> (g) t = BitShift <direction="LEFT"> (p, q) '
    "b = Cast <to=FLOAT> (t)",
)
join("SwiGLU", "b = SwiGLU <alpha=1.5> (a, c)", opset=28, ir=10)
join("Div", "e = Sigmoid(c) b = Div(a, e)")
join("Mod", "e = Exp(c) b = Mod <fmod=1> (a, e)")
join("Pow", "e = Exp(a) b = Pow(e, c)")
join("Where", "m = Greater(a, c) b = Where(m, a, c)")
join("Sum-three", "b = Sum(a, c, a)")
join("Add-old-broadcast", "s = Add <broadcast=1, axis=1> (a, d) b = Add(s, c)", d=(6,), opset=6)
chain("Add-constant", "b = Add(a, d)", d=(6, 1, 1))
chain("Add-scalar", "b = Add(a, d)", d=0.5)
chain("Div-constant", "b = Div(a, d)", d=positive(1, 6, 1, 1))
chain("Add-stretched", "c = Conv(a, u) b = Add(a, c)", u=(1, 6, 1, 1))
chain("PRelu", "b = PRelu(a, d)", d=(6, 1, 1))
chain("PRelu-shared", "b = PRelu(a, d)", d=(1,))
chain("Where-constant", "m = Greater(a, d) b = Where(m, a, d)", d=(6, 1, 1))
chain("PRelu-old-forms", "c = PRelu(a, d) b = PRelu(c, e)", d=(1, 6, 1, 1), e=(6, 4, 4), opset=7)
chain(
    "Where-channels", "b = Where(m, a, d)", m=np.array([True, False, True, True, False, True]).reshape(6, 1, 1), d=0.5
)
chain("Clip-tensors", 'b = Clip(a, "", high)', high=0.5, opset=12)
