"""What a model holds on calibration data, layer by layer. Law: one pass from front to back, in bounded memory."""

from onnxprune.calibrate.anchors import Anchor, anchor_of, readers_of
from onnxprune.calibrate.contraction import Contraction, contraction_of
from onnxprune.calibrate.moments import Moments
from onnxprune.calibrate.tally import Tally
from onnxprune.calibrate.walk import Walk

__all__ = ["Anchor", "Contraction", "Moments", "Tally", "Walk", "anchor_of", "contraction_of", "readers_of"]
