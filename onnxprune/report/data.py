"""What a run found, removed and measured. Law: complete, and all of it JSON; other programs rely on the keys.

`removed` names everything that got smaller, by the names in the input file, so that a reader with the two files can
check every index; where the readers of a shared initializer lost different ones, they got copies of their own, and
`copies` says of what. `frozen` names every filter axis that had to stay, whole or in part, and why; `isolated` names
the groups among them that were planned to shrink and failed verification.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata

import numpy as np
import onnx

from onnxprune.bench import Comparison
from onnxprune.cost import Cost, cost, dense_mask, macs
from onnxprune.fit import Fitted
from onnxprune.gains import Gains
from onnxprune.graph import every_node, node_name
from onnxprune.importance import Scores, kept_share
from onnxprune.labels import Freeze, Ids
from onnxprune.model import Model
from onnxprune.plan import Plan
from onnxprune.plan.document import describe
from onnxprune.recover import Recovered
from onnxprune.report.coupling import Edge, Importance, edges, importance
from onnxprune.report.dead import DeadReport
from onnxprune.rewrite import Removal
from onnxprune.trace import Dependencies, Group, Mask, Source, main_reason
from onnxprune.verify import Equivalence

SCHEMA = "onnxprune/report/1"
UNPRODUCED = "no filter produces it"
SMALLEST = 1e-12  # share of importance; a group of which nothing is left has no logarithm


@dataclass(frozen=True)
class GroupReport:
    """What became of one group.

    Attributes:
        name: The group's name: its first source's tensor.
        sources: The weight axes whose filters go together, as `tensor:axis`.
        nodes: The node that reads each source.
        channels_before: Units in the group.
        channels_after: Units that stay.
        macs_before: Multiply-accumulates of the sources' nodes, for one sample.
        macs_after: The same after pruning; it falls with the group's own filters and with their inputs.
        note: What the planner has to say.
        importance: The scores of its units, and which of them stay; None where they are not known.
    """

    name: str
    sources: tuple[str, ...]
    nodes: tuple[str, ...]
    channels_before: int
    channels_after: int
    macs_before: int
    macs_after: int
    note: str = ""
    importance: Importance | None = None


@dataclass(frozen=True)
class Frozen:
    """A filter axis of which some indices, or all, must stay.

    Attributes:
        tensor: The weight.
        axis: Its filter axis.
        node: The node where the reason was met; for a model output the one that writes it.
        reason: Why.
        held: Indices that must stay.
        size: Indices of the axis.
    """

    tensor: str
    axis: int
    node: str
    reason: str
    held: int
    size: int

    @property
    def whole(self) -> bool:
        """Whether no index can be removed."""
        return self.held == self.size

    @property
    def text(self) -> str:
        """The reason, with the number of indices where that is not all of them."""
        return self.reason if self.whole else f"{self.held} of {self.size} channels: {self.reason}"

    def to_dict(self) -> dict[str, object]:
        """As the report's `frozen` lists it."""
        return {"tensor": self.tensor, "axis": self.axis, "node": self.node, "reason": self.text}


@dataclass(frozen=True)
class Report:
    """Everything a report shows.

    Attributes:
        model: The input file.
        output: The file written; '' where it was refused for not being faster.
        version: Of onnxprune.
        before: Cost of the dense model.
        after: Cost of the pruned model.
        removed: Initializer -> axis -> removed indices.
        removed_per_group: The same for the input axis of grouped convolutions whose groups lost different positions:
            one list for each group that stays, in order.
        copies: For every reader of a shared initializer that lost other indices than the first: its copy -> the
            initializer of the input file. Copies of one that lost the same are stored once, under the first one's name.
        frozen: Filter axes that must stay.
        verified: Whether masked == pruned.
        latency: Dense against pruned, or None when it was not timed.
        settings: How the plan was made.
        groups: Every group, those left whole included.
        environment: Software and processor.
        accuracy: 'before' and 'after', shares in [0, 1], where they were measured.
        isolated: Group -> why it was left whole although the plan removed from it.
        gains: Where the time goes and which layers failed to gain, where that was profiled.
        edges: Which group's channels are read by the layers of which other.
        fit: How a target in time was met, where one was given.
        recovery: How weights were refitted, where they were; what is verified is the cut before it.
        data: What the user's samples are, see `data.Samples.about`; None where there were none.
        metric: The user's `script`, and what it gives `before` and `after`, for the model as it is delivered.
        dead: Which units no output depends on, where they were looked for.
    """

    model: str
    output: str
    version: str
    before: Cost
    after: Cost
    removed: Mapping[str, Mapping[int, Sequence[int]]]
    removed_per_group: Mapping[str, Mapping[int, Sequence[Sequence[int]]]]
    copies: Mapping[str, str]
    frozen: tuple[Frozen, ...]
    verified: Equivalence
    latency: Comparison | None
    settings: Mapping[str, object]
    groups: tuple[GroupReport, ...]
    environment: Mapping[str, object]
    accuracy: Mapping[str, float] | None = None
    isolated: Mapping[str, str] = field(default_factory=dict)
    gains: Gains | None = None
    edges: tuple[Edge, ...] = ()
    fit: Fitted | None = None
    recovery: Recovered | None = None
    data: Mapping[str, object] | None = None
    metric: Mapping[str, object] | None = None
    dead: DeadReport | None = None

    @property
    def kept(self) -> float | None:
        """Geometric mean over the prunable layers of the share of importance that stays; None where it is not known."""
        ranked = [(g.importance.share, len(g.sources)) for g in self.groups if g.importance]
        if not ranked or len(ranked) < len(self.groups):
            return None
        shares, layers = np.array(ranked).T
        return float(np.exp(np.average(np.log(np.maximum(shares, SMALLEST)), weights=layers)))

    @property
    def verdict(self) -> str:
        """Whether it is faster, and what followed for the file."""
        if self.latency is None:
            return "not timed"
        if self.latency.verdict == "faster":
            return "faster"
        plain = "slower" if self.latency.verdict == "slower" else "not measurably faster"
        if not self.output:
            return f"{plain}; not written"
        return f"{plain}; written because {'it is lossless' if self.lossless else 'that was forced'}"

    @property
    def lossless(self) -> bool:
        """Whether its outputs are the original's, and it is no slower."""
        same = self.dead is not None and self.dead.lossless is not None
        return same and (self.latency is None or self.latency.verdict != "slower")

    def timed(self, comparison: Comparison, fit: Fitted | None = None) -> Report:
        """The same report with the result of a timing, and how a target in time was met."""
        together = {**self.environment, **comparison.environment}
        return replace(self, latency=comparison, fit=fit, environment=together)

    def to_json(self) -> str:
        """The report as a JSON file holds it."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def to_dict(self) -> dict[str, object]:
        """The report as JSON types only: `json.loads(json.dumps(d)) == d`."""
        keys = ("ok", "kind", "max_abs", "max_rel", "deviation", "through", "unproved")
        verified = {key: value for key, value in self.verified.to_dict().items() if key in keys}
        held: dict[str, object] = {
            "schema": SCHEMA,
            "onnxprune": self.version,
            "model": self.model,
            "output": self.output,
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "verified": verified,
            "latency": timing(self.latency),
            "fit": None if self.fit is None else self.fit.to_dict(),
            "importance_kept": self.kept,
            "recovery": None if self.recovery is None else self.recovery.to_dict(),
            "dead": None if self.dead is None else self.dead.to_dict(),
            "verdict": self.verdict,
            "gains": None if self.gains is None else self.gains.to_dict(),
            "accuracy": self.accuracy,
            "metric": self.metric,
            "data": self.data,
            "settings": self.settings,
            "groups": [asdict(g) for g in self.groups],
            "edges": [asdict(e) for e in self.edges],
            "frozen": [f.to_dict() for f in self.frozen],
            "isolated": [{"group": group, "reason": reason} for group, reason in self.isolated.items()],
            "removed": self.removed,
            "removed_per_group": self.removed_per_group,
            "copies": self.copies,
            "environment": self.environment,
        }
        return {key: plain(value) for key, value in held.items()}


def timing(comparison: Comparison | None) -> dict[str, object] | None:
    """A comparison as JSON; its environment stands once, at the top of the report."""
    if comparison is None:
        return None
    return {key: value for key, value in comparison.to_dict().items() if key != "environment"}


def plain(value: object) -> object:
    """The same value in JSON's own types: string keys, lists, Python numbers."""
    if isinstance(value, Mapping):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def make_report(
    dependencies: Dependencies,
    plan: Plan,
    removed: Ids,
    removal: Removal,
    verified: Equivalence,
    *,
    names: tuple[str, str] = ("", ""),
    isolated: Mapping[str, str] | None = None,
    scores: Scores | None = None,
) -> Report:
    """Put the results of all stages together; those of a timing may follow.

    Args:
        dependencies: The traced model.
        plan: What was to be removed.
        removed: The unit numbers that were.
        removal: The indices that went with them.
        verified: Whether masked == pruned.
        names: Input and output file.
        isolated: Group -> why it was left whole although the plan removed from it.
        scores: What the units were ranked by.
    """
    keep, held = dependencies.keep(np.asarray(removed, dtype=np.int64)), isolated or {}
    return Report(
        *(*names, version(), cost(dependencies)),
        after=cost(dependencies, keep),
        removed=removal.indices,
        removed_per_group=removal.per_block,
        copies=removal.copies,
        frozen=frozen_axes(dependencies, held),
        verified=verified,
        latency=None,
        settings=plan.settings,
        groups=group_reports(dependencies, plan, keep, scores),
        environment=software(),
        isolated=held,
        edges=edges(dependencies),
    )


def version() -> str:
    """The installed version of onnxprune."""
    try:
        return metadata.version("onnxprune")
    except metadata.PackageNotFoundError:  # run from a source tree that was never installed
        return "0+unknown"


def software() -> dict[str, object]:
    """What the surgery depends on, whether or not anything was timed."""
    return {"onnx": onnx.__version__, "numpy": np.__version__, "python": platform.python_version()}


def group_reports(
    dependencies: Dependencies, plan: Plan, keep: Mask, scores: Scores | None = None
) -> tuple[GroupReport, ...]:
    """Every group before and after; one that an edited plan leaves out is whole."""
    entries = {entry.name: entry for entry in plan.groups}
    before, after = (macs_by_node(dependencies, mask) for mask in (dense_mask(dependencies), keep))
    gone = np.zeros(dependencies.unit_count + len(dependencies.whole), dtype=bool)
    gone[np.unique(dependencies.unit[~keep])] = True
    found = []
    for group in dependencies.groups:
        note = entries[group.name].note if group.name in entries else "not in the plan"
        sizes = int(group.units.size), int((~gone[group.units]).sum())
        work = group_macs(group, before), group_macs(group, after)
        ranked = None
        if scores is not None:
            share = kept_share(dependencies, scores, group, keep)
            ranked = importance(group.units, scores.values, gone, share)
        found.append(GroupReport(group.name, describe(group.sources), nodes_of(group), *sizes, *work, note, ranked))
    return tuple(found)


def nodes_of(group: Group) -> tuple[str, ...]:
    """The node that reads each source of a group."""
    return tuple(s.node for s in group.sources)


def macs_by_node(dependencies: Dependencies, keep: Mask) -> dict[str, float]:
    """Multiply-accumulates of every contraction, for one sample."""
    found: dict[str, float] = {}
    for product in dependencies.products:
        found[product.node] = found.get(product.node, 0.0) + macs(product, keep)
    return found


def group_macs(group: Group, work: Mapping[str, float]) -> int:
    """Multiply-accumulates of the contractions whose filters belong to a group, each once."""
    return round(sum(work.get(node, 0.0) for node in set(nodes_of(group))))


def frozen_axes(dependencies: Dependencies, isolated: Mapping[str, str] | None = None) -> tuple[Frozen, ...]:
    """Every source axis that is held, whole or in part, once, in the order of the sources; and isolated groups'."""
    failed = {(s.tensor, s.axis): r for g, r in (isolated or {}).items() for s in sources_of(dependencies, g)}
    whole = {(s.tensor, s.axis): freeze for s, freeze in dependencies.held}
    where = places(dependencies.model)
    found = []
    for source in dependencies.sources:
        stays = int((dependencies.unit[source.ids] < 0).sum())
        if reason := failed.get((source.tensor, source.axis)):
            size = int(source.ids.size)
            found.append(Frozen(source.tensor, source.axis, source.node, reason, size, size))
        elif stays:
            freeze = whole.get((source.tensor, source.axis)) or part_reason(dependencies, source)
            node = freeze.node or where.get(freeze.tensor, source.node)
            found.append(Frozen(source.tensor, source.axis, node, freeze.reason, stays, int(source.ids.size)))
    return tuple(found)


def sources_of(dependencies: Dependencies, group: str) -> Sequence[Source]:
    """The sources of the group of that name."""
    return next(g.sources for g in dependencies.groups if g.name == group)


def part_reason(dependencies: Dependencies, source: Source) -> Freeze:
    """Why some filters of a source must stay: the reason met most often."""
    found = main_reason(source, dependencies.cause, dependencies.freezes)
    return found or Freeze(UNPRODUCED, source.node, source.tensor, source.axis)


def places(model: Model) -> dict[str, str]:
    """Tensor -> the node that writes it, or else the first that reads it."""
    nodes = list(every_node(model.proto.graph))
    written = {name: node_name(node) for node in nodes for name in node.output}
    read = {name: node_name(node) for node in reversed(nodes) for name in node.input}
    return read | written
