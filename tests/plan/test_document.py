"""Laws of the plan file: read back it removes what it removed before, edits are honoured, and it knows its model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxprune.errors import OutputError, PlanError
from onnxprune.importance import score
from onnxprune.plan import GroupPlan, Limits, Plan, Target, fingerprint, plan
from onnxprune.rewrite import rewrite
from onnxprune.trace import Dependencies
from tests import graphs


@pytest.fixture(scope="module")
def dependencies() -> Dependencies:
    return graphs.traced(graphs.residual())


@pytest.fixture
def made(dependencies: Dependencies) -> Plan:
    limits = Limits(align=2, skip=("stem",), layer_ratios=(("b1*", 0.5), ("b2*", 0.25)), max_ratio=0.8)
    return plan(dependencies, score(dependencies), Target(ratio=0.3), limits)


def edited(folder: Path, made: Plan, change: Callable[[Any], object]) -> Path:
    """The plan's file after someone changed its JSON."""
    raw = json.loads(made.to_json())
    change(raw)
    path = folder / "plan.json"
    path.write_text(json.dumps(raw), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", graphs.ALL)
def test_a_plan_read_back_removes_the_same(name: str, tmp_path: Path) -> None:
    found = graphs.traced(graphs.ALL[name]())
    made = plan(found, score(found), Target(ratio=0.4))
    made.save(tmp_path / "p.json")
    again = Plan.load(tmp_path / "p.json")
    assert again == made
    fresh = graphs.traced(graphs.ALL[name]())  # another process would trace anew
    np.testing.assert_array_equal(again.removed(fresh), made.removed(found))


def test_writing_what_was_read_gives_the_same_file(made: Plan, tmp_path: Path) -> None:
    made.save(tmp_path / "p.json")
    assert Plan.load(tmp_path / "p.json").to_json() == (tmp_path / "p.json").read_text(encoding="utf-8")


def test_the_file_is_one_group_a_line_for_people_to_edit(made: Plan) -> None:
    lines = made.to_json().splitlines()
    assert made.to_json().endswith("}\n")
    for group in made.groups:
        (line,) = [text for text in lines if f'"name": "{group.name}"' in text]
        assert json.loads(line.strip().rstrip(","))["removed"] == list(group.removed)


def test_names_in_any_script_survive(made: Plan, tmp_path: Path) -> None:
    odd = replace(made, groups=(GroupPlan('層/"1"\\w', ("a:0",), 3, (1,), "ein Wörtchen\n"),))
    odd.save(tmp_path / "p.json")
    assert Plan.load(tmp_path / "p.json").groups == odd.groups


def test_an_edited_plan_is_honoured(made: Plan, dependencies: Dependencies, tmp_path: Path) -> None:
    def change(raw: Any) -> None:
        for group in raw["groups"]:
            group["removed"] = [6, 1] if group["name"] == "a1.w" else []
            del group["note"], group["sources"]

    removed = Plan.load(edited(tmp_path, made, change)).removed(dependencies)
    pruned, dense = rewrite(dependencies, removed), dependencies.model
    np.testing.assert_array_equal(pruned.weights["a1.w"], np.delete(dense.weights["a1.w"], [1, 6], axis=0))
    np.testing.assert_array_equal(pruned.weights["a2.w"], np.delete(dense.weights["a2.w"], [1, 6], axis=1))
    assert pruned.weights["stem.w"] is dense.weights["stem.w"]


def test_groups_left_out_of_the_file_stay_whole(made: Plan, dependencies: Dependencies, tmp_path: Path) -> None:
    path = edited(tmp_path, made, lambda raw: raw["groups"].clear())
    assert Plan.load(path).removed(dependencies).size == 0


def test_positions_named_twice_count_once(made: Plan, dependencies: Dependencies, tmp_path: Path) -> None:
    path = edited(tmp_path, made, lambda raw: raw["groups"].__setitem__(slice(None), 2 * raw["groups"]))
    np.testing.assert_array_equal(Plan.load(path).removed(dependencies), made.removed(dependencies))


# --- the fingerprint -------------------------------------------------------------------------------------------------


def changed(change: Callable[[onnx.GraphProto], object]) -> Dependencies:
    proto = graphs.residual()
    change(proto.graph)
    return graphs.traced(proto)


OTHERS: dict[str, Callable[[], Dependencies]] = {
    "another network": lambda: graphs.traced(graphs.chain()),
    "a renamed tensor": lambda: changed(
        lambda g: (g.node[-1].output.__setitem__(0, "z"), setattr(g.output[0], "name", "z"))
    ),
    "another activation": lambda: changed(lambda g: setattr(g.node[2], "op_type", "Sigmoid")),
    "a shortcut less": lambda: changed(lambda g: g.node[8].input.__setitem__(1, "a2.bn")),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_plan_for_another_model_is_refused(name: str, made: Plan) -> None:
    other = OTHERS[name]()
    with pytest.raises(PlanError, match=f"made for another model .fingerprint {made.fingerprint}.*--plan-out"):
        made.removed(other)


def test_a_plan_for_other_widths_is_refused() -> None:
    narrow, wide = (graphs.traced(graphs.chain(width=w)) for w in (16, 17))
    made = plan(narrow, score(narrow), Target(ratio=0.3))
    with pytest.raises(PlanError, match="made for another model"):
        made.removed(wide)


def test_a_plan_fits_the_same_network_trained_differently(made: Plan, dependencies: Dependencies) -> None:
    other = graphs.traced(graphs.residual(seed=99))
    np.testing.assert_array_equal(made.removed(other), made.removed(dependencies))


def test_the_fingerprint_sees_attributes(dependencies: Dependencies) -> None:
    """Sizes and groups decide which channels belong together."""
    found = {fingerprint(dependencies.model)}
    for node, name, value in ((0, "strides", [2, 2]), (0, "pads", [2, 2, 0, 0])):
        proto = graphs.residual()
        for attribute in proto.graph.node[node].attribute:
            if attribute.name == name:
                attribute.CopyFrom(onnx.helper.make_attribute(name, value))
        found.add(fingerprint(graphs.loaded(proto)))
    assert len(found) == 3


# --- files that are no plans -----------------------------------------------------------------------------------------

MALFORMED: dict[str, Callable[[Any], object]] = {
    "no schema": lambda raw: raw.pop("schema"),
    "another schema": lambda raw: raw.update(schema="onnxprune/plan/999"),
    "no fingerprint": lambda raw: raw.pop("fingerprint"),
    "no groups": lambda raw: raw.pop("groups"),
    "groups are null": lambda raw: raw.update(groups=None),
    "groups are names": lambda raw: raw.update(groups=["a1.w"]),
    "a group without a name": lambda raw: raw["groups"][0].pop("name"),
    "a group without channels": lambda raw: raw["groups"][0].pop("channels"),
    "a group without removals": lambda raw: raw["groups"][0].pop("removed"),
    "removed is a number": lambda raw: raw["groups"][0].update(removed=3),
    "removed is text": lambda raw: raw["groups"][0].update(removed="12"),
    "a fractional position": lambda raw: raw["groups"][0].update(removed=[1.5]),
    "a position in words": lambda raw: raw["groups"][0].update(removed=["one"]),
    "settings are a list": lambda raw: raw.update(settings=[1]),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_json_that_is_no_plan_is_refused(name: str, made: Plan, tmp_path: Path) -> None:
    path = edited(tmp_path, made, MALFORMED[name])
    with pytest.raises(PlanError, match=r"is not an onnxprune plan.*--plan-out") as caught:
        Plan.load(path)
    assert str(path) in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"7", b"null", b'"plan"', b"\xff\xfe{}", b"{}"])
def test_text_that_is_no_plan_is_refused(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_bytes(text)
    with pytest.raises(PlanError, match=r"p\.json"):
        Plan.load(tmp_path / "p.json")


def test_a_missing_plan_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(PlanError, match=r"cannot be read.*check the path") as caught:
            Plan.load(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("position", [-1, 8, 1000])
def test_positions_outside_a_group_are_refused(
    position: int, made: Plan, dependencies: Dependencies, tmp_path: Path
) -> None:
    def change(raw: Any) -> None:
        next(g for g in raw["groups"] if g["name"] == "a1.w")["removed"] = [0, position]

    with pytest.raises(PlanError, match=rf"position {position} of 'a1\.w', which has 8 channels; use positions 0 to 7"):
        Plan.load(edited(tmp_path, made, change)).removed(dependencies)


def test_an_unknown_group_is_refused(made: Plan, dependencies: Dependencies, tmp_path: Path) -> None:
    path = edited(tmp_path, made, lambda raw: raw["groups"][0].update(name="head.w"))
    with pytest.raises(PlanError, match=r"unknown group 'head\.w'; groups here: stem\.w"):
        Plan.load(path).removed(dependencies)


@pytest.mark.parametrize("place", ["absent/p.json", "file/p.json"])
def test_a_plan_that_cannot_be_written_leaves_nothing(place: str, made: Plan, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((OutputError, OSError)):
        made.save(tmp_path / place)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
