"""What the user gave. Law: it is read once for all stages, and what cannot be used is told before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnxprune.data import Samples, kind_of
from onnxprune.metric import metric, metric_of
from onnxprune.model import Model
from onnxprune.pipeline.inputs import calibration, read_samples, too_few
from onnxprune.pipeline.options import Options, Pruned
from onnxprune.plan import Plan
from onnxprune.progress import Observer
from onnxprune.runtime import Feeds


@dataclass(frozen=True, eq=False)
class Given:
    """What the user gave, as the stages need it.

    Attributes:
        samples: Samples, all that were read.
        batches: Those that scores and weights are fitted to; none where there are too few.
        metric: The metric of the dense model.
    """

    samples: Samples | None = None
    batches: Sequence[Feeds] = ()
    metric: float | None = None


def gathered(
    source: Path, original: Model, options: Options, observe: Observer, samples: Samples | None = None
) -> Given:
    """Read the samples, unless that was done, and measure the metric: a script that fails should fail at once."""
    samples, value = samples or read_samples(original, options, observe), None
    batches = calibration(original, options, samples)
    if options.script is not None:
        observe("metric of the dense model", 0.0)
        value = metric(options.script, source, threads=options.threads)
    return Given(samples, batches, value)


def told(given: Given, options: Options) -> Mapping[str, Any] | None:
    """What a report says of the samples, and whether they were too few to be fitted to; None without any."""
    if given.samples is None:
        return None
    idle = options.recover is None and options.recovery == "auto" and not given.batches
    return {**given.samples.about, **({"too_few": too_few(options, given.samples)} if idle else {})}


def prepared_as(options: Options, chosen: Plan) -> Options:
    """Options with the preprocessing of images that a plan was made with, unless another is asked for."""
    held = chosen.settings.get("preprocess")
    if options.preprocess is not None or options.data is None or not isinstance(held, str):
        return options
    return replace(options, preprocess=held) if kind_of(options.data) == "images" else options


def noted(plan: Plan, data: Samples | None) -> Plan:
    """The plan with the preprocessing of the images it was made or carried out with, so that it can be replayed."""
    held = data.about.get("preprocess") if data else None
    return replace(plan, settings={**plan.settings, "preprocess": held}) if held else plan


def evaluated(done: Pruned, dense: float | None, options: Options, observe: Observer) -> Pruned:
    """With the user's metric, of the model that is to be delivered."""
    if options.script is None or dense is None:
        return done
    observe("metric of the pruned model", 0.0)
    value = metric_of(options.script, done.model, threads=options.threads)
    held = {"script": str(options.script), "before": dense, "after": value}
    return replace(done, report=replace(done.report, metric=held))
