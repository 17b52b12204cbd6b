"""onnxprune: structured pruning of .onnx files, verified and timed.

The stages are functions; each takes what the one before it returned:

    model = normalise(load("model.onnx"))
    dependencies = trace(model)
    chosen = plan(dependencies, score(dependencies, "l1"), Target(ratio=0.3), Limits(align=16))
    removed = chosen.removed(dependencies)
    pruned = rewrite(dependencies, removed)
    verify(dependencies, removed, pruned, [random_feeds(model)])
    save(pruned, "small.onnx")
    bench("model.onnx", "small.onnx")

`prune` runs them all.
"""

from importlib.metadata import PackageNotFoundError, version

from onnxprune.bench import Comparison, bench
from onnxprune.cost import Cost, cost
from onnxprune.data import batches, load_npz
from onnxprune.errors import OnnxpruneError
from onnxprune.importance import Scores, score
from onnxprune.model import Model, load, save
from onnxprune.normalise import normalise
from onnxprune.pipeline import Options, Pruned, apply, prune
from onnxprune.plan import Limits, Plan, Target, plan
from onnxprune.report import Report
from onnxprune.rewrite import masked, rewrite
from onnxprune.runtime import random_feeds
from onnxprune.trace import Dependencies, trace
from onnxprune.verify import Equivalence, verify

try:
    __version__ = version("onnxprune")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"

__all__ = [
    "Comparison",
    "Cost",
    "Dependencies",
    "Equivalence",
    "Limits",
    "Model",
    "OnnxpruneError",
    "Options",
    "Plan",
    "Pruned",
    "Report",
    "Scores",
    "Target",
    "apply",
    "batches",
    "bench",
    "cost",
    "load",
    "load_npz",
    "masked",
    "normalise",
    "plan",
    "prune",
    "random_feeds",
    "rewrite",
    "save",
    "score",
    "trace",
    "verify",
]
