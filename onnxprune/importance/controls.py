"""Criteria that a ranking is compared with. Law: a criterion that is worth its name beats both of these."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxprune.importance.norms import by_filter, l1_norm
from onnxprune.importance.registry import Evidence, Scores, criterion
from onnxprune.trace import Dependencies


@criterion("random")
def random(dependencies: Dependencies, evidence: Evidence) -> Scores:
    """A random number for each unit, drawn with --seed.

    The control experiment of Li et al. 2017, arXiv 1608.08710, section 4.4; Li et al. 2022, Revisiting Random Channel
    Pruning, CVPR.
    """
    values = np.random.default_rng(evidence.seed).uniform(size=dependencies.unit_count)
    return Scores("", values, comparable=True, settings={"seed": evidence.seed})


@criterion("largest")
def largest(dependencies: Dependencies, _: Evidence) -> Scores:
    """The largest L1 norm of a group less the unit's own, so that the largest filters go first.

    The control experiment of Li et al. 2017, arXiv 1608.08710, section 4.4.
    """
    found = by_filter(dependencies, l1_norm)
    values = found.values.copy()
    for group in dependencies.groups:
        own = values[group.units]
        values[group.units] = own.max() - own
    return replace(found, values=values, filters={})
