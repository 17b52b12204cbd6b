"""Load time and peak memory of one model. Law: they are read in a process that has held no other model.

The kernel's own high-water mark of the process is read, so that no peak between two looks is missed. On Linux it is
VmHWM, not `ru_maxrss`: the latter starts at what the parent process held when it started this one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxprune import runtime
from onnxprune.bench.pair import Setting
from onnxprune.runtime import Feeds, Source

MIN_LOADS, LOADS_S = 3, 10.0  # a model that is slow to open is opened so often, once it has used so many seconds
RUNS = 3


@dataclass(frozen=True)
class Footprint:
    """What a model takes beside its time.

    Attributes:
        load_ms: Median time to create a session, ms, with the file in the system's cache.
        peak_bytes: Growth of the process's peak resident memory from before opening to after running; None where the
            system does not tell.
    """

    load_ms: float
    peak_bytes: int | None


def footprint(
    model: Source, feeds: Feeds, setting: Setting, loads: int, *, clock: Callable[[], float] = time.perf_counter
) -> Footprint:
    """Open and run a model in this process, which should be fresh.

    Args:
        model: The model.
        feeds: Its inputs.
        setting: How it is opened.
        loads: Session creations to time.
        clock: Seconds; replaced in tests.
    """
    setting.open(runtime.trivial())  # the runtime's own libraries and devices are not the model's
    base = forget_peak()
    opened = setting.open(model)
    run = runtime.runner(opened, feeds)
    for _ in range(RUNS):
        run()
    top = peak_resident()
    del opened, run
    return Footprint(load_time(model, setting, loads, clock), None if top is None or base is None else top - base)


def load_time(model: Source, setting: Setting, loads: int, clock: Callable[[], float]) -> float:
    """Median milliseconds of `loads` session creations, fewer where they are slow."""
    times: list[float] = []
    while len(times) < loads and (len(times) < MIN_LOADS or sum(times) < LOADS_S):
        start = clock()
        opened = setting.open(model)
        times.append(clock() - start)
        del opened  # its memory is free again before the next
    return float(np.median(times)) * 1e3


def forget_peak() -> int | None:
    """Set the high-water mark back to what is resident now, where the system lets us; bytes resident, or the mark."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return peak_resident()
    return status("VmRSS")


def peak_resident() -> int | None:
    """The most memory this process ever had resident, bytes; None where the system does not tell."""
    if (mark := status("VmHWM")) is not None:
        return mark
    try:
        import resource  # only Unix has it
    except ImportError:
        return None
    mark = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return mark if sys.platform == "darwin" else mark * 1024


def status(key: str) -> int | None:
    """An entry of /proc/self/status in bytes; None where there is none."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), None)
