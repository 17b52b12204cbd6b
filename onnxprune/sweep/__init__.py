"""Many targets for one model: the front of speed, size and fidelity; resumable, over processes or machines."""

from onnxprune.sweep.candidates import Candidate, candidates, numbers
from onnxprune.sweep.pool import Pool
from onnxprune.sweep.run import Settings, Sweep, sweep

__all__ = ["Candidate", "Pool", "Settings", "Sweep", "candidates", "numbers", "sweep"]
