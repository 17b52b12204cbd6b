"""From a target to a plan. Law: of the removals a target and the limits allow, the least important units go.

A ratio is the share of a group's channels removed. `local` gives every group the same ratio and ranks inside it;
`global` ranks all units of the model against each other on scores divided by their group's mean, so that layers of
different scale compare. Targets in MACs or parameters are met by bisection over the ratio (or the global threshold).
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from onnxprune.cost import Cost, cost
from onnxprune.errors import PlanError, UnprunableError
from onnxprune.importance import Scores
from onnxprune.labels import Ids
from onnxprune.plan.counts import Classes, classify, solve
from onnxprune.plan.document import GroupPlan, Plan, describe, fingerprint
from onnxprune.trace import Dependencies, Group

Floats = NDArray[np.float64]
OUTPUT = "the model's output"
STEPS = 24  # bisections: the ratio is known to 2**-24, far below one channel


@dataclass(frozen=True)
class Target:
    """What to reach; one of the three. Without any, only `Limits.layer_ratios` prune.

    Attributes:
        ratio: Share of channels to remove, in (0, 1).
        macs: Share of multiply-accumulates to keep, in (0, 1).
        params: Share of parameters to keep, in (0, 1).
    """

    ratio: float | None = None
    macs: float | None = None
    params: float | None = None

    def __post_init__(self) -> None:
        given = {k: v for k, v in asdict(self).items() if v is not None}
        if len(given) > 1:
            raise PlanError(f"--{' and --'.join(given)} contradict each other", remedy="give one target")
        for name, value in given.items():
            if not 0 < value < 1:
                raise PlanError(f"--{name} {value} is outside (0, 1)", remedy=f"e.g. --{name} 0.5")


@dataclass(frozen=True)
class Limits:
    """What the plan may touch.

    Attributes:
        scope: 'local' or 'global'.
        align: Kept widths are multiples of this.
        max_ratio: Largest share of any group that may go, in (0, 1]; None: all but one channel (global: 0.9).
        skip: Globs over tensor and node names; groups with a match stay whole.
        layer_ratios: (glob, ratio): groups with a match lose this share, whatever the target. Later ones win.
    """

    scope: str = "local"
    align: int = 1
    max_ratio: float | None = None
    skip: tuple[str, ...] = ()
    layer_ratios: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        if self.scope not in ("local", "global"):
            raise PlanError(f"unknown scope '{self.scope}'", remedy="use 'local' or 'global'")
        if self.align < 1:
            raise PlanError(f"--align {self.align} is not a positive number", remedy="e.g. --align 8, or auto")
        if self.max_ratio is not None and not 0 < self.max_ratio <= 1:
            raise PlanError(f"--max-ratio {self.max_ratio} is outside (0, 1]", remedy="e.g. --max-ratio 0.7")
        for glob, ratio in self.layer_ratios:
            if not 0 <= ratio < 1:
                raise PlanError(f"--layer-ratio {glob}={ratio} is outside [0, 1)", remedy=f"e.g. {glob}=0.3")

    @property
    def ceiling(self) -> float:
        """The share of a group that may go at most."""
        return self.max_ratio if self.max_ratio is not None else 0.9 if self.scope == "global" else 1.0


@dataclass(eq=False)
class Chooser:
    """The data a search works on."""

    dependencies: Dependencies
    scores: Scores
    limits: Limits
    groups: Sequence[Group] = field(init=False)

    def __post_init__(self) -> None:
        self.groups = self.dependencies.groups
        self.forced = forced_ratios(self.groups, self.limits)
        self.classes: list[Classes] = classify(self.dependencies, self.groups)
        self.norm = [normalised(self.scores.values[g.units]) for g in self.groups]
        self.orders = [np.argsort(self.scores.values[g.units], kind="stable") for g in self.groups]

    @cached_property
    def dense(self) -> Cost:
        """The cost of the dense model."""
        return cost(self.dependencies)

    def wanted(self, g: int, level: float) -> Floats:
        """Units of each class that group `g` should keep at a level: a ratio, or a global threshold."""
        classes = self.classes[g]
        forced = self.forced[g]
        if forced is None and self.limits.scope == "global":
            above = self.norm[g] >= level
            return np.bincount(classes.of[above], minlength=classes.size.size).astype(float)
        ratio = level if forced is None else forced
        exact = np.asarray(classes.size * (1.0 - ratio), dtype=np.float64)
        if self.limits.align > 1 or classes.size.size > 1:
            return exact  # narrow rows would lose far more than was asked if each were rounded down
        return np.floor(exact + 1e-9)  # Li et al. remove ceil(c r) of c; the slack absorbs binary rounding of c (1 - r)

    def group(self, g: int, level: float) -> tuple[Ids, str]:
        """Removed positions of a group at a level, and a note."""
        if self.forced[g] == 0.0:
            return np.zeros(0, dtype=np.int64), "kept whole as asked"
        classes, order = self.classes[g], self.orders[g]
        least = np.ceil(classes.size * (1 - self.limits.ceiling) - 1e-9).astype(np.int64)
        keep, note = solve(classes, np.maximum(self.wanted(g, level), least), least, self.limits.align)
        surplus = classes.size - keep
        removed = [order[classes.of[order] == c][:n] for c, n in enumerate(surplus.tolist()) if n]
        return np.sort(np.concatenate(removed)) if removed else np.zeros(0, dtype=np.int64), note

    def removal(self, level: float) -> list[tuple[Ids, str]]:
        """What every group loses at a level."""
        return [self.group(g, level) for g in range(len(self.groups))]

    def units(self, choice: Sequence[tuple[Ids, str]]) -> Ids:
        """Unit numbers of a choice."""
        parts = [g.units[positions] for g, (positions, _) in zip(self.groups, choice, strict=True)]
        return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def normalised(values: Floats) -> Floats:
    """Scores over their mean, so that groups compare; all ones when every score is zero."""
    mean = values.mean() if values.size else 0.0
    return values / mean if mean > 0 else np.ones_like(values)


def forced_ratios(groups: Sequence[Group], limits: Limits) -> list[float | None]:
    """The ratio the user gave each group, or None.

    Raises:
        PlanError: A glob matches nothing.
    """
    names = [[g.name, *(n for s in g.sources for n in (s.tensor, s.node))] for g in groups]
    forced: list[float | None] = [None] * len(groups)
    for glob, ratio in [*limits.layer_ratios, *((s, 0.0) for s in limits.skip)]:
        hits = [g for g, known in enumerate(names) if any(n == glob or fnmatchcase(n, glob) for n in known)]
        if not hits:
            every = list(dict.fromkeys(n for known in names for n in known))
            near = difflib.get_close_matches(glob, every, n=3, cutoff=0.0)
            raise PlanError(f"'{glob}' matches no prunable layer", remedy=f"names look like: {', '.join(near)}")
        for g in hits:
            forced[g] = ratio
    return forced


def plan(
    dependencies: Dependencies, scores: Scores, target: Target | None = None, limits: Limits | None = None
) -> Plan:
    """Choose what to remove.

    Args:
        dependencies: A traced model.
        scores: Importance of its units.
        target: What to reach; None prunes only where `limits.layer_ratios` say so.
        limits: What may be touched.

    Raises:
        UnprunableError: Nothing in the model can be removed.
        PlanError: The target is out of reach under the limits.
    """
    limits, target = limits or Limits(), target or Target()
    if not dependencies.groups:
        raise UnprunableError(nothing_to_prune(dependencies), remedy="see 'onnxprune inspect' for every reason")
    chooser = Chooser(dependencies, scores, limits)
    choice = search(chooser, target)
    groups = tuple(
        GroupPlan(g.name, describe(g.sources), int(g.units.size), tuple(int(p) for p in positions), note)
        for g, (positions, note) in zip(dependencies.groups, choice, strict=True)
    )
    settings = {
        **{k: v for k, v in asdict(target).items() if v is not None},
        **{k: v for k, v in asdict(limits).items() if v not in (None, ())},
        "criterion": scores.criterion,
    }
    return Plan(fingerprint(dependencies.model), settings, groups)


def nothing_to_prune(dependencies: Dependencies) -> str:
    """Why a model has no groups: what holds its layers, and the operators no rule describes."""
    held = [f for _, f in dependencies.held]
    unknown = sorted({f.reason.rsplit(" ", 1)[-1] for f in dependencies.freezes if f.reason.startswith("no rule")})
    parts = [f"operators without a rule: {', '.join(unknown[:5])}"] if unknown else []
    if held:
        reasons = Counter(f.reason for f in held if f.reason != OUTPUT) or Counter([OUTPUT])
        reason = reasons.most_common(1)[0][0]
        node = next((f.node for f in held if f.reason == reason), "")
        where = f" (first at node '{node}')" if node else ""
        many = f"{len(held)} layers are held, most often because of"
        layers = many if len(held) > 1 else "1 layer is held because of"
        parts.insert(0, f"{layers}: {reason}{where}")
    elif not unknown:
        parts.append("the graph has no Conv, Gemm or MatMul with stored weights")
    return "nothing can be pruned: " + "; ".join(parts)


def search(chooser: Chooser, target: Target) -> list[tuple[Ids, str]]:
    """The choice that meets a target."""
    if target.macs is None and target.params is None:
        if target.ratio is None:
            return chooser.removal(0.0)
        if chooser.limits.scope == "local":
            return chooser.removal(target.ratio)
    aim, measure, name = goal(chooser, target)
    low, high = 0.0, 1.0
    if chooser.limits.scope == "global":
        high = 1e-9 + max(float(n.max(initial=0.0)) for n in chooser.norm)
    best = chooser.removal(high)
    reached = measure(best)
    if reached > aim + 1e-9:
        what = f"--{name} cannot be met: at most {1 - reached:.1%} can go under the limits given"
        raise PlanError(what, remedy="ask for less, or relax --max-ratio, --skip or --align")
    for _ in range(STEPS):
        middle = (low + high) / 2
        choice = chooser.removal(middle)
        if measure(choice) <= aim + 1e-9:
            high, best = middle, choice
        else:
            low = middle
    return best


def goal(chooser: Chooser, target: Target) -> tuple[float, Callable[[list[tuple[Ids, str]]], float], str]:
    """The value a search must come down to, the function that measures it, and the option's name."""
    if target.ratio is not None:
        count = sum(g.units.size for g in chooser.groups)
        return 1 - target.ratio, lambda choice: 1 - sum(p.size for p, _ in choice) / count, "ratio"
    name = "macs" if target.macs is not None else "params"
    aim = target.macs if target.macs is not None else target.params
    assert aim is not None

    def share(choice: list[tuple[Ids, str]]) -> float:
        keep = chooser.dependencies.keep(chooser.units(choice))
        after: float = getattr(cost(chooser.dependencies, keep), name)
        return after / max(1.0, float(getattr(chooser.dense, name)))

    return aim, share, name
