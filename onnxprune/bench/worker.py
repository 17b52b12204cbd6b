"""A process that measures: `python -m onnxprune.bench.worker FOLDER`. Law: it ends with its parent, whatever happens.

FOLDER holds job.json; result.json is written there, with an error in it where one was met. The share done goes to
standard output. Standard input is a pipe that nobody writes to: at its end the parent is gone.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from onnxprune.bench.exchange import error_entry, read_feeds, write_measured
from onnxprune.bench.footprint import footprint
from onnxprune.bench.pair import Setting, time_pair
from onnxprune.bench.protocol import Protocol
from onnxprune.errors import OnnxpruneError
from onnxprune.model import write_atomic

STEP = 0.02  # share of the work between two lines of progress: each wakes the parent


def main(folder: Path) -> None:
    """Do the job in a folder."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # sent to the whole group, they end the parent, whose end is ours
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    tempfile.tempdir = job["scratch"]  # what is half-made when the parent ends goes with its folder
    threading.Thread(target=leave_with_parent, args=(Path(job["scratch"]),), daemon=True).start()
    cores = pin(job["setting"]["threads"])
    try:
        result = TASKS[job["task"]](folder, job) | {"cores": cores}
    except OnnxpruneError as error:
        result = error_entry(error)
    write_atomic(folder / "result.json", json.dumps(result))


def leave_with_parent(scratch: Path) -> None:
    """Wait for the parent's end; then remove what it can no longer remove, and end."""
    while os.read(0, 1):  # not sys.stdin: its lock would be held when the interpreter ends
        pass
    for _ in range(100):  # the other thread may be writing there
        shutil.rmtree(scratch, ignore_errors=True)
        if not scratch.exists():
            break
    os._exit(1)


def pin(threads: int) -> list[int]:
    """Stay on the first allowed cores, one for each thread, before any thread starts; which, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))[:threads]
    os.sched_setaffinity(0, cores)
    return cores


def time_task(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Time the pair."""
    inputs = [read_feeds(entry) for entry in job["inputs"]]
    setting, protocol = Setting(**job["setting"]), Protocol(**job["protocol"])
    before, after = job["models"]
    found = time_pair(before, after, inputs, setting, protocol, seed=job["seed"], progress=reporter())
    return write_measured(found, folder)


def footprint_task(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Load time and peak memory of the one model."""
    feeds, setting = read_feeds(job["inputs"][0]), Setting(**job["setting"])
    return asdict(footprint(job["models"][0], feeds, setting, job["protocol"]["loads"]))


TASKS: dict[str, Callable[[Path, dict[str, Any]], dict[str, Any]]] = {"time": time_task, "footprint": footprint_task}


def reporter() -> Callable[[float], None]:
    """A function that prints the share done, whenever there is something to tell."""
    last = 0.0

    def report(share: float) -> None:
        nonlocal last
        if share >= min(last + STEP, 1.0):
            last = share
            print(f"{share:.3f}", flush=True)

    return report


if __name__ == "__main__":
    main(Path(sys.argv[1]))
