"""Accuracy without training: refit what is left to what the dense model computed. See `recover.sequential`."""

from onnxprune.recover.answer import Layer, Recovered
from onnxprune.recover.sequential import recover

__all__ = ["Layer", "Recovered", "recover"]
