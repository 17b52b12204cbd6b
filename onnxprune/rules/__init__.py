"""One rule per operator, one file per family. Importing this package fills the registry."""

from onnxprune.rules import (
    attention,
    contract,
    control,
    einsum,
    group_norm,
    layout,
    norm,
    pointwise,
    recurrent,
    reduce,
    reshape,
    select,
)
from onnxprune.rules.op import CannotTrace, Op, Product, Rows
from onnxprune.rules.registry import RULES, find, find_resize

__all__ = [
    "RULES",
    "CannotTrace",
    "Op",
    "Product",
    "Rows",
    "attention",
    "contract",
    "control",
    "einsum",
    "find",
    "find_resize",
    "group_norm",
    "layout",
    "norm",
    "pointwise",
    "recurrent",
    "reduce",
    "reshape",
    "select",
]
