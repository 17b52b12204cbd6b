"""What a report says of dead units. Law: every unit that was found dead is counted, whether it went or had to stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from onnxprune.dead import Dead
from onnxprune.labels import Ids
from onnxprune.lossless import causes
from onnxprune.report import words
from onnxprune.verify import Equivalence


@dataclass(frozen=True)
class DeadGroup:
    """The dead units of one group: how many, how many of them went, and why they are dead (cause -> units)."""

    name: str
    dead: int
    removed: int
    causes: Mapping[str, int]


@dataclass(frozen=True)
class DeadReport:
    """The dead units of a model.

    Attributes:
        groups: The groups that have any.
        padded: Units that are constant, and stay because no bias can take them over.
        lossless: How closely the outputs agreed with the original's; None where more than dead units went.
    """

    groups: tuple[DeadGroup, ...]
    padded: int
    lossless: Equivalence | None

    @property
    def dead(self) -> int:
        """Units that are dead."""
        return sum(g.dead for g in self.groups)

    @property
    def removed(self) -> int:
        """Units of those that went."""
        return sum(g.removed for g in self.groups)

    def to_dict(self) -> dict[str, object]:
        """As plain values, for JSON."""
        same = None if self.lossless is None else self.lossless.to_dict()
        counts = {"dead": self.dead, "removed": self.removed, "padded": self.padded}
        return {**counts, "groups": [asdict(g) for g in self.groups], "lossless": same}

    def facts(self) -> list[tuple[str, str]]:
        """Name and line of what there is to say."""
        totals: dict[str, int] = {}
        for group in self.groups:
            for cause, n in group.causes.items():
                totals[cause] = totals.get(cause, 0) + n
        found = [("dead units", f"{self.removed:,} of {self.dead:,} removed ({causes(totals)})" if totals else "none")]
        if self.padded:
            found.append(
                ("constant", f"{self.padded:,} more hold one number, and stay: padding or no bias is in the way")
            )
        if self.lossless is not None:
            found.append(("lossless", f"same outputs as the original on {words.agreement(self.lossless)}"))
        return found


def dead_report(found: Dead, removed: Ids, lossless: Equivalence | None) -> DeadReport:
    """Put together what there is to say.

    Args:
        found: The dead units.
        removed: Unit numbers that were removed.
        lossless: The comparison with the original, if only dead units went.
    """
    groups = []
    gone = set(removed.tolist())
    for group in found.dependencies.groups:
        mine = [u for u in group.units.tolist() if found.mask[u]]
        if mine:
            groups.append(DeadGroup(group.name, len(mine), len(gone & set(mine)), dict(found.counts_of(group.units))))
    return DeadReport(tuple(groups), found.padded, lossless)
