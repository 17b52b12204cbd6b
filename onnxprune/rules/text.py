"""Operators on strings. Law: strings have no channels, so their axes, and what is counted in them, keep their size."""

from __future__ import annotations

from onnxprune.rules.signature import axes

axes("StringConcat", "*, * -> *", family="text")
axes("StringNormalizer", "* -> *", family="text")
axes("StringSplit", "* -> *, *", family="text")
axes("RegexFullMatch", "* -> *", family="text")
axes("TfIdfVectorizer", "* -> *", family="text")
