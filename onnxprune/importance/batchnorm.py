"""Scales of BatchNormalization. Law: a channel is worth what it is multiplied by; one without a scale is not judged."""

from __future__ import annotations

import numpy as np

from onnxprune.errors import ModelError
from onnxprune.importance.coupled import normalisations
from onnxprune.importance.registry import Evidence, Scores, criterion
from onnxprune.trace import Dependencies

FOLDED = "no BatchNormalization scales channels that can go: exporters fold them into the convolutions"
KEEP = (
    "export with torch.onnx.export(model.eval(), ..., dynamo=False, training=torch.onnx.TrainingMode.PRESERVE), or "
    "with dynamo=True, optimize=False; or rank by --criterion l1"
)


@criterion("bn-scale")
def bn_scale(dependencies: Dependencies, _: Evidence) -> Scores:
    """Absolute scale of BatchNormalization, summed over those of a unit; --allocate global cuts at one percentile.

    Units without a scale stay. It is meant for models trained with a penalty on the scales.

    Liu et al. 2017, Network Slimming, arXiv 1708.06519, section 3: the global threshold is a percentile of all scales.

    Raises:
        ModelError: No unit has one, or one is NaN or infinite.
    """
    count = dependencies.unit_count
    values, seen = np.zeros(count), np.zeros(count, dtype=bool)
    for tensor in dict.fromkeys(node.input[1] for node in normalisations(dependencies)):
        axes = dependencies.labels.get(tensor, ())
        if not axes or axes[0].ids is None:
            continue
        scale = np.abs(dependencies.model.weights[tensor].astype(np.float64))
        if not np.isfinite(scale).all():
            raise ModelError(f"'{tensor}' holds NaN or infinite scales", remedy="export a model with finite weights")
        units = np.broadcast_to(dependencies.unit[axes[0].ids], scale.shape)
        chosen = (units >= 0) & (units < count)
        np.add.at(values, units[chosen], scale[chosen])
        seen[units[chosen]] = True
    if not seen.any():
        raise ModelError(FOLDED, where="criterion 'bn-scale'", remedy=KEEP)
    why = "left whole: no BatchNormalization scales its channels"
    return Scores("", values, comparable=True, unscored=np.flatnonzero(~seen), why=why)
