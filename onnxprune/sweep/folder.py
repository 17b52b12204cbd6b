"""The folder of a sweep. Law: what lies in it was made whole, by this model and these options, or is not used.

Every finished stage is one file, `stages/LABEL.STAGE.json`, that appears whole or not at all. It carries the key of all
that its result depends on; a record with another key counts as missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxprune.data.listing import walked
from onnxprune.errors import OutputError
from onnxprune.model import data_files, write_atomic

SCHEMA = "onnxprune/sweep/1"
HEAD = "stages/sweep.json"
ENDINGS = (".onnx", ".onnx.data", ".plan.json", ".json")
STAGES = ("prune", "fidelity", "metric", "timing", "step", "sensitivity")
SUMMARY = ("sweep.json", "sweep.md", "sweep.csv")


def digest(value: object) -> str:
    """A key: the hash of anything JSON can hold, paths included."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def file_hash(*paths: Path) -> str:
    """The hash of files' contents, in the order of their names."""
    found = hashlib.sha256()
    for path in sorted(paths):
        with path.open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def data_hash(path: Path) -> str:
    """The hash of samples: a file's content; of a folder's many files, names, sizes and times of change."""
    if not path.is_dir():
        return file_hash(path)
    found = hashlib.sha256()
    for file in sorted(walked(path)):
        facts = file.stat()
        found.update(repr((str(file.relative_to(path)), facts.st_size, facts.st_mtime_ns)).encode())
    return found.hexdigest()


def model_hash(path: Path) -> str:
    """The hash of a model's content: the file and its weights beside it."""
    return file_hash(path) + (file_hash(*beside) if (beside := data_files(path)) else "")


@dataclass(frozen=True)
class Folder:
    """Where a sweep's files lie.

    Attributes:
        path: The folder.
        key: Of the model and the options that all candidates share.
    """

    path: Path
    key: str

    def model(self, label: str) -> Path:
        """The pruned model of a candidate."""
        return self.path / f"{label}.onnx"

    def side(self, label: str, ending: str) -> Path:
        """Another file of a candidate: `ending` is 'plan.json' or 'json'."""
        return self.path / f"{label}.{ending}"

    def record(self, label: str, stage: str) -> Path:
        """The file of a finished stage."""
        return self.path / "stages" / f"{label}.{stage}.json"

    def read(self, label: str, stage: str, key: str) -> dict[str, Any] | None:
        """The result of a stage, if it is finished and its key is this one."""
        held = parsed(self.record(label, stage))
        return held["result"] if held.get("key") == key and isinstance(held.get("result"), dict) else None

    def write(self, label: str, stage: str, key: str, result: Mapping[str, Any]) -> None:
        """Note that a stage is finished."""
        write_atomic(self.record(label, stage), json.dumps({"key": key, "result": dict(result)}) + "\n")

    @property
    def head(self) -> dict[str, Any]:
        """What the folder was begun with; empty for a new one."""
        return parsed(self.path / HEAD)

    def begin(self, labels: Iterable[str], *, overwrite: bool) -> None:
        """Take possession: make the folder, or go on in one that was begun with the same key.

        Args:
            labels: The candidates.
            overwrite: Whether to remove what an earlier sweep left, and to replace files of these names.

        Raises:
            OutputError: It belongs to another sweep, or files that are not a sweep's are in the way.
        """
        head = self.head
        if overwrite:
            self.clear(head.get("labels", []))
            head = {}
        elif head and head.get("key") != self.key:
            what = "the folder holds a sweep of another model, or with other options"
            raise OutputError(what, where=str(self.path), remedy="name another with -o, or start over with --overwrite")
        ours = list(head.get("labels", []))
        new = [label for label in labels if label not in ours]
        if not overwrite:
            self.refuse_strange(new, begun=bool(head))
        try:
            (self.path / "stages").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"the folder cannot be made ({error.strerror})"
            raise OutputError(what, where=str(self.path), remedy="choose another with -o") from error
        held = {"schema": SCHEMA, "key": self.key, "labels": [*ours, *new]}
        write_atomic(self.path / HEAD, json.dumps(held, indent=2) + "\n")
        self.sweep_up()

    def refuse_strange(self, labels: Iterable[str], *, begun: bool) -> None:
        """Refuse to write over files that no sweep wrote."""
        names = [label + ending for label in labels for ending in ENDINGS] + ([] if begun else list(SUMMARY))
        for name in names:
            if (self.path / name).exists():
                what = "a file is in the way"
                raise OutputError(what, where=str(self.path / name), remedy="name another folder, or give --overwrite")

    def clear(self, labels: Iterable[str]) -> None:
        """Remove what an earlier sweep wrote, and nothing else."""
        for label in [*labels, "dense"]:
            for path in (*(self.path / f"{label}{ending}" for ending in ENDINGS), *self.records(label)):
                path.unlink(missing_ok=True)
        for name in (*SUMMARY, HEAD):
            (self.path / name).unlink(missing_ok=True)

    def records(self, label: str) -> list[Path]:
        """The stage files of a candidate."""
        return [self.record(label, stage) for stage in STAGES]

    def sweep_up(self) -> None:
        """Remove temporary files of workers that were ended while they wrote."""
        for label in [*self.head.get("labels", []), "dense"]:
            for pattern in (f".{label}.*.tmp", f".{label}.*.probe"):
                for path in (*self.path.glob(pattern), *self.path.glob(f"stages/{pattern}")):
                    with contextlib.suppress(OSError):
                        path.unlink()


def parsed(path: Path) -> dict[str, Any]:
    """A JSON object in a file; empty if there is none."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}
