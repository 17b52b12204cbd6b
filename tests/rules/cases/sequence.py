"""Sequences of tensors: written out where they are known, held where they are not."""

from __future__ import annotations

import numpy as np

from tests.rules.cases.case import chain

ZERO, LAST = np.array(0), np.array(-1)
chain(
    "SplitToSequence",
    "s = SplitToSequence <axis=1> (a, n) c = SequenceAt(s, zero) d = SequenceAt(s, last) b = Mul(c, d)",
    n=np.array(3), zero=ZERO, last=LAST, v=(5, 3, 1, 1),
)  # fmt: skip
chain(
    "SplitToSequence-11",
    "s = SplitToSequence <axis=1> (a, n) c = SequenceAt(s, zero) b = Concat <axis=1> (a, c)",
    n=[4, 2], zero=ZERO, v=(5, 10, 1, 1), opset=11,
)  # fmt: skip
chain(
    "SplitToSequence-single",
    "s = SplitToSequence <axis=2, keepdims=0> (a) b = ConcatFromSequence <axis=3, new_axis=1> (s)",
)
chain(
    "SequenceConstruct",
    "s = SequenceConstruct(a, x) e = SequenceEmpty() i = SequenceInsert(s, a, zero) r = SequenceErase(i, last) "
    "l = SequenceLength(r) f = Cast <to=FLOAT> (l) c = ConcatFromSequence <axis=1> (r) b = Mul(c, f)",
    zero=ZERO, last=LAST, v=(5, 12, 1, 1),
)  # fmt: skip
chain("Optional", "o = Optional(a) b = OptionalGetElement(o)")
chain("OptionalGetElement", "b = OptionalGetElement(a)", opset=18)
chain("OptionalHasElement", "o = Optional(x) h = OptionalHasElement(o) f = Cast <to=FLOAT> (h) b = Mul(a, f)")
chain(
    "SequenceAt-computed",
    "s = SequenceConstruct(a, a) m = ArgMax <axis=0, keepdims=0> (p) b = SequenceAt(s, m)",
    p=[1.0, 2.0], whole=True,
)  # fmt: skip
chain(
    "SequenceMap",
    "s = SequenceConstruct(a, a) t = SequenceMap <body = each (float[N, 6, 4, 4] e) => (float[N, 6, 4, 4] f) "
    "{ f = Neg(e) }> (s) b = ConcatFromSequence <axis=1> (t)",
    v=(5, 12, 1, 1), whole=True,
)  # fmt: skip
