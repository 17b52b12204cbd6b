"""The command line. Law: what the contract names is there, prints what it promises, and ends with the right code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from onnxprune import pipeline
from onnxprune.bench import bench
from onnxprune.cli import commands
from onnxprune.errors import RuntimeUnavailable
from onnxprune.importance import CRITERIA
from onnxprune.plan import Plan
from tests import graphs
from tests.contract import check_removed, check_report, environment, onnxprune, process, prune, snapshot, stored

SYNOPSIS = {
    "prune": "IN.onnx --output -o OUT.onnx --ratio --macs --params --criterion --allocate --sensitivity S.json "
    "--steps --align auto|N --max-ratio "
    "--skip GLOB --layer-ratio GLOB=R --data PATH --preprocess HOW --gradients G.npz --threshold "
    "--eval SCRIPT.py --recover --no-recover --samples --seed --threads --plan-out P.json "
    "--report R.json --dead --no-bench --through-norms --force --overwrite --strict --ep --html R.html --speedup S "
    "--latency-ms T --best-effort --recovery --memory GIB --json",
    "apply": "IN.onnx P.json --output -o OUT.onnx --data PATH --preprocess HOW --eval SCRIPT.py --recover "
    "--no-recover --samples --force --strict --ep "
    "--recovery --memory GIB --html R.html",
    "inspect": "IN.onnx --why NAME --through-norms --json",
    "bench": "A.onnx B.onnx --batch --threads --ep cpu|cuda|tensorrt --processes --quick --batches --fp16 --profile "
    "--json",
    "profile": "IN.onnx --output -o T.json --ep --threads --batch --align --through-norms --fresh --json",
    "ops": "--markdown",
    "criteria": "--markdown",
    "sweep": "IN.onnx --output -o DIR --ratios --macs --params --speedups --criterion --allocate --sensitivity S.json "
    "--steps --align auto|N "
    "--max-ratio --skip GLOB --layer-ratio GLOB=R --rows --data PATH --gradients G.npz --preprocess HOW --recover "
    "--no-recover --recovery --samples --memory GIB --seed --threads --through-norms --strict "
    "--eval SCRIPT.py --no-bench --jobs --backend NAME (loky) (threading) dask ray --scheduler ADDRESS --overwrite "
    "--html R.html --json",
    "sensitivity": "IN.onnx --data PATH --preprocess HOW --output -o S.json --labels NAME "
    "--eval SCRIPT.py --ratios --criterion --gradients G.npz --macs "
    "--samples --rows --seed --threads --through-norms --fresh --picture S.svg --html R.html --json",
    "demo": "--output",
}
DEFAULTS = {
    "prune": [
        "default is 0.3",
        "default: auto",
        "default: 1024",
        "default: 0",
        "default: 1",
        "random",
    ],
    "apply": ["default: 0", "default: 1", "random"],
    "inspect": [],
    "bench": ["default: cpu", "default: 1"],
    "profile": ["default: cpu", "default: auto", "default: 1"],
    "ops": [],
    "criteria": [],
    "sweep": ["0.1:0.9:0.1", "default: loky", "default: auto", "disk that all machines share"],
    "sensitivity": ["0.1:0.9:0.1", "default: 0.5", "default: 1024"],
    "demo": ["default: onnxprune-demo"],
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return stored(graphs.residual(), tmp_path)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time for as short as the rules of the benchmark allow."""
    monkeypatch.setattr(pipeline.inputs, "bench", partial(bench, budget_s=0.01))
    monkeypatch.setattr(commands, "time_models", partial(bench, budget_s=0.01))


@pytest.mark.parametrize("command", SYNOPSIS)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_shows_every_option_of_the_synopsis_and_the_defaults(command: str, flag: str) -> None:
    found = onnxprune(command, flag)
    assert found.code == 0 and not found.err
    shown = found.words.split()
    assert [word for word in SYNOPSIS[command].split() if not any(word in s for s in shown)] == []
    assert [default for default in DEFAULTS[command] if default not in found.words] == []


def test_help_of_the_program_lists_every_command_and_how_to_start() -> None:
    found = onnxprune("--help")
    assert found.code == 0 and "Start with: onnxprune demo" in found.words
    for word in (*SYNOPSIS, "--version", "--install-completion", "--show-completion"):
        assert word in found.words


def test_no_arguments_print_the_help() -> None:
    found = onnxprune()
    assert found.code == 2 and "prune" in found.words and "Usage" in found.words


def test_version() -> None:
    found = onnxprune("--version")
    assert (found.code, found.err) == (0, "") and found.out.startswith("onnxprune ") and found.out.count("\n") == 1


USAGE = {
    "an unknown command": ["frobnicate"],
    "an unknown option": ["prune", "m.onnx", "-o", "s.onnx", "--rate", "0.3"],
    "no output": ["prune", "m.onnx"],
    "no input": ["prune", "-o", "s.onnx"],
    "a ratio in words": ["prune", "m.onnx", "-o", "s.onnx", "--ratio", "half"],
    "no threads": ["prune", "m.onnx", "-o", "s.onnx", "--threads", "0"],
    "a negative seed": ["prune", "m.onnx", "-o", "s.onnx", "--seed", "-1"],
    "alignment 0": ["prune", "m.onnx", "-o", "s.onnx", "--align", "0"],
    "an alignment in words": ["prune", "m.onnx", "-o", "s.onnx", "--align", "eight"],
    "a layer ratio without a ratio": ["prune", "m.onnx", "-o", "s.onnx", "--layer-ratio", "conv1"],
    "a layer ratio without a glob": ["prune", "m.onnx", "-o", "s.onnx", "--layer-ratio", "=0.5"],
    "no plan": ["apply", "m.onnx", "-o", "s.onnx"],
    "one model to compare": ["bench", "m.onnx"],
    "a batch size in words": ["bench", "m.onnx", "s.onnx", "--batches", "1,many"],
    "no processes": ["bench", "m.onnx", "s.onnx", "--processes", "0"],
    "no batch": ["bench", "m.onnx", "s.onnx", "--batch", "0"],
}


@pytest.mark.parametrize("name", USAGE)
def test_wrong_usage_exits_2_and_points_to_the_help(name: str) -> None:
    found = onnxprune(*USAGE[name])
    assert found.code == 2 and not found.out
    assert "Usage: " in found.words and "-h' for help" in found.words and "Traceback" not in found.err


def test_json_is_the_report_and_nothing_else(model: Path) -> None:
    report = model.with_name("report.json")
    found = onnxprune(*prune(model, "--json", "--report", report))
    assert found.code == 0 and not found.err
    check_report(found.json)
    assert json.loads(report.read_text()) == found.json
    check_removed(found.json, model, model.with_name("small.onnx"))


def test_the_table_names_groups_and_what_cannot_be_pruned(model: Path) -> None:
    found = onnxprune(*prune(model))
    assert found.code == 0 and not found.err
    for word in ("stem.w", "b1.w", "verified", "Cannot be pruned", "the model's output"):
        assert word in found.words


def test_a_report_named_md_is_markdown(model: Path) -> None:
    assert onnxprune(*prune(model, "--report", model.with_name("report.md"))).code == 0
    text = model.with_name("report.md").read_text(encoding="utf-8")
    assert text.startswith("#") and "\n|" in text and "stem.w" in text and "the model's output" in text


def test_latency_is_measured_unless_told_not_to(model: Path, quick: None) -> None:
    found = onnxprune(
        "prune", model, "-o", model.with_name("small.onnx"), "--align", "1", "--json", "--threads", "2", "--force"
    )
    assert found.code == 0
    check_report(found.json, timed=True)
    latency = found.json["latency"]
    assert {"before_ms", "after_ms", "speedup", "ci95", "control"} <= latency.keys()
    assert latency["before_ms"] > 0 < latency["after_ms"] and latency["threads"] == 2
    low, high = latency["ci95"]
    assert low <= latency["speedup"] <= high


def test_bench_prints_a_table_or_json(model: Path, quick: None) -> None:
    assert onnxprune(*prune(model, "--ratio", "0.5")).code == 0
    pair = model, model.with_name("small.onnx")
    found = onnxprune("bench", *pair, "--quick", "--json", "--batch", "3", "--ep", "CPU")
    assert found.code == 0 and not found.err
    assert found.json["batch"] == 3 and found.json["provider"] == "CPUExecutionProvider" and found.json["verdict"]
    spent = onnxprune("bench", *pair, "--quick", "--json", "--profile").json
    assert {"operators", "layers", "failed", "speedup"} <= spent.keys() and spent["layers"]
    found = onnxprune("bench", *pair, "--quick", "--profile")
    assert found.code == 0 and "unprofiled" in found.words and "operator" in found.words
    found = onnxprune("bench", *pair, "--quick", "--batches", "1,2")
    assert found.code == 0 and "control" in found.words and "batch 2:" in found.words and "95%" in found.words


def test_a_profile_that_cannot_be_made_is_refused_before_anything_is_timed(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxprune.cli.commands.time_models", lambda *_, **__: pytest.fail("timed"))
    monkeypatch.setattr("onnxprune.gains.profiles.provider_name", lambda provider: "CUDAExecutionProvider")
    found = onnxprune("bench", model, model, "--profile", "--ep", "cuda")
    assert found.code == 1 and "operators cannot be timed on 'cuda'" in found.err


def test_inspect_shows_groups_and_reasons(model: Path) -> None:
    before = snapshot(model.parent)
    found = onnxprune("inspect", model)
    assert found.code == 0 and not found.err and "b1.w" in found.words and "Cannot be pruned" in found.words
    found = onnxprune("inspect", model, "--json")
    assert {g["name"] for g in found.json["groups"]} == {"stem.w", "a1.w", "b1.w", "b2.w"}
    assert [f["tensor"] for f in found.json["frozen"]] == ["fc.w"]
    assert snapshot(model.parent) == before


@pytest.mark.parametrize("name", ["y", "fc.w", "stem", "stem.bn"])
def test_why_explains_tensors_and_nodes(model: Path, name: str) -> None:
    found = onnxprune("inspect", model, "--why", name)
    assert found.code == 0 and not found.err and name in found.words
    found = onnxprune("inspect", model, "--why", name, "--json")
    assert found.json["name"] == name and found.json["tensors"]


def test_ops_lists_the_rules() -> None:
    table, text = onnxprune("ops"), onnxprune("ops", "--markdown")
    assert table.code == text.code == 0
    for operator in ("Conv", "Gemm", "Concat", "BatchNormalization", "Reshape"):
        assert operator in table.words and f"| {operator} |" in text.out


def test_criteria_lists_the_registry() -> None:
    table, text = onnxprune("criteria"), onnxprune("criteria", "--markdown")
    assert table.code == text.code == 0
    for name, entry in CRITERIA.items():
        assert name in table.words and f"| {name} | {entry.needs} |" in text.out


def test_a_process_in_a_pipe_prints_json_alone_and_no_progress(model: Path) -> None:
    found = process(*prune(model, "--json"))
    assert (found.code, found.err) == (0, "")
    check_report(found.json)
    found = process("inspect", model)
    assert (found.code, found.err) == (0, "") and "stem.w" in found.out and "\x1b" not in found.out


def test_forced_colours_do_not_bring_progress_into_a_pipe(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    found = onnxprune(*prune(model, "--json"))
    assert (found.code, found.err) == (0, "")
    check_report(found.json)


def test_warnings_of_native_libraries_stay_out_of_the_json(tmp_path: Path) -> None:
    proto = graphs.chain()  # onnx's checker, written in C++, warns of this operator on standard output
    proto.graph.node.insert(0, helper.make_node("ImageScaler", ["x"], ["scaled"], name="scaler", scale=1.0))
    proto.graph.node[1].input[0] = "scaled"
    found = process("inspect", stored(proto, tmp_path), "--json")
    assert found.code == 0 and found.json["groups"]
    assert "experimental" in found.err


def test_a_process_fails_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("no model")
    found = process("prune", "model.onnx", "-o", "small.onnx", cwd=tmp_path)
    assert (found.code, found.out) == (1, "")
    assert found.err.startswith("onnxprune: is not an ONNX model") and found.err.count("\n") == 1


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_progress_shows_on_a_terminal_and_leaves_the_output_alone(model: Path) -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "onnxprune", *map(str, prune(model, "--json"))]
    variables = {**environment(), "TERM": "xterm"}
    done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, stderr=theirs, stdin=subprocess.DEVNULL)
    os.close(theirs)
    drawn = os.read(ours, 1 << 16)
    os.close(ours)
    assert done.returncode == 0 and b"\x1b[" in drawn
    check_report(json.loads(done.stdout))


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_an_interrupt_leaves_nothing_half_written_and_exits_130(model: Path) -> None:
    small = model.with_name("small.onnx")
    program = (  # stops where the models are timed, after all surgery and before anything is written
        "import sys, time; from onnxprune import cli, pipeline\n"
        "pipeline.inputs.bench = lambda *a, **k: (print('timing', file=sys.stderr, flush=True), time.sleep(60))\n"
        "cli.main()"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", program, "prune", str(model), "-o", str(small), "--align", "1"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background shells ignore it
    )
    assert running.stderr is not None and running.stderr.readline() == "timing\n"
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (130, "") and "interrupted" in err and "Traceback" not in err
    assert snapshot(model.parent).keys() == {"model.onnx"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeUnavailable("onnxruntime cannot run the model")])
def test_nothing_is_written_when_the_timing_fails(
    error: BaseException, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(pipeline.inputs, "bench", stopped)
    plan, report, small = (model.with_name(name) for name in ("plan.json", "report.json", "small.onnx"))
    found = onnxprune("prune", model, "-o", small, "--align", "1", "--plan-out", plan, "--report", report)
    assert found.code in (1, 130) and not found.out and found.err.count("\n") == 1
    assert snapshot(model.parent).keys() == {"model.onnx"}


def test_an_interrupted_write_keeps_the_old_output(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model.with_name("small.onnx").write_text("the old one")
    before = snapshot(model.parent)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    found = onnxprune(*prune(model, "--overwrite"))
    assert found.code == 130 and "interrupted" in found.err and not found.out
    assert snapshot(model.parent) == before


def test_overwrite_replaces_the_output_alone(model: Path) -> None:
    before, small = snapshot(model.parent), model.with_name("small.onnx")
    assert onnxprune(*prune(model, "--ratio", "0.2")).code == 0
    first = small.read_bytes()
    refused = onnxprune(*prune(model, "--ratio", "0.6"))
    assert refused.code == 1 and "--overwrite" in refused.err and small.read_bytes() == first
    assert onnxprune(*prune(model, "--ratio", "0.6", "--overwrite")).code == 0
    assert len(small.read_bytes()) < len(first)
    assert snapshot(model.parent).items() >= before.items()


def test_errors_that_nobody_foresaw_are_one_line_too(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr("onnxprune.pipeline.ranked.score", broken)
    found = onnxprune(*prune(model))
    assert found.code == 1 and found.err.count("\n") == 1 and "ZeroDivisionError: two lines" in found.err
    assert "ONNXPRUNE_DEBUG=1" in found.err
    monkeypatch.setenv("ONNXPRUNE_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        onnxprune(*prune(model))


def test_errors_of_the_system_are_not_called_bugs(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Plan, path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Plan, "save", full)
    found = onnxprune(*prune(model, "--plan-out", model.with_name("plan.json")))
    assert found.code == 1 and found.err.count("\n") == 1 and "internal" not in found.err
    assert "No space left on device; " in found.err and "plan.json; check the disk" in found.err


def test_data_may_hold_other_arrays_and_more_samples_than_are_used(model: Path) -> None:
    rng, data = np.random.default_rng(0), model.with_name("data.npz")
    np.savez(data, x=rng.normal(size=(40, 3, 8, 8)).astype(np.float32), labels=np.array([{}], dtype=object))
    assert onnxprune(*prune(model, "--data", data)).code == 0


@pytest.mark.parametrize("name", SYNOPSIS)
def test_no_word_of_help_is_cut_off_at_80_columns(name: str) -> None:
    shown = process(name, "--help")  # a pipe has 80
    assert shown.code == 0 and "…" not in shown.out
