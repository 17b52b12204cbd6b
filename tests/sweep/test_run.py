"""Laws of a sweep: what is finished is not done again, what fails is a row, and who works changes no file."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxprune import pipeline
from onnxprune.align import Step
from onnxprune.errors import OnnxpruneError, RuntimeUnavailable
from onnxprune.runtime import random_feeds
from onnxprune.sweep import Pool, Settings, Sweep, candidates, pool, sweep, work
from tests import graphs
from tests.contract import Result, check_report, onnxprune, process, snapshot, stored
from tests.report.pages import Page
from tests.report.runs import timed

RATIOS = candidates({"ratio": (0.2, 0.4, 0.6)})
FIXED = pipeline.Options(align=1)
ALONE = Settings(Pool("loky", 1), time=False)
SCRIPT = """
import numpy as np
def evaluate(run):
    return float(np.abs(run({"x": np.ones((1, 3, 8, 8), "f")})["y"]).sum())
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return stored(graphs.residual(), tmp_path)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each kind of work is done."""
    found: Counter[str] = Counter()

    def counted(name: str, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            found[name] += 1
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(pipeline.plans, "plan", counted("plan", pipeline.plans.plan))
    monkeypatch.setattr(pipeline.run, "load", counted("load", pipeline.run.load))
    monkeypatch.setattr(pipeline.inputs, "bench", counted("bench", lambda *_, **__: timed(1.5)))
    monkeypatch.setattr(work, "fidelity", counted("fidelity", work.fidelity))
    work.opened.cache_clear()
    return found


def run(model: Path, settings: Settings = ALONE, wanted: Any = RATIOS, **options: Any) -> Sweep:
    return sweep(model, model.with_name("out"), wanted, None, pipeline.Options(**{"align": 1, **options}), settings)


def command(model: Path, *options: object) -> Result:
    """A quick sweep; options given later win."""
    common = ["-o", model.with_name("out"), "--align", "1", "--no-bench", "--jobs", "1", "--ratios", "0.2,0.6"]
    return onnxprune("sweep", model, *common, *options)


def test_every_candidate_leaves_a_model_a_plan_and_a_report(model: Path, calls: Counter[str]) -> None:
    found, folder = run(model, Settings(Pool(jobs=1))), model.with_name("out")
    assert calls == {"plan": 3, "load": 1, "bench": 3, "fidelity": 3}
    for candidate in RATIOS:
        onnx.checker.check_model(onnx.load(folder / f"{candidate.label}.onnx"))
        check_report(json.loads((folder / f"{candidate.label}.json").read_text()))
        assert (folder / f"{candidate.label}.plan.json").is_file()
    points = found.front.points
    assert [p.label for p in points] == ["dense", "ratio-0.2", "ratio-0.4", "ratio-0.6"]
    assert all(p.speedup and p.ci95 and p.fidelity is not None and p.agreement is not None for p in points[1:])
    assert [p.macs for p in points] == sorted((p.macs for p in points), reverse=True)
    details = json.loads((folder / "sweep.json").read_text())
    assert details == found.details and details["points"][1]["latency"]["samples"]["before"]
    rows = list(csv.DictReader((folder / "sweep.csv").read_text().splitlines()))
    assert [row["label"] for row in rows] == [p.label for p in points]
    assert [row["on_front"] == "1" for row in rows] == [p.on_front for p in points]
    assert (folder / "sweep.md").read_text().count("\n| ") == 6


def test_a_finished_sweep_does_nothing_and_says_so(model: Path, calls: Counter[str]) -> None:
    first = run(model, Settings(Pool(jobs=1)))
    before, _ = snapshot(model.with_name("out")), calls.clear()
    again = run(model, Settings(Pool(jobs=1)))
    assert not calls.keys() - {"load"} and (first.done, first.reused) == (9, 0) and (again.done, again.reused) == (0, 9)
    assert snapshot(model.with_name("out")) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_stopped_sweep_goes_on_where_it_was(
    error: BaseException, model: Path, calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = pipeline.plans.plan

    def third(*args: Any, **kwargs: Any) -> Any:
        if calls["plan"] == 2:
            raise error
        return plan(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(type(error)):
        patch.setattr(pipeline.plans, "plan", third)
        run(model)
    assert calls["plan"] == 2 and calls["fidelity"] == 2
    calls.clear()
    monkeypatch.setattr(pipeline.plans, "plan", third)
    found = run(model)
    assert calls["plan"] == 1 and calls["fidelity"] == 1 and (found.done, found.reused) == (2, 4)


def test_ctrl_c_exits_130_and_cleans_up(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        (model.with_name("out") / ".ratio-0.2.onnx.abc.tmp").write_text("half")  # a worker that was killed
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline.plans, "plan", stopped)
    found = command(model)
    assert found.code == 130 and "interrupted" in found.err and not found.out
    assert not list(model.with_name("out").rglob(".*"))
    monkeypatch.undo()
    assert command(model).code == 0


def test_files_that_were_changed_or_removed_are_made_again(model: Path, calls: Counter[str]) -> None:
    run(model)
    before, folder = snapshot(model.with_name("out")), model.with_name("out")
    (folder / "ratio-0.2.onnx").unlink()
    (folder / "ratio-0.4.plan.json").write_text("{}")
    calls.clear()
    run(model)
    assert calls["plan"] == 2 and snapshot(folder) == before


def test_a_folder_belongs_to_one_model_and_its_options(model: Path, calls: Counter[str]) -> None:
    run(model)
    before = snapshot(model.with_name("out"))
    for options in ({"seed": 1}, {"align": 4}, {"criterion": "l2"}):
        with pytest.raises(OnnxpruneError, match=r"other options; .*--overwrite"):
            run(model, **options)
    onnx.save(graphs.residual(seed=5), model)
    with pytest.raises(OnnxpruneError, match="another model"):
        run(model)
    assert snapshot(model.with_name("out")) == before
    calls.clear()
    stranger = model.with_name("out") / "notes.txt"
    stranger.write_text("mine")
    run(model, Settings(Pool(jobs=1), time=False, overwrite=True), RATIOS[:1])
    assert calls["plan"] == 1 and stranger.read_text() == "mine"
    assert not (model.with_name("out") / "ratio-0.4.onnx").exists()


def test_candidates_can_be_added(model: Path, calls: Counter[str]) -> None:
    run(model, wanted=RATIOS[:2])
    calls.clear()
    assert len(run(model, wanted=RATIOS).front.points) == 4 and calls["plan"] == 1


def test_strange_files_are_not_written_over(model: Path) -> None:
    model.with_name("out").mkdir()
    (model.with_name("out") / "ratio-0.2.onnx").write_text("mine")
    before = snapshot(model.with_name("out"))
    found = command(model)
    assert found.code == 1 and "in the way" in found.err and snapshot(model.with_name("out")) == before
    assert command(model, "--overwrite").code == 0


def test_a_candidate_that_fails_is_a_row(model: Path, calls: Counter[str]) -> None:
    wanted = candidates({"params": (0.0001, 0.5)})
    found = run(model, wanted=wanted)
    failed = found.front.points[1]
    assert failed.note and failed.bytes is None and not failed.on_front and found.front.points[2].bytes
    assert failed.note.split(";")[0] in (model.with_name("out") / "sweep.md").read_text()
    calls.clear()
    assert run(model, wanted=wanted).front.points[1].note == failed.note and not calls["plan"]
    alone = onnxprune("sweep", model, "-o", model.with_name("o"), "--align", "1", "--no-bench", "--params", "0.0001")
    assert alone.code == 1 and "not one of 1 candidate could be made" in alone.err and alone.err.count("\n") == 1


def test_an_unforeseen_error_is_a_row_that_is_tried_again(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite = work.pipeline.run.make_report
    monkeypatch.setattr(
        pipeline.run, "make_report", lambda *a, **k: 1 / 0 if "0.2" in str(k["names"]) else rewrite(*a, **k)
    )
    assert "internal error, ZeroDivisionError" in run(model).front.points[1].note
    monkeypatch.undo()
    assert not run(model).front.points[1].note


def test_the_metric_takes_the_place_of_fidelity_and_is_redone_when_the_script_changes(
    model: Path, calls: Counter[str]
) -> None:
    script = model.with_name("script.py")
    script.write_text(SCRIPT)
    settings = Settings(Pool(jobs=1), script, time=False)
    found = run(model, settings, RATIOS[:1])
    assert found.front.objectives == ("bytes", "metric") and all(p.metric for p in found.front.points)
    script.write_text(SCRIPT.replace("return ", "return 2 * "))
    calls.clear()
    again = run(model, settings, RATIOS[:1])
    assert not calls["plan"] and not calls["fidelity"]
    expected = [2 * (p.metric or 0) for p in found.front.points]
    assert [p.metric for p in again.front.points] == pytest.approx(expected)


def test_a_broken_script_stops_the_sweep_before_it_begins(model: Path, calls: Counter[str]) -> None:
    script = model.with_name("script.py")
    script.write_text("def evaluat(run): return 1\n")
    found = command(model, "--eval", script)
    assert found.code == 1 and "'evaluate'" in found.err and "script.py" in found.err and not calls["plan"]
    assert command(model, "--eval", script.with_name("absent.py")).code == 1


def test_who_works_changes_no_file(model: Path) -> None:
    left = {}
    for backend, jobs in (("loky", 1), ("loky", 2), ("threading", 2)):
        run(model, Settings(Pool(backend, jobs), time=False, overwrite=True))
        left[backend, jobs] = snapshot(model.with_name("out"))
    first = left["loky", 1]
    assert len(first) == 3 * 3 + 3 + 1 + 3 * 2 and all(files == first for files in left.values())


def test_a_dask_cluster_makes_the_same_files(model: Path) -> None:
    pytest.importorskip("distributed")
    run(model)
    before = snapshot(model.with_name("out"))
    common = ["--align", "1", "--no-bench", "--ratios", "0.2,0.4,0.6", "--backend", "dask", "--jobs", "1"]
    # A process of its own: dask warns of things that these tests would turn into errors.
    found = process("sweep", model, "-o", model.with_name("out"), *common, "--overwrite")
    assert (found.code, found.err) == (0, "") and snapshot(model.with_name("out")) == before


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_a_missing_backend_names_its_extra(backend: str, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, backend, None)
    found = command(model, "--backend", backend)
    assert found.code == 1 and f"pip install 'onnxprune[{backend}]'" in found.err and found.err.count("\n") == 1
    assert not model.with_name("out").exists()


def test_backends_are_checked() -> None:
    with pytest.raises(OnnxpruneError, match="unknown backend 'mpi'"):
        Pool("mpi")
    with pytest.raises(OnnxpruneError, match="no scheduler"):
        Pool("loky", scheduler="tcp://10.0.0.1:8786")
    pytest.importorskip("distributed")
    with pytest.raises(RuntimeUnavailable, match="no-such-scheme"):
        list(pool.spread(Pool("dask", scheduler="no-such-scheme://x:1"), abs, [1]))


def test_a_worker_that_sees_other_files_or_versions_is_refused(model: Path) -> None:
    key = work.Folder(model.with_name("elsewhere"), "key")
    job = work.Job(model, key, RATIOS[0], work.Limits(), FIXED, None, work.version())
    with pytest.raises(OnnxpruneError, match="disk that all share"):
        work.work(job)
    with pytest.raises(OnnxpruneError, match="same version on every worker"):
        work.work(work.replace(job, version="0.0.0"))


def test_the_width_step_is_measured_once_and_not_by_workers(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def measured(**_: object) -> Step:
        asked.append(1)
        return Step(4, (), (), "measured")

    monkeypatch.setattr("onnxprune.sweep.run.width_step", measured)
    for _ in range(2):
        assert run(model, align=None).details["options"]["step"] == 4
    assert asked == [1]


@pytest.mark.parametrize(
    "options", [["--ratios", "half"], ["--macs", "0.1:0.9"], ["--ratios", "0.5:1.5:0.5"], ["--jobs", "0"]]
)
def test_wrong_usage_exits_2(options: list[str], model: Path) -> None:
    found = onnxprune("sweep", model, "-o", model.with_name("out"), *options)
    assert found.code == 2 and options[0] in found.words and not model.with_name("out").exists()


def test_the_command_prints_the_front_or_json(model: Path) -> None:
    found = command(model)
    assert found.code == 0 and not found.err and "ratio-0.6" in found.words and "on the front" in found.words
    again = command(model, "--json")
    assert again.json["schema"] == "onnxprune/sweep/1" and "resumed: 4 steps" in again.err
    assert again.json["front"] == [p["label"] for p in again.json["points"] if p["on_front"]]


def test_the_front_as_a_page_holds_what_the_json_does(model: Path) -> None:
    page = model.with_name("front.html")
    found = command(model, "--html", page, "--json")
    held = Page(page.read_text(encoding="utf-8")).unpacked("report")
    assert found.code == 0 and [p["label"] for p in held["points"]] == [p["label"] for p in found.json["points"]]


def test_a_page_may_not_be_the_folder_itself(model: Path) -> None:
    folder = model.with_name("out.html")
    found = onnxprune("sweep", model, "-o", folder, "--html", folder, "--no-bench")
    assert found.code == 1 and not folder.exists()


def test_a_page_may_not_replace_the_model(model: Path) -> None:
    before = snapshot(model.parent)
    assert command(model, "--html", model).code == 1 and snapshot(model.parent) == before


def test_a_page_may_lie_in_the_folder_that_the_sweep_makes(model: Path) -> None:
    page = model.with_name("out") / "front.html"
    found = command(model, "--html", page)
    assert found.code == 0 and page.is_file() and "front.html" in "".join(found.out.split())
    assert command(model, "--html", page).code == 0, "and be made anew"


@pytest.mark.parametrize("name", ["sweep.json", "ratio-0.6.onnx", "stages/sweep.json", "stages/dense.metric.json"])
def test_a_page_may_not_replace_a_file_of_the_sweep(name: str, model: Path) -> None:
    assert command(model).code == 0
    before = snapshot(model.with_name("out"))
    found = command(model, "--html", model.with_name("out") / name)
    assert found.code == 1 and "end its name in .html" in found.words + found.err
    assert snapshot(model.with_name("out")) == before


def test_the_sensitivity_is_measured_once_for_all_candidates(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(model.with_name("cache")))
    feeds = dict(random_feeds(graphs.loaded(graphs.residual()), batch=16, seed=1))
    np.savez(model.with_name("x.npz"), **feeds)
    calls, analyse = [], pipeline.curves.analyse
    monkeypatch.setattr(pipeline.curves, "analyse", lambda *a, **k: calls.append(1) or analyse(*a, **k))
    wanted = candidates({"macs": (0.5, 0.8)})
    options = {"criterion": "l1", "allocate": "sensitivity", "data": model.with_name("x.npz"), "recover": False}
    found = run(model, wanted=wanted, **options)
    assert len(calls) == 1 and all(p.macs and p.macs <= 0.8 for p in found.front.points[1:])
    with pytest.raises(OnnxpruneError, match="unknown allocation"):
        run(model, wanted=wanted, allocate="fairly")


def test_gradients_are_those_of_every_candidate_and_of_the_folder(model: Path) -> None:
    def given(seed: int) -> None:
        rng, tensors = np.random.default_rng(seed), onnx.load(model).graph.initializer
        np.savez(model.with_name("g.npz"), **{t.name: rng.normal(size=t.dims).astype(np.float32) for t in tensors})

    options = ["--ratios", "0.4", "--criterion", "taylor", "--gradients", model.with_name("g.npz")]
    given(1)
    found = command(model, *options)
    assert found.code == 0, found.err
    plan = json.loads(model.with_name("out").joinpath("ratio-0.4.plan.json").read_text())
    assert plan["settings"]["criterion"] == "taylor"
    given(2)
    refused = command(model, *options)
    assert refused.code == 1 and "other options" in refused.err
    lacking = command(model, *options[:-1], model.with_name("none.npz"))
    assert lacking.code == 1 and "the .npz of --gradients is not a file" in lacking.err
