"""One rule per operator, one file per family. Importing this package fills the registry."""

from onnxprune.rules import (
    fused_attention,
    contract,
    control,
    fused,
    layout,
    norm,
    opaque,
    pointwise,
    quant,
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
    "fused_attention",
    "contract",
    "control",
    "find",
    "find_resize",
    "fused",
    "layout",
    "norm",
    "opaque",
    "pointwise",
    "quant",
    "reduce",
    "reshape",
    "select",
]
