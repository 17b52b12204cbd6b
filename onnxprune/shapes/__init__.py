"""Shapes and known values of every tensor, in one pass over the nodes. Law: what is stated holds for every input."""

from onnxprune.shapes.bodies import disagrees, shape_of, told
from onnxprune.shapes.contrib import operand_order
from onnxprune.shapes.inference import Inference
from onnxprune.shapes.standard import channels_last, standard
from onnxprune.shapes.values import attribute, slice_parts, slice_range

__all__ = [
    "Inference",
    "attribute",
    "channels_last",
    "disagrees",
    "operand_order",
    "shape_of",
    "slice_parts",
    "slice_range",
    "standard",
    "told",
]
