"""Strings beside a network: what is counted in them scales its channels."""

from __future__ import annotations

from tests.rules.cases.case import chain

WORDS = 's = Constant <value_strings=["deep", "wide"]> () '
chain(
    "StringConcat",
    WORDS + 't = StringConcat(s, s) m = RegexFullMatch <pattern="deep.*"> (t) f = Cast <to=FLOAT> (m) '
    "g = ReduceMax(f) b = Mul(a, g)",
    opset=20, ir=10,
)  # fmt: skip
chain(
    "StringSplit",
    WORDS + "n = StringNormalizer <case_change_action=\"UPPER\"> (s) t, c = StringSplit(n) f = Cast <to=FLOAT> (c) "
    "g = ReduceMax(f) b = Mul(a, g)",
    opset=20, ir=10,
)  # fmt: skip
chain(
    "TfIdfVectorizer",
    'f = TfIdfVectorizer <max_gram_length=1, max_skip_count=0, min_gram_length=1, mode="TF", ngram_counts=[0], '
    "ngram_indexes=[0, 1], pool_int64s=[3, 4]> (s) h = Cast <to=FLOAT> (f) g = ReduceMax(h) b = Mul(a, g)",
    s=[3, 4, 3],
)
