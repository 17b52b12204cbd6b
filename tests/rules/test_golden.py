"""What every case is traced to, one line each: a change of a rule shows as a difference in `golden/FAMILY.txt`.

`ONNXPRUNE_GOLDEN=write pytest tests/rules/test_golden.py` writes the files anew. A line reads

    name | group: units (sources) rows | tensor:axis=units ... | tensor: reason; ...

Units are written 0-3 for 0 1 2 3, 5x4 for 5 5 5 5, and . for an index that stays. Rows are separated by /. A tensor
whose labels are those of the one before it is left out, and so is the reason that every case has: the model's output.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

from onnxprune.labels import Ids
from onnxprune.trace import Dependencies, Family, Group, trace
from tests.rules.cases import CASES, FAMILIES, Case

GOLDEN = Path(__file__).with_name("golden")


def render(case: Case) -> str:
    dependencies = trace(case.model(), through_norms=case.through)
    parts = [map(group_text, dependencies.groups), labels_text(dependencies), reasons_text(dependencies)]
    return " | ".join([case.name, *("; ".join(part) for part in parts)]).rstrip(" |")


def group_text(group: Group) -> str:
    sources = ", ".join(f"{s.tensor}:{s.axis}" for s in group.sources)
    return f"{group.name}: {units_text(group.units)} ({sources}){''.join(map(rows_text, group.rows))}"


def rows_text(family: Family) -> str:
    same, whole = (
        " same" if family.same else "",
        f" of {units_text(family.parents)}" if family.parents.max() >= 0 else "",
    )
    return f"{same} rows {'/'.join(map(units_text, family.members))}{whole}"


def labels_text(dependencies: Dependencies) -> Iterator[str]:
    last = ""
    for name in [o for node in dependencies.model.proto.graph.node for o in node.output if o]:
        axes = dependencies.labels.get(name) or ()
        live = [(k, a, dependencies.unit[a.ids]) for k, a in enumerate(axes) if a.ids is not None]
        shown = [
            f"{k}{''.join(f'/{b}' for b in a.by)}=" + " / ".join(map(units_text, units.reshape(-1, units.shape[-1])))
            for k, a, units in live
            if (units >= 0).any()
        ]
        if shown and " ".join(shown) != last:
            yield f"{name}:{' '.join(shown)}"
            last = " ".join(shown)


def reasons_text(dependencies: Dependencies) -> Iterator[str]:
    for freeze in dict.fromkeys(f for _, f in dependencies.held if f.reason != "the model's output"):
        yield f"{freeze.tensor or freeze.node}: {freeze.reason}"


def units_text(units: Ids) -> str:
    """Units as runs: 0-3, 5x4, or a dot for what stays."""
    words: list[str] = []
    values = [(int(u), sum(1 for _ in run)) for u, run in groupby(units.tolist())]
    for _, run in groupby(enumerate(values), key=lambda e: (e[1][0] - e[0], e[1][1] == 1, e[1][0] < 0)):
        found = [value for _, value in run]
        (first, times), (last, _) = found[0], found[-1]
        if first < 0:
            words.append("." if times == 1 else f".x{times}")
        elif times == 1:
            words.append(f"{first}" if first == last else f"{first}-{last}")
        else:
            words += [f"{unit}x{n}" for unit, n in found]
    return " ".join(words)


def lines_of(family: str) -> dict[str, str]:
    """The lines of one file, by case."""
    lines = (GOLDEN / f"{family}.txt").read_text(encoding="utf-8").splitlines()
    return {line.split(" | ")[0]: line for line in lines}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_file_has_every_case(family: str) -> None:
    if os.environ.get("ONNXPRUNE_GOLDEN") == "write":
        text = "".join(f"{render(CASES[name])}\n" for name in FAMILIES[family])
        (GOLDEN / f"{family}.txt").write_text(text, encoding="utf-8")
    assert list(lines_of(family)) == FAMILIES[family]


@pytest.mark.parametrize(("family", "name"), [(f, n) for f, names in FAMILIES.items() for n in names])
def test_golden(family: str, name: str) -> None:
    assert render(CASES[name]) == lines_of(family).get(name)
