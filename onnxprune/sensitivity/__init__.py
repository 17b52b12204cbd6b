"""How much each group can lose, measured by cutting it alone."""

from onnxprune.sensitivity.allocate import by_sensitivity
from onnxprune.sensitivity.curves import Curve, Curves, Point
from onnxprune.sensitivity.measure import RATIOS, Question, analyse
from onnxprune.sensitivity.record import Record, content

__all__ = ["RATIOS", "Curve", "Curves", "Point", "Question", "Record", "analyse", "by_sensitivity", "content"]
