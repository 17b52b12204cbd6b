"""Laws of fresh processes: errors arrive on one line, nothing outlives the parent, and processes count as processes."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest

from onnxprune import errors, runtime
from onnxprune.errors import DataError, ProviderError, RuntimeUnavailable
from onnxprune.runtime import machine, sessions
from tests.contract import environment

b = importlib.import_module("onnxprune.bench")
exchange = importlib.import_module("onnxprune.bench.exchange")
footprint = importlib.import_module("onnxprune.bench.footprint")
pair = importlib.import_module("onnxprune.bench.pair")
processes = importlib.import_module("onnxprune.bench.processes")
statistics = importlib.import_module("onnxprune.bench.statistics")

SMALL = "g (float[N, 8] x) => (float[N, 8] y) { y = Relu(x) }"
TINY = b.Protocol(2, warm_runs=1, warm_s=0.0, sample_s=0.0, min_rounds=3, max_rounds=3, budget_s=0.0, loads=3)


def net(text: str = SMALL) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')


def samples(ratio: float, *, seed: int = 0, noise: float = 0.01, moved: float = 0.0, n: int = 60) -> Any:
    """Times of one process; `moved` is the share by which the pruned model slows down from first to last round."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(1, 1 + moved, n)
    scales = {"before": np.ones(n), "control": np.ones(n), "after": slope / ratio}
    return b.Samples({k: tuple((s * np.exp(rng.normal(0, noise, n))).tolist()) for k, s in scales.items()}, inner=2)


# --- statistics over processes ---------------------------------------------------------------------------------------


def test_a_planted_drift_of_ten_percent_is_flagged_and_none_is_not() -> None:
    flagged = [b.compare(samples(1.5, seed=s, noise=0.015, moved=0.1)).drifting for s in range(50)]
    quiet = [b.compare(samples(1.5, seed=s, noise=0.015)).drifting for s in range(50)]
    assert sum(flagged) >= 48 and sum(quiet) == 0


def test_drift_is_spearmans_correlation() -> None:
    from scipy import stats

    values = np.round(np.random.default_rng(0).normal(size=40), 1)  # with ties
    assert statistics.drift(values) == pytest.approx(stats.spearmanr(np.arange(40), values).statistic)
    assert statistics.drift(np.arange(30.0)) == 1.0 and statistics.drift(np.ones(30)) == 0.0
    assert statistics.drift(np.arange(10.0)) == 0.0  # too few to tell


def test_a_process_that_drifts_is_repeated_once_and_kept_if_it_drifts_again() -> None:
    started = list[int]()

    def run(number: int, bad: set[int]) -> Any:
        started.append(number)
        return pair.Measured((samples(1.5, seed=number, moved=0.5 if number in bad else 0.0),), "cpu", {})

    kept, repeated = processes.repeat(lambda n: run(n, {1}), 3)
    assert started == [0, 1, 4, 2] and len(kept) == 3 and len(repeated) == 1 and abs(repeated[0]) > 0.5
    assert b.compare([k.samples[0] for k in kept]).drifting == 0
    kept, repeated = processes.repeat(lambda n: run(n, {1, 4}), 3)
    assert len(repeated) == 1 and b.compare([k.samples[0] for k in kept]).drifting == 1


def test_the_interval_over_processes_is_wider_than_over_pooled_rounds_when_processes_differ() -> None:
    groups = [np.asarray(s * np.exp(np.random.default_rng(n).normal(0, 0.01, 60))) for n, s in enumerate((1, 1.1, 1.2))]
    apart, pooled = b.interval(groups), b.interval(np.concatenate(groups))
    assert apart[1] - apart[0] > 1.5 * (pooled[1] - pooled[0])


def test_the_interval_over_processes_covers_the_truth_about_95_times_in_100(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 2000)  # enough here, and fast
    hits, rng = 0, np.random.default_rng(5)
    for trial in range(200):  # processes differ more than rounds do
        groups = [np.exp(rng.normal(0, 0.03) + rng.normal(0, 0.02, 40)) for _ in range(5)]
        low, high = b.interval(groups, seed=trial)
        hits += low <= 1 <= high
    assert 180 <= hits <= 199  # 185 of 200; without the widening 171


def test_the_control_of_identical_models_contains_one() -> None:
    runs = [samples(1.3, seed=s, noise=0.05) for s in range(5)]
    found = b.compare(runs)
    assert found.control_ok and found.control_ci95[0] <= 1 <= found.control_ci95[1] and found.verdict == "faster"


def test_a_comparison_keeps_each_process_apart() -> None:
    runs = [samples(r, seed=s, n=n) for s, (r, n) in enumerate(((1.2, 40), (1.4, 50)))]
    found = b.compare(runs)
    assert found.of_process("after") == [run.times["after"] for run in runs] and found.rounds == 90
    assert found.ratios == pytest.approx((1.2, 1.4), rel=0.01)
    assert found.speedup == pytest.approx(np.sqrt(1.2 * 1.4), rel=0.01)
    assert found.ci95[0] < 1.22 and found.ci95[1] > 1.38
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


def test_percentiles_are_of_single_inferences_where_they_were_kept() -> None:
    ramp = [float(i) for i in range(1, 102)]
    one = replace(samples(1.0), singles={"before": ramp, "after": [2 * t for t in ramp]})
    found = b.compare(one)
    assert (found.before_ms, found.before_p90_ms, found.before_p99_ms, found.after_p99_ms) == (51, 91, 100, 200)


def test_throughput_is_the_batch_over_the_time() -> None:
    found = b.throughput([samples(2.0, noise=1e-6), samples(2.0, noise=1e-6)], 8)
    assert found.before_per_s == pytest.approx(8000, rel=1e-3) and found.after_per_s == pytest.approx(16000, rel=1e-3)
    assert found.before_ci95[0] <= found.before_per_s <= found.before_ci95[1] and found.speedup == pytest.approx(2)


def test_throughput_needs_an_open_batch() -> None:
    fixed = net("g (float[1, 8] x) => (float[1, 8] y) { y = Relu(x) }")
    with pytest.raises(DataError, match="batch is fixed at 1, not 4"):
        b.bench(fixed, fixed, batches=(1, 4))


# --- real workers ----------------------------------------------------------------------------------------------------


def test_two_processes_measure_everything_and_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen = list[float]()
    found = b.bench(net(), net(), protocol=TINY, batches=(2,), progress=seen.append)
    assert found.processes == 2 and found.process_rounds == (3, 3) and len(found.ratios) == 2
    assert [t.batch for t in found.throughput] == [2] and found.throughput[0].before_per_s > 0
    assert found.before_load_ms and found.after_load_ms and found.before_p99_ms
    if sys.platform == "linux":
        assert len(found.cores) == 1 and found.cores[0] in os.sched_getaffinity(0)
        assert found.before_peak_bytes is not None and 0 <= found.before_peak_bytes < 2**28
    assert seen == sorted(seen) and seen[-1] == 1 and not list(tmp_path.iterdir())


def test_an_error_in_a_worker_is_the_same_error_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    other = net("g (float[N, 9] x) => (float[N, 9] y) { y = Relu(x) }")
    with pytest.raises(DataError, match=r"take different inputs; input 'x': .*\[N, 8\] before.*; compare a model"):
        b.bench(net(), other, protocol=TINY)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise ValueError('out of\\nluck')", "ended with exit code 1; luck; check"),
        ("import os; os.kill(os.getpid(), 9)", "was ended by SIGKILL; check that memory"),
    ],
)
def test_a_worker_that_dies_is_one_line(code: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match=message) as caught:
        processes.start([sys.executable, "-c", code], tmp_path / "errors.txt", lambda share: None)
    assert "\n" not in str(caught.value)


def test_progress_comes_through_whatever_else_is_printed(tmp_path: Path) -> None:
    seen = list[float]()
    code = "print('0.25'); print('[W:onnxruntime] warning'); print('1.0')"
    processes.start([sys.executable, "-c", code], tmp_path / "errors.txt", seen.append)
    assert seen == [0.25, 1.0]


def test_an_interrupt_ends_the_worker(tmp_path: Path) -> None:
    def stop(share: float) -> None:
        raise KeyboardInterrupt

    code = "import os, time; print(0.5, flush=True); open('pid', 'w').write(str(os.getpid())); time.sleep(60)"
    code = f"import os; os.chdir({str(tmp_path)!r}); open('pid', 'w').write(str(os.getpid())); {code}"
    with pytest.raises(KeyboardInterrupt):
        processes.start([sys.executable, "-c", code], tmp_path / "errors.txt", stop)
    assert gone(int((tmp_path / "pid").read_text()))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_the_parent_ends_the_worker_and_leaves_nothing(end: signal.Signals, tmp_path: Path) -> None:
    onnx.save(net(), tmp_path / "m.onnx")
    (tmp_path / "scratch").mkdir()
    command = [sys.executable, "-m", "onnxprune", "bench", "m.onnx", "m.onnx", "--processes", "2"]
    kept = environment() | {"TMPDIR": str(tmp_path / "scratch")}
    parent = subprocess.Popen(
        command, cwd=tmp_path, env=kept, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        until(lambda: ready(parent.pid))
        if end == signal.SIGKILL:
            parent.kill()
        else:  # as a terminal and `timeout` do: to the worker, too
            os.killpg(parent.pid, end)
        _, err = parent.communicate(timeout=30)
    finally:
        parent.kill()
    assert parent.returncode == (130 if end == signal.SIGINT else -end)
    assert "Traceback" not in err
    until(lambda: not list((tmp_path / "scratch").glob("onnxprune-*")))


def ready(parent: int) -> bool:
    """Whether a process has a child that ignores SIGTERM."""
    try:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        states = [Path(f"/proc/{child}/status").read_text() for child in children]
    except OSError:
        return False
    ignored = [int(line.split()[1], 16) for text in states for line in text.splitlines() if line.startswith("SigIgn:")]
    return any(mask >> (signal.SIGTERM - 1) & 1 for mask in ignored)


def until(true: Any) -> None:
    """Wait for something that happens in another process."""
    for _ in range(600):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("it never happened")


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# --- what is handed over ---------------------------------------------------------------------------------------------


def test_feeds_come_back_bit_for_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    feeds = {
        "file": rng.normal(size=(2, 3)).astype(np.float32),
        "a/b": rng.normal(size=4).astype(ml_dtypes.bfloat16),
        "c": np.array(True),
        "d": np.arange(5, dtype=np.int64)[::2],
    }
    found = exchange.read_feeds(json.loads(json.dumps(exchange.write_feeds(feeds, tmp_path / "x.npz"))))
    assert list(found) == list(feeds)
    for name, array in feeds.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("position", [0, 1])
def test_a_file_that_is_no_model_is_one_line(position: int, tmp_path: Path) -> None:
    onnx.save(net(), tmp_path / "m.onnx")
    (tmp_path / "bad.onnx").write_text("# not a model")
    models = [tmp_path / "m.onnx", tmp_path / "m.onnx"]
    models[position] = tmp_path / "bad.onnx"
    with pytest.raises(errors.OnnxpruneError, match=r"bad\.onnx") as caught:
        b.bench(*models, protocol=TINY)
    assert isinstance(caught.value, errors.ModelError | RuntimeUnavailable)


@pytest.mark.parametrize("kind", [DataError, ProviderError, RuntimeUnavailable])
def test_errors_come_back_as_they_were(kind: type[errors.OnnxpruneError], tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(exchange.error_entry(kind("what", where="where", remedy="remedy"))))
    with pytest.raises(kind) as caught:
        exchange.read_result(tmp_path / "r.json")
    assert (caught.value.what, caught.value.where, caught.value.remedy) == ("what", "where", "remedy")


def test_load_time_is_the_median_and_slow_models_are_opened_less_often() -> None:
    class Slow:
        now, opened = 0.0, 0

        def open(self, model: object) -> None:
            self.opened += 1
            Slow.now += 6.0

    slow = Slow()
    assert footprint.load_time(net(), slow, 5, lambda: Slow.now) == 6000.0 and slow.opened == 3


def test_memory_of_the_parent_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    if footprint.status("VmHWM") is None:
        pytest.skip("only Linux tells")
    held = np.ones(2**25)  # 256 MiB here
    base = footprint.forget_peak()
    found = footprint.peak_resident()
    assert held[0] and base and found and abs(found - base) < 2**25
    more = np.ones(2**24)  # 128 MiB more
    del more
    assert 2**26 < footprint.peak_resident() - base < 2**28


# --- precision and providers -----------------------------------------------------------------------------------------


def test_float16_keeps_the_ends_and_the_result() -> None:
    weight = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    whole = net("g (float[N, 8] x) => (float[N, 8] y) { y = MatMul(x, w) }")
    whole.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    before = whole.SerializeToString()
    small = runtime.half(whole)
    assert whole.SerializeToString() == before
    assert small.graph.initializer[0].data_type == onnx.TensorProto.FLOAT16
    feeds = runtime.random_feeds(whole, batch=2)
    got, wanted = runtime.run(small, feeds)["y"], runtime.run(whole, feeds)["y"]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, atol=1e-2 * np.abs(wanted).max())  # 11 bits of mantissa, sums of 8


def test_float16_is_refused_on_the_cpu() -> None:
    with pytest.raises(ProviderError, match="float16 is not timed on the CPU"):
        b.bench(net(), net(), fp16=True)


def test_an_accelerator_searches_all_algorithms_and_leaves_the_rest_to_those_that_can() -> None:
    cuda = ("CUDAExecutionProvider", {"cudnn_conv_algo_search": "EXHAUSTIVE"})
    cpu, tensorrt = "CPUExecutionProvider", "TensorrtExecutionProvider"
    assert sessions.provider_list(cpu) == [cpu] and sessions.provider_list(cuda[0]) == [cuda, cpu]
    assert sessions.provider_list(tensorrt) == [tensorrt, cuda, cpu]
    assert sessions.provider_list(tensorrt, fp16=True) == [(tensorrt, {"trt_fp16_enable": "1"}), cuda, cpu]
    assert sessions.provider_list("DmlExecutionProvider") == ["DmlExecutionProvider", cpu]


def test_the_governor_of_the_cores_is_read_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "FREQUENCY", tmp_path)
    assert runtime.clocks([0, 1]) == {}
    for core, governor in ((0, "performance"), (1, "powersave")):
        (tmp_path / f"cpu{core}" / "cpufreq").mkdir(parents=True)
        (tmp_path / f"cpu{core}" / "cpufreq" / "scaling_governor").write_text(f"{governor}\n")
    assert runtime.clocks([0]) == {"governor": "performance"}
    assert runtime.clocks([0, 1]) == {"governor": "performance, powersave"}


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_the_accelerator_is_named_by_its_own_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA X1, 600.1'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert runtime.device("CUDAExecutionProvider") == {"device": "NVIDIA X1, 600.1"}
    assert runtime.device("CPUExecutionProvider") == {}
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert runtime.device("CUDAExecutionProvider") == {}


def test_a_model_in_memory_is_stored_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    whole = net("g (float[N, 64] x) => (float[N, 64] y) { y = MatMul(x, w) }")
    whole.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    feeds = runtime.random_feeds(whole)
    wanted = runtime.run(whole, feeds)["y"]
    for limit in (sessions.PROTO_LIMIT, 0):  # inside the file, and beside it
        monkeypatch.setattr(sessions, "PROTO_LIMIT", limit)
        folder = tmp_path / str(limit)
        folder.mkdir()
        np.testing.assert_array_equal(runtime.run(runtime.store(whole, folder), feeds)["y"], wanted)
        assert (folder / "weights").exists() == (limit == 0)
