"""The machine a time was measured on. Law: it is described by what changes times, and by nothing else."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.runtime.sessions import onnxruntime

FREQUENCY = Path("/sys/devices/system/cpu")


def environment() -> dict[str, Any]:
    """What a measured time depends on: software versions, the processor, its vector instructions, its load."""
    ort = onnxruntime()
    model, flags = _processor()
    return {
        "onnxruntime": str(ort.__version__),
        "providers": [str(p) for p in ort.get_available_providers()],
        "cpu": model,
        "simd": flags,
        "cores": os.cpu_count() or 1,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def clocks(cores: Sequence[int] = ()) -> dict[str, Any]:
    """How the system governs the clock of some cores (the first core if none is named), as far as it tells."""
    found: dict[str, Any] = {}
    for core in cores or [0]:
        folder = FREQUENCY / f"cpu{core}" / "cpufreq"
        for key, file in (("governor", "scaling_governor"), ("frequency_driver", "scaling_driver")):
            with contextlib.suppress(OSError):
                found.setdefault(key, set()).add((folder / file).read_text(encoding="ascii").strip())
    return {key: ", ".join(sorted(values)) for key, values in found.items() if values}


def device(provider: str) -> dict[str, str]:
    """Name and driver of the accelerator a provider runs on, from nvidia-smi where that is present."""
    tool = shutil.which("nvidia-smi")
    if tool is None or not provider.lower().startswith(("cuda", "tensorrt", "nvtensorrt")):
        return {}
    query = [tool, "--query-gpu=name,driver_version,power.limit,clocks.max.sm", "--format=csv,noheader", "--id=0"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"device": " ".join(done.stdout.split())} if done.stdout.strip() else {}


def _processor() -> tuple[str, list[str]]:
    """Processor name and the vector instruction sets it has, as far as the system tells."""
    fallback = platform.processor() or platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return fallback, []
    pairs = [line.partition(":") for line in text.split("\n\n")[0].splitlines()]
    facts = {key.strip().lower(): value.strip() for key, _, value in pairs}
    flags = facts.get("flags", facts.get("features", "")).split()
    vector = re.compile(r"sse4|avx|fma$|f16c|amx|asimd|neon|sve|sme\d?$|bf16|i8mm|rvv")
    return facts.get("model name", fallback), sorted(flag for flag in flags if vector.match(flag))
