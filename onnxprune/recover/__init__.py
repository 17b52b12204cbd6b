"""Accuracy without training: bring what is left near to what the dense model computed. See `recover.methods`."""

from onnxprune.recover import merge, methods  # register them
from onnxprune.recover.answer import Layer, Recovered
from onnxprune.recover.registry import METHODS, Task, method, method_of
from onnxprune.recover.sequential import AUTO, recover

__all__ = ["AUTO", "METHODS", "Layer", "Recovered", "Task", "merge", "method", "method_of", "methods", "recover"]
