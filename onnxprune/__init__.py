"""onnxprune: structured pruning of ONNX files, verified and timed."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("onnxprune")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
