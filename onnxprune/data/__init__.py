"""Calibration samples, unlabelled: an `.npz`, folders of arrays or images, a script. See `data.read`."""

from onnxprune.data.npz import load_npz
from onnxprune.data.read import kind_of, read
from onnxprune.data.samples import Feeds, Samples, batches

__all__ = ["Feeds", "Samples", "batches", "kind_of", "load_npz", "read"]
