"""Remove the dead and nothing else. Law: the pruned model gives the outputs of the original, not of a masked one.

Which units are dead is proved from the weights (`dead`), so they are removed whatever else is asked for. What is
written was compared with the model that was read, too. Both sum the same terms but for zeros, which kernels group by
width, so the tolerance of `verify` holds here for the same reason; where constants went to biases, sums are taken in
another order, which moves them no further.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from onnxprune.data import Feeds
from onnxprune.dead import Dead
from onnxprune.errors import PlanError, VerificationError
from onnxprune.importance import Scores
from onnxprune.labels import Ids
from onnxprune.model import Model
from onnxprune.plan import GroupPlan, Limits, Plan, plan
from onnxprune.trace import Dependencies
from onnxprune.verify import REMEDY, Equivalence, compare, compare_closely


def spared(scores: Scores, found: Dead, *, only: bool = False) -> Scores:
    """Scores in which the dead are worth nothing and go first, or alone.

    Args:
        scores: Of the units of `found.dependencies`.
        found: Its dead units.
        only: Whether nothing else may go.
    """
    whole = np.zeros(found.dependencies.unit_count + len(found.dependencies.whole) + 1, dtype=bool)
    whole[found.units] = True
    filters = {
        source: np.where(whole[found.dependencies.unit[source.ids].ravel()], 0.0, values)
        for source, values in scores.filters.items()
    }
    values = np.where(found.mask, 0.0, scores.values)
    return replace(scores, values=values, filters=filters, dead=found.mask, only_dead=only)


def plan_dead(found: Dead, scores: Scores, limits: Limits, whole: Sequence[str] = ()) -> Plan:
    """The plan that removes the dead units, as many as rows, alignment and other limits allow.

    A unit that is dead only because another one is must stay where that one has to. So what the limits leave of a plan
    is looked at again, until all of it can go while all else stays.

    Args:
        found: The dead units.
        scores: Of the units.
        limits: What may be touched.
        whole: Further sources (`tensor:axis`) whose groups stay whole.
    """
    limits, left = replace(limits, skip=(*limits.skip, *whole)), spared(scores, found, only=True)
    while True:
        chosen = plan(found.dependencies, left, None, limits)
        removed = chosen.removed(found.dependencies)
        free = found.removable(removed)
        if free.size == removed.size:
            return noted(chosen, found)
        dead = np.zeros_like(found.mask)
        dead[free] = True
        left = replace(left, dead=dead)


def noted(chosen: Plan, found: Dead) -> Plan:
    """The plan with a note on why each group's dead units are dead, and how many of them have to stay."""
    return replace(chosen, groups=tuple(replace(entry, note=note(entry, found)) for entry in chosen.groups))


def note(entry: GroupPlan, found: Dead) -> str:
    """Why units of a group are dead; in front of what the planner has to say, if it left some of them."""
    group = next(g for g in found.dependencies.groups if g.name == entry.name)
    counts = found.counts_of(group.units)
    if not counts:
        return entry.note
    dead = sum(counts.values())
    stay = dead - len(entry.removed)
    told = f"dead: {causes(counts)}"
    if stay > 0:
        told += f"; {stay} of {dead} stay" + (f", {entry.note}" if entry.note else "")
    return told


def causes(counts: Mapping[str, int]) -> str:
    """'3 zero filter, 1 unread'."""
    return ", ".join(f"{n:,} {cause}" for cause, n in counts.items())


def harmless(found: Dead | None, removed: Ids) -> bool:
    """Whether removing these units, and no others, changes no output."""
    return found is not None and found.removable(removed).size == removed.size


def unchanged(
    original: Model,
    dependencies: Dependencies,
    removed: Ids,
    pruned: Model,
    batches: Sequence[Feeds],
    *,
    threads: int = 1,
) -> Equivalence:
    """Check that the pruned model gives the outputs of the original.

    Args:
        original: The model as it was read.
        dependencies: The traced model; its normal form was compared with the original.
        removed: Unit numbers that were removed.
        pruned: What is left.
        batches: Inputs to compare on.
        threads: Threads inside one operator.

    Raises:
        VerificationError: It does not.
    """
    found = compare(original, pruned, batches, threads=threads)
    if not found.ok:  # a network that enlarges rounding, or rounds itself, is compared piece by piece
        keep = dependencies.keep(removed)
        found = compare_closely(dependencies, keep, dependencies.model, pruned, batches, threads)
    if not found.ok:
        what = f"the model without its dead units differs from the original by {found.max_rel:.1e}"
        raise VerificationError(
            f"{what} (allowed {found.tolerance:.0e})", where=f"output '{found.worst}'", remedy=REMEDY
        )
    return found


def nothing_dead(found: Dead) -> PlanError:
    """The error for a model of which every unit is needed."""
    what = f"no unit is dead: an output depends on each of the {found.dependencies.unit_count:,} that could go"
    if found.padded:
        what += f"; {found.padded:,} are constant, but no bias can take them over"
    return PlanError(what, remedy="nothing was written; give a target, such as --ratio 0.3, to remove more")
