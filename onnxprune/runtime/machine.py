"""The machine a time was measured on. Law: it is described by what changes times, and by nothing else."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.runtime.sessions import onnxruntime


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
