"""What a worker does with a candidate. Law: a finished stage is never done twice, an unfinished one leaves no record.

The stages are: prune (plan, rewrite, verify, save), fidelity, metric. Each is keyed by all that its result depends on:
the sweep's key and the target, then the content of the pruned model, then the script.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from onnxprune import pipeline, runtime
from onnxprune.bench.pair import batch_size
from onnxprune.data import Feeds, Samples
from onnxprune.errors import (
    OnnxpruneError,
    OutputError,
    PlanError,
    RuntimeUnavailable,
    UnprunableError,
    VerificationError,
    debugging,
    described,
)
from onnxprune.fidelity import fidelity
from onnxprune.metric import metric
from onnxprune.model import Model, write_atomic
from onnxprune.plan import Limits
from onnxprune.report.data import version
from onnxprune.sweep.candidates import Candidate
from onnxprune.sweep.folder import Folder, digest, file_hash, model_hash
from onnxprune.trace import Dependencies

SAMPLES = 256  # of the data that fidelity is measured on, at most
DRAWS = 8  # batches of random inputs, where there is no data
DENSE = "dense"


@dataclass(frozen=True)
class Job:
    """One candidate's work; small, for it crosses to another process.

    Attributes:
        source: The dense model's file.
        folder: Where the results go.
        candidate: The target.
        limits: What may be touched.
        options: Everything else.
        script: Of the metric, if there is one.
        version: Of the package that hands it out.
    """

    source: Path
    folder: Folder
    candidate: Candidate
    limits: Limits
    options: pipeline.Options
    script: Path | None = None
    version: str = ""

    @property
    def label(self) -> str:
        """The candidate's."""
        return self.candidate.label

    @property
    def key(self) -> str:
        """Of the pruned model."""
        return digest([self.folder.key, self.candidate.text])


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        label: The candidate's.
        done: Stages that were carried out now.
        reused: Stages that were finished before.
        failed: Why there is no model, or no metric.
    """

    label: str
    done: tuple[str, ...] = ()
    reused: tuple[str, ...] = ()
    failed: str = ""


def work(job: Job) -> Outcome:
    """Bring a candidate as far as it gets without timing; a target that cannot be met is an outcome, not an error.

    Raises:
        OutputError: The folder is not there, or cannot be written: no other candidate would do better.
        RuntimeUnavailable: The worker has another version of the package.
    """
    check_worker(job)
    done: list[str] = []
    reused: list[str] = []
    failed = ""
    try:
        for stage in ("prune", "fidelity", *(["metric"] if job.script else [])):
            (done if STAGES[stage](job) else reused).append(stage)
    except OutputError:
        raise
    except OnnxpruneError as error:
        failed = str(error)
    except Exception as error:
        if debugging() or isinstance(error, OSError):
            raise
        failed = f"internal error, {described(error)}; please report it with the output of ONNXPRUNE_DEBUG=1"
    return Outcome(job.label, tuple(done), tuple(reused), failed)


def check_worker(job: Job) -> None:
    """Refuse a machine that does not see the files, or would make others."""
    here = socket.gethostname()
    if version() != job.version:
        what = f"a worker has onnxprune {version()}, this machine {job.version}"
        raise RuntimeUnavailable(what, where=here, remedy="install the same version on every worker")
    if job.folder.head.get("key") != job.folder.key or not job.source.is_file():
        what = "a worker does not see the sweep's folder or the model"
        raise OutputError(what, where=f"{job.folder.path} on {here}", remedy="put both on a disk that all share")


def prune(job: Job) -> bool:
    """Plan, rewrite, verify and save, unless that is done; whether it was done now."""
    if finished(job) is not None:
        return False
    refuse_again(job)
    output = job.folder.model(job.label)
    prepared = opened(job.source, job.options.through_norms, job.folder.key)

    def receive(done: pipeline.Pruned) -> None:
        done.plan.save(job.folder.side(job.label, "plan.json"))
        write_atomic(job.folder.side(job.label, "json"), done.report.to_json())

    try:
        target, limits, options = job.candidate.target, job.limits, job.options
        with_data = {"prepared": prepared, "data": samples_of(job)}
        done = pipeline.prune(job.source, output, target, limits, options, receive=receive, **with_data)  # type: ignore[arg-type]
    except (PlanError, UnprunableError, VerificationError) as error:  # the same again whenever it is tried
        job.folder.write(job.label, "prune", job.key, {"failed": str(error)})
        raise
    b, a = done.report.before, done.report.after
    shares = {"macs": a.macs / b.macs if b.macs else 1.0, "params": a.params / b.params if b.params else 1.0}
    found = {"model": model_hash(output), "sides": sides(job), "bytes": a.bytes, **shares}
    job.folder.write(job.label, "prune", job.key, found)
    return True


def refuse_again(job: Job) -> None:
    """Raise what an earlier run met, where trying again would meet the same."""
    held = job.folder.read(job.label, "prune", job.key) or {}
    if "failed" in held:
        raise PlanError(held["failed"])


def finished(job: Job) -> dict[str, Any] | None:
    """The record of the pruned model, if it and its files are as they were left."""
    held = job.folder.read(job.label, "prune", job.key)
    try:
        whole = held is not None and held["model"] == model_hash(job.folder.model(job.label))
        return held if whole and held is not None and held["sides"] == sides(job) else None
    except (OSError, KeyError, OnnxpruneError):
        return None


def sides(job: Job) -> str:
    """The hash of the plan and the report."""
    return file_hash(*(job.folder.side(job.label, ending) for ending in ("plan.json", "json")))


@lru_cache(maxsize=1)
def opened(source: Path, through_norms: bool, key: str) -> tuple[Model, Dependencies]:
    """The dense model, loaded and traced once a process; `key` tells contents apart."""
    return pipeline.prepare(source, through_norms=through_norms)


def samples_of(job: Job) -> Samples | None:
    """The user's samples for a job's model."""
    options = job.options
    return read_once(job.source, options.through_norms, job.folder.key, options)


@lru_cache(maxsize=1)
def read_once(source: Path, through_norms: bool, key: str, options: pipeline.Options) -> Samples | None:
    """The samples, read once a process."""
    dense, _ = opened(source, through_norms, key)
    return pipeline.read_samples(dense, options, least=SAMPLES)


def stage_key(job: Job, *parts: object) -> str:
    """The key of a stage that looks at the pruned model."""
    held = finished(job) or {}
    return digest([job.key, held.get("model"), *parts])


def compare(job: Job) -> bool:
    """Measure fidelity, unless that is done."""
    key = stage_key(job)
    if job.folder.read(job.label, "fidelity", key) is not None:
        return False
    dense, _ = opened(job.source, job.options.through_norms, job.folder.key)
    pruned = job.folder.model(job.label)
    found = fidelity(dense, pruned, inputs(dense, job), threads=job.options.threads)
    job.folder.write(job.label, "fidelity", key, found)
    return True


def inputs(dense: Model, job: Job) -> Iterator[Feeds]:
    """The user's samples, or seeded random ones."""
    options, samples = job.options, samples_of(job)
    if samples is not None:
        yield from samples.batches(dense, limit=SAMPLES)
        return
    first = pipeline.sample(dense, options, None).sets[0]  # of a size that the model takes
    size = batch_size(first)
    for draw in range(DRAWS):
        yield runtime.random_feeds(dense, batch=size, seed=options.seed + draw) if draw else first


def evaluate(job: Job) -> bool:
    """Call the user's script on the pruned model, unless that is done."""
    assert job.script is not None
    key = stage_key(job, file_hash(job.script))
    if job.folder.read(job.label, "metric", key) is not None:
        return False
    found = metric(job.script, job.folder.model(job.label), threads=job.options.threads)
    job.folder.write(job.label, "metric", key, {"value": found})
    return True


STAGES = {"prune": prune, "fidelity": compare, "metric": evaluate}


def quiet(options: pipeline.Options, step: int | None) -> pipeline.Options:
    """The options of a worker: nothing is timed beside other work, and the width step is what was measured before."""
    return replace(options, time=False, overwrite=True, step=step)
