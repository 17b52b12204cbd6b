"""One rule per operator, one file per family. Importing this package fills the registry."""

from onnxprune.rules import bodies, contract, control, layout, norm, pointwise, reduce, reshape, select
from onnxprune.rules.op import CannotTrace, Op, Product, Rows
from onnxprune.rules.registry import RULES, find, find_resize

__all__ = [
    "RULES",
    "CannotTrace",
    "Op",
    "Product",
    "Rows",
    "bodies",
    "contract",
    "control",
    "find",
    "find_resize",
    "layout",
    "norm",
    "pointwise",
    "reduce",
    "reshape",
    "select",
]
