"""Dense against pruned, timed side by side. Law: a speedup is claimed only where identical models show no such gap.

Measuring and comparing are apart: `measure` only collects raw times, `compare` is a pure function of them.
`measure.py` has the rules of one process, `statistics.py` those of the estimates, `processes.py` those of fresh
processes, `protocol.py` the numbers.
"""

from onnxprune.bench.comparison import MARGIN, Comparison, Throughput, compare, throughput
from onnxprune.bench.measure import Samples, measure
from onnxprune.bench.protocol import FULL, QUICK, Protocol
from onnxprune.bench.run import bench
from onnxprune.bench.statistics import interval

__all__ = [
    "FULL",
    "MARGIN",
    "QUICK",
    "Comparison",
    "Protocol",
    "Samples",
    "Throughput",
    "bench",
    "compare",
    "interval",
    "measure",
    "throughput",
]
