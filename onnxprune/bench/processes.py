"""Fresh processes that measure, one at a time. Law: none outlives this call, and nothing is left on disk.

A fresh interpreter is started for each, never a fork: onnxruntime's threads would not survive one.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnxprune import runtime
from onnxprune.bench.comparison import paired
from onnxprune.bench.exchange import Entry, read_measured, read_result, write_feeds
from onnxprune.bench.footprint import Footprint
from onnxprune.bench.measure import Samples
from onnxprune.bench.pair import Measured, Setting
from onnxprune.bench.protocol import Protocol
from onnxprune.bench.statistics import drift, drifts
from onnxprune.errors import RuntimeUnavailable
from onnxprune.runtime import Feeds, Source
from onnxprune.scripts import environment

WORKER = "onnxprune.bench.worker"
Progress = Callable[[float], None]
Start = Callable[[int], Measured]


@dataclass(frozen=True)
class Bench:
    """Where workers find what they need.

    Attributes:
        scratch: A folder for the files of this run.
        models: Files of the dense and the pruned model.
        inputs: Stored sets of feeds.
        setting: How models are opened.
        protocol: How long and how often.
    """

    scratch: Path
    models: tuple[str, str]
    inputs: tuple[Entry, ...]
    setting: Setting
    protocol: Protocol

    def time(self, seed: int, progress: Progress) -> Measured:
        """Time the pair in a fresh process."""
        folder, result = self.work("time", list(self.models), seed, progress)
        return read_measured(result, folder)

    def footprint(self, model: str) -> Footprint:
        """Load time and peak memory of one of the models, in a fresh process."""
        _, result = self.work("footprint", [model], 0, lambda share: None)
        return Footprint(result["load_ms"], result["peak_bytes"])

    def work(self, task: str, models: list[str], seed: int, progress: Progress) -> tuple[Path, dict[str, Any]]:
        """Give a fresh worker a job, and wait for it: its folder, and its result."""
        folder = Path(tempfile.mkdtemp(prefix=f"{task}-", dir=self.scratch))
        job = {"task": task, "models": models, "inputs": self.inputs, "seed": seed, "scratch": str(self.scratch)}
        settings = {"setting": asdict(self.setting), "protocol": asdict(self.protocol)}
        (folder / "job.json").write_text(json.dumps(job | settings), encoding="utf-8")
        start([sys.executable, "-P", "-m", WORKER, str(folder)], folder / "errors.txt", progress)
        return folder, read_result(folder / "result.json")


@contextmanager
def prepared(
    before: Source, after: Source, inputs: Sequence[Feeds], setting: Setting, protocol: Protocol
) -> Iterator[Bench]:
    """A temporary folder with everything that workers need; a model in memory is written there first."""
    with tempfile.TemporaryDirectory(prefix="onnxprune-", ignore_cleanup_errors=True) as name:
        scratch = Path(name)
        paths = [stored(model, scratch / side) for model, side in ((before, "before"), (after, "after"))]
        entries = tuple(write_feeds(feeds, scratch / f"inputs{n}.npz") for n, feeds in enumerate(inputs))
        yield Bench(scratch, (paths[0], paths[1]), entries, setting, protocol)


def stored(model: Source, folder: Path) -> str:
    """The file of a model."""
    if isinstance(model, str | Path):
        return str(Path(model).resolve())
    folder.mkdir()
    return str(runtime.store(model, folder))


def start(command: Sequence[str], errors: Path, progress: Progress) -> None:
    """Run a worker to its end; an exception that ends the wait ends the worker.

    Raises:
        RuntimeUnavailable: It died.
    """
    with errors.open("wb") as log:
        worker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment(), text=True
        )
        try:
            assert worker.stdout is not None
            for line in worker.stdout:
                report(line, progress)
            code = worker.wait()
        finally:
            worker.kill()
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                if pipe is not None:
                    pipe.close()
    if code:
        lines = errors.read_text(encoding="utf-8", errors="replace").split("\n")
        raise died(code, next((line for line in reversed(lines) if line.strip()), ""))


def report(line: str, progress: Progress) -> None:
    """Pass the share done on; native libraries may print other lines."""
    try:
        progress(min(1.0, max(0.0, float(line))))
    except ValueError:
        return


def died(code: int, last: str) -> RuntimeUnavailable:
    """The error for a worker that ended without a result."""
    try:
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    except ValueError:
        how = f"was ended by signal {-code}"
    remedy = "check that memory suffices (SIGKILL: it did not), or time in this process with --quick"
    return RuntimeUnavailable(f"a process that timed the models {how}", where=last, remedy=remedy)


def repeat(time: Start, count: int) -> tuple[list[Measured], list[float]]:
    """What `count` processes measured, and the drifts of those that another took the place of.

    A process that drifts is repeated once, in a fresh process with a seed of its own; what that finds is kept.

    Args:
        time: Seed -> what a fresh process measured.
        count: Processes to keep.
    """
    kept: list[Measured] = []
    repeated: list[float] = []
    for number in range(count):
        found = time(number)
        rho = drift_of(found.samples[0])
        if drifts(rho):
            repeated.append(rho)
            found = time(count + number)
        kept.append(found)
    return kept, repeated


def drift_of(samples: Samples) -> float:
    """The drift of the pair's ratio."""
    return drift(paired([samples], "after")[0])
