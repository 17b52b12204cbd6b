"""Shapes and known values of every tensor, in one pass over the nodes. Law: what is stated holds for every input."""

from onnxprune.shapes.bodies import shape_of, told
from onnxprune.shapes.inference import Inference
from onnxprune.shapes.values import attribute, slice_parts, slice_range

__all__ = ["Inference", "attribute", "shape_of", "slice_parts", "slice_range", "told"]
