"""Remembered measurements. Law: what is kept under a key is valid for that key alone, and losing it loses only time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxprune import runtime
from onnxprune.errors import OnnxpruneError
from onnxprune.model import write_atomic


def machine_key(provider: str, threads: int) -> dict[str, Any]:
    """What any measured time depends on: processor, accelerator and its driver, onnxruntime, provider, threads."""
    facts, name = runtime.environment(), runtime.provider_name(provider)
    kept = {key: facts[key] for key in ("cpu", "simd", "onnxruntime")}
    return kept | {"provider": name, "threads": threads} | runtime.device(name)


def cache_path(kind: str, identity: Mapping[str, Any]) -> Path | None:
    """The file for a kind of measurement under a key, or None when the user has no home folder."""
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    return root / "onnxprune" / f"{kind}-{digest}.json"


def recall(path: Path | None) -> Mapping[str, Any] | None:
    """What a file holds; None when there is none, or it is damaged."""
    if path is None:
        return None
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return held if isinstance(held, dict) else None


def remember(path: Path | None, identity: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Write a file whole or not at all; a folder that cannot be written is no error: it is measured again."""
    if path is None:
        return
    with contextlib.suppress(OSError, OnnxpruneError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"key": dict(identity)} | dict(found)))
