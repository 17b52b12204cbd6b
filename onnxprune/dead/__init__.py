"""Units that no output depends on. Law: found from the weights alone, and true for every input."""

from onnxprune.dead.find import CAUSES, Dead, dead_units, settle

__all__ = ["CAUSES", "Dead", "dead_units", "settle"]
