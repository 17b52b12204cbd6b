"""The plan file. Law: a plan read back removes exactly what it removed when it was written, or refuses the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import index
from pathlib import Path

import numpy as np

from onnxprune.errors import PlanError
from onnxprune.graph import every_node
from onnxprune.labels import Ids
from onnxprune.model import Model, write_atomic
from onnxprune.trace import Dependencies

SCHEMA = "onnxprune/plan/1"


@dataclass(frozen=True)
class GroupPlan:
    """What one group loses.

    Attributes:
        name: The group's name: its first source.
        sources: The weight axes whose filters are removed, as `tensor:axis`.
        channels: Units in the group before pruning.
        removed: Positions of the removed units in the group, ascending. In a group with one source these are the
            filter's own indices.
        note: What the planner has to say, e.g. that alignment left the group whole.
    """

    name: str
    sources: tuple[str, ...]
    channels: int
    removed: tuple[int, ...]
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """What to remove from one model. A readable, editable JSON file.

    Attributes:
        fingerprint: Identifies the graph it was made for (its structure, not its weights).
        settings: How it was made: target, criterion, allocation, alignment, limits.
        groups: One entry for every group, those that stay whole included.
    """

    fingerprint: str
    settings: Mapping[str, object]
    groups: tuple[GroupPlan, ...]

    @property
    def through_norms(self) -> bool:
        """Whether the groups are those of a trace through operators that mix an axis with itself."""
        return self.settings.get("through_norms") is True

    @property
    def dead(self) -> bool:
        """Whether the groups are those of a model whose biases have taken over the constants of its dead units."""
        return self.settings.get("dead") is True

    def removed(self, dependencies: Dependencies) -> Ids:
        """Unit numbers this plan removes from a model.

        Raises:
            PlanError: The plan was made for another model, or names groups or positions that do not exist.
        """
        found = fingerprint(dependencies.model)
        if found != self.fingerprint:
            what = f"the plan was made for another model (fingerprint {self.fingerprint}, this one has {found})"
            raise PlanError(what, remedy="make a new plan with 'onnxprune prune --plan-out'")
        if self.through_norms != dependencies.through_norms:
            what = "the plan was made with through_norms, the model traced without, or the other way round"
            raise PlanError(what, remedy="trace(model, through_norms=plan.through_norms)")
        groups = {g.name: g for g in dependencies.groups}
        parts = [np.zeros(0, dtype=np.int64)]
        for entry in self.groups:
            if entry.name not in groups:
                near = ", ".join(list(groups)[:3])
                raise PlanError(f"the plan names an unknown group '{entry.name}'", remedy=f"groups here: {near}, ...")
            parts.append(picked(groups[entry.name].units, entry))
        return np.unique(np.concatenate(parts))

    def to_json(self) -> str:
        """The plan as text, one group a line."""
        head = {"schema": SCHEMA, "fingerprint": self.fingerprint, "settings": dict(self.settings)}
        lines = ",\n    ".join(json.dumps(asdict(g)) for g in self.groups)
        return json.dumps(head, indent=2)[:-2] + f',\n  "groups": [\n    {lines}\n  ]\n}}\n'

    def save(self, path: Path) -> None:
        """Write the plan; the file appears whole or not at all."""
        write_atomic(path, self.to_json())

    @staticmethod
    def load(path: Path) -> Plan:
        """Read a plan file.

        Raises:
            PlanError: It is missing, is not JSON, or lacks a field.
        """
        try:
            return parse(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise PlanError(f"cannot be read ({reason})", where=str(path), remedy="check the path") from error
        except (KeyError, TypeError, ValueError) as error:
            what = f"is not an onnxprune plan ({error})"
            raise PlanError(what, where=str(path), remedy="write one with 'onnxprune prune --plan-out'") from error


def parse(raw: Mapping[str, object]) -> Plan:
    """A plan from parsed JSON.

    Raises:
        KeyError, TypeError, ValueError: It does not have the form of one.
    """
    if not isinstance(raw, dict) or raw["schema"] != SCHEMA:
        raise ValueError(f"schema is not {SCHEMA}")
    groups = tuple(
        GroupPlan(
            str(g["name"]),
            tuple(str(s) for s in g.get("sources", ())),
            index(g["channels"]),
            tuple(index(p) for p in g["removed"]),
            str(g.get("note", "")),
        )
        for g in raw["groups"]
    )
    return Plan(str(raw["fingerprint"]), dict(raw.get("settings", {})), groups)


def picked(units: Ids, entry: GroupPlan) -> Ids:
    """The units at a group plan's positions."""
    outside = [p for p in entry.removed if not 0 <= p < units.size]
    if outside:
        what = f"the plan removes position {outside[0]} of '{entry.name}', which has {units.size} channels"
        raise PlanError(what, remedy=f"use positions 0 to {units.size - 1}")
    return units[np.array(entry.removed, dtype=np.int64)]


def fingerprint(model: Model) -> str:
    """A short hash of a graph's structure: operators, names, attributes that are not tensors, and weight shapes."""
    digest = hashlib.sha256()
    for node in every_node(model.proto.graph):
        digest.update(repr((node.domain, node.op_type, list(node.input), list(node.output))).encode())
        for attribute in sorted(node.attribute, key=lambda a: a.name):
            if not (attribute.HasField("t") or attribute.HasField("g")):
                digest.update(attribute.SerializeToString(deterministic=True))
    for name in sorted(model.weights):
        digest.update(repr((name, model.weights[name].shape)).encode())
    return digest.hexdigest()[:16]


def describe(sources: Sequence[object]) -> tuple[str, ...]:
    """Sources as `tensor:axis`."""
    return tuple(f"{s.tensor}:{s.axis}" for s in sources)  # type: ignore[attr-defined]
