"""Approach a target in rounds. Law: what comes of all rounds is one plan for the original model.

In every round the model is scored as it is by then, pruned a part of the way, and refitted to what the original
computes, so that the next round sees filters that have taken over from those that went (iterative pruning, Han et al.
2015, arXiv 1506.02626, section 3.4, without the training). The share that is to be left falls by the same factor each
time. Units of a pruned model are found in the original by their place on a source's axis: rewriting keeps the names of
tensors and the order of what is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.cost import cost
from onnxprune.errors import PlanError
from onnxprune.importance import Scores
from onnxprune.labels import Ids
from onnxprune.model import Model
from onnxprune.normalise import normalise
from onnxprune.pipeline.inputs import needs
from onnxprune.pipeline.options import Options
from onnxprune.pipeline.plans import as_asked, plan_aligned
from onnxprune.pipeline.recovered import recovered
from onnxprune.plan import Allocation, Limits, Plan, Sharing, Target, across, fingerprint, uniform
from onnxprune.plan.allocation import UNIFORM
from onnxprune.plan.document import GroupPlan, describe
from onnxprune.progress import Observer
from onnxprune.rewrite import rewrite
from onnxprune.runtime import Feeds
from onnxprune.trace import Dependencies, Mask, trace

ALONE = "give --macs, --params or --ratio without --max-ratio and --layer-ratio, or leave --steps out"


def check_steps(options: Options, target: Target | None, limits: Limits) -> None:
    """Refuse rounds where the way to the target is not one that can be cut in parts.

    Raises:
        PlanError: The target is a time or a threshold, or there is none, or shares of the original widths are limited.
    """
    if options.steps < 1:
        raise PlanError(f"--steps {options.steps} is not a positive number", remedy="e.g. --steps 3")
    if options.steps == 1:
        return
    if target is None or target.timed or target.threshold is not None:
        raise PlanError("--steps needs a target in MACs, parameters or channels", remedy=ALONE)
    if needs(options) == "gradients":
        raise PlanError("--steps cannot compute gradients anew", remedy="leave --steps out, or use another criterion")
    if limits.max_ratio is not None or limits.layer_ratios:
        raise PlanError("--steps cannot keep to shares of the original widths", remedy=ALONE)


@dataclass(frozen=True, eq=False)
class Stage:
    """A model on its way.

    Attributes:
        dependencies: Of the model as it is by now.
        scores: Importance of its units.
        lost: Units of the original that are gone.
        units: For units of the model by now, unit numbers of the original: pairs. Shape (2, pairs).
    """

    dependencies: Dependencies
    scores: Scores
    lost: Ids
    units: Ids


@dataclass(eq=False)
class SteppedPlans:
    """Plans made in rounds.

    Attributes:
        dependencies: Of the original.
        scores: Of its units.
        target: To reach in the end.
        limits: What may be touched.
        options: Everything else; `steps` says how many rounds.
        sharing: How groups share the cut; None leaves it to the planner.
        samples: To score and to refit on; without any, or with `recover` off, nothing is refitted.
        rescore: Scores a model by now.
        observe: Called with a stage's name and the share of it that is done.
        fixed: Whether the alignment was given.
    """

    dependencies: Dependencies
    scores: Scores
    target: Target
    limits: Limits
    options: Options
    sharing: Sharing | None
    samples: Sequence[Feeds]
    rescore: Callable[[Dependencies], Scores]
    observe: Observer
    fixed: bool

    def __call__(self, whole: Sequence[str]) -> Plan:
        """The plan with the groups of some sources (`tensor:axis`) left whole.

        Raises:
            PlanError: The target is out of reach, or a round's units cannot be found in the original.
        """
        narrower = replace(self.limits, skip=(*self.limits.skip, *whole))
        every = np.arange(self.dependencies.unit_count)
        stage = Stage(self.dependencies, self.scores, np.zeros(0, np.int64), np.stack([every, every]))
        settings: dict[str, object] = {}
        for number in range(1, self.options.steps + 1):
            wanted = self.aim(stage, number)
            if wanted is None:
                continue
            how = wanted, narrower, self.shared(stage)
            chosen = plan_aligned(stage.dependencies, stage.scores, *how, fixed=self.fixed)
            settings = {**chosen.settings}
            removed = chosen.removed(stage.dependencies)
            lost = np.union1d(stage.lost, found_in(stage.units, removed))
            if number == self.options.steps:
                stage = replace(stage, lost=lost)
            elif removed.size:
                stage = self.onward(stage, removed, lost)
        return as_asked(self.document(stage.lost, settings), self.limits)

    def onward(self, stage: Stage, removed: Ids, lost: Ids) -> Stage:
        """Prune, refit and score."""
        model = rewrite(stage.dependencies, removed)
        found = recovered(self.dependencies, lost, model, self.samples, self.options, self.observe)
        model = found.model if found else model
        smaller = retraced(model, self.dependencies)
        return Stage(smaller, self.rescore(smaller), lost, origins(self.dependencies, lost, smaller))

    def aim(self, stage: Stage, number: int) -> Target | None:
        """The target of a round, for the model as it is by then; None where it is met already."""
        part, target = number / self.options.steps, self.target
        if target.ratio is not None:
            left = (1 - target.ratio) ** part
            if isinstance(self.sharing_or_uniform, Allocation) and self.sharing_or_uniform.name == UNIFORM:
                return Target(ratio=1 - left)  # the level of `Allocation.beyond`
            left *= self.dependencies.unit_count / max(1, stage.dependencies.unit_count)
            return Target(ratio=1 - left) if left < 1 else None
        name, keep = ("macs", target.macs) if target.macs is not None else ("params", target.params)
        assert keep is not None
        sizes = [float(getattr(cost(d), name)) for d in (self.dependencies, stage.dependencies)]
        left = keep**part * sizes[0] / max(1.0, sizes[1])
        return Target(**{name: left}) if left < 1 else None

    @property
    def sharing_or_uniform(self) -> Sharing | None:
        """The allocation, where the scores do not choose it."""
        if self.sharing is None and not (self.scores.additive and self.target.macs is not None):
            return uniform(self.dependencies)
        return self.sharing

    def shared(self, stage: Stage) -> Sharing | None:
        """The allocation for the model as it is by now: the rest of the curves, or the ranking by the new scores."""
        sharing = self.sharing_or_uniform
        if not isinstance(sharing, Allocation):
            return None if sharing is None else across(stage.dependencies, stage.scores)
        owner = np.full(stage.dependencies.unit_count, -1, dtype=np.int64)
        owner[stage.units[0]] = self.dependencies.owner[stage.units[1]]
        rows = np.array([owner[group.units[0]] for group in stage.dependencies.groups])
        own = replace(sharing, ratios=sharing.ratios[rows])
        gone = np.array([np.isin(g.units, stage.lost).mean() for g in self.dependencies.groups])
        return own.beyond(gone[rows])

    def document(self, lost: Ids, settings: dict[str, object]) -> Plan:
        """The plan for the original."""
        groups = tuple(
            GroupPlan(
                g.name,
                describe(g.sources),
                int(g.units.size),
                tuple(np.flatnonzero(np.isin(g.units, lost)).tolist()),
            )
            for g in self.dependencies.groups
        )
        asked = {k: v for k, v in vars(self.target).items() if v is not None}
        return Plan(fingerprint(self.dependencies.model), {**settings, **asked, "steps": self.options.steps}, groups)


def retraced(model: Model, dense: Dependencies) -> Dependencies:
    """A pruned model, traced as the original was."""
    return trace(normalise(model), through_norms=dense.through_norms)


def origins(dense: Dependencies, lost: Ids, smaller: Dependencies) -> Ids:
    """For units of a pruned model, the unit numbers they had. Shape (2, pairs): first those, second these.

    Args:
        dense: The original.
        lost: Its units that are gone.
        smaller: What is left of it, traced.

    Raises:
        PlanError: The two do not fit together.
    """
    keep, pairs = dense.keep(lost), []
    for source in smaller.sources:
        axes = dense.labels.get(source.tensor)
        ids = None if axes is None else axes[source.axis].ids
        if ids is None:
            continue
        old, new = left(ids, keep), source.ids.ravel()
        if old.size != new.size:
            raise PlanError(f"'{source.tensor}' is not what the rounds before left of it", remedy="use --steps 1")
        pairs.append(np.stack([smaller.unit[new], dense.unit[old]]))
    found = np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), np.int64)
    inside = (found[0] >= 0) & (found[0] < smaller.unit_count)
    return np.asarray(np.unique(found[:, inside], axis=1))


def left(ids: Ids, keep: Mask) -> Ids:
    """The ids of an axis that stay, in the order in which they lie then; of an axis in rows, row by row."""
    flat = ids.reshape(-1, ids.shape[-1])
    return np.concatenate([row[keep[row]] for row in flat])


def found_in(units: Ids, removed: Ids) -> Ids:
    """The units of the original behind some of the model by now.

    Raises:
        PlanError: One of them cannot go, or stands behind a unit that stays, too.
    """
    gone = np.isin(units[0], removed)
    old, rest = np.unique(units[1, gone]), units[1, ~gone]
    if (old < 0).any() or np.isin(old, rest).any() or np.unique(units[0, gone]).size < np.unique(removed).size:
        what = "what a round would remove cannot be told apart in the original model"
        raise PlanError(what, remedy="use --steps 1")
    return old
