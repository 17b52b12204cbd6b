"""A sweep from end to end. Law: it does what is missing and no more, and times nothing beside other work.

First the metric of the dense model, for a script that fails should fail at once; then all candidates, in parallel; when
no worker is left, the times, one after the other; then the front.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from onnxprune import pipeline, runtime
from onnxprune.align import width_step
from onnxprune.cost import cost
from onnxprune.data.hints import CONFIG
from onnxprune.errors import DataError, OnnxpruneError, PlanError
from onnxprune.metric import metric
from onnxprune.model import load, write_atomic
from onnxprune.pipeline import Options
from onnxprune.plan import Limits
from onnxprune.progress import Observer, silent
from onnxprune.report import words
from onnxprune.report.data import plain, version
from onnxprune.report.front import Front, Point, front_csv, front_markdown
from onnxprune.sweep import pareto
from onnxprune.sweep.candidates import Candidate
from onnxprune.sweep.folder import SCHEMA, Folder, data_hash, digest, file_hash, model_hash
from onnxprune.sweep.pool import Pool, check_installed, spread
from onnxprune.sweep.work import DENSE, Job, Outcome, finished, opened, quiet, samples_of, stage_key, work

FILES = ("data", "sensitivity", "gradients")  # options that count by their content
MACHINE = ("cpu", "simd", "cores", "onnxruntime")  # times taken where one of these differs do not compare


@dataclass(frozen=True)
class Settings:
    """How a sweep runs; nothing here changes a pruned model.

    Attributes:
        pool: Who works on the candidates.
        script: A Python file with `evaluate(run) -> float`, larger is better.
        time: Whether to time the candidates.
        overwrite: Whether to start over where an earlier sweep's files lie.
    """

    pool: Pool = field(default_factory=Pool)
    script: Path | None = None
    time: bool = True
    overwrite: bool = False


@dataclass(frozen=True)
class Sweep:
    """What a sweep found.

    Attributes:
        front: All points.
        details: Everything, as JSON, raw samples included; `sweep.json` holds the same.
        done: Stages carried out now.
        reused: Stages that were finished before.
    """

    front: Front
    details: Mapping[str, Any]
    done: int
    reused: int


def sweep(
    source: Path,
    folder: Path,
    wanted: Sequence[Candidate],
    limits: Limits | None = None,
    options: Options | None = None,
    settings: Settings | None = None,
    *,
    observe: Observer = silent,
) -> Sweep:
    """Prune a model to many targets, measure every result, and find the Pareto front.

    Args:
        source: The model file.
        folder: Where LABEL.onnx, LABEL.plan.json and LABEL.json (the report) of each candidate go, and sweep.json,
            sweep.md and sweep.csv. Workers on other machines must see it under the same path.
        wanted: The targets.
        limits: What may be touched.
        options: Everything else; `time` and `overwrite` are taken from `settings`.
        settings: How the sweep runs.
        observe: Progress callback.

    Raises:
        OnnxpruneError: The folder holds something else, the script fails on the dense model, the model cannot be used,
            or not one candidate could be made.
    """
    limits, options, settings = limits or Limits(), options or Options(), settings or Settings()
    source, options = source.resolve(), resolved(options)
    check(source, options, settings)
    observe("load", 0.0)
    place = Folder(folder.resolve(), sweep_key(source, limits, options))
    opened(source, options.through_norms, place.key)  # a model that cannot be used is no candidate's fault
    place.begin([candidate.label for candidate in wanted], overwrite=settings.overwrite)
    script = settings.script.resolve() if settings.script else None
    dense = dense_metric(source, place, script, options, observe)
    options = prepared(source, place, limits, options, observe)
    jobs = [Job(source, place, candidate, limits, options, script, version()) for candidate in wanted]
    outcomes = carry_out(jobs, settings.pool, observe)
    timings = time_all(jobs, outcomes, observe) if settings.time else {}
    return conclude(jobs, outcomes, timings, dense, settings, (str(source), str(folder)))


def resolved(options: Options) -> Options:
    """With paths that hold in any folder."""
    given: dict[str, Any] = {name: getattr(options, name) for name in FILES}
    return replace(options, **{name: path.resolve() for name, path in given.items() if path})


def prepared(source: Path, place: Folder, limits: Limits, options: Options, observe: Observer) -> Options:
    """The options of the workers: with what is measured once for all candidates."""
    options = with_curves(source, place, limits, options, observe)
    return quiet(options, width(place, options, observe))


def with_curves(source: Path, place: Folder, limits: Limits, options: Options, observe: Observer) -> Options:
    """With the sensitivity of every group, if it is needed, in a file: measured once, before others work."""
    if options.allocate != "sensitivity" or options.sensitivity is not None:
        return options
    path = place.record(DENSE, "sensitivity")
    pipeline.sensitivity(source, options, rows=limits.rows, observe=observe).save(path)
    return replace(options, sensitivity=path)


def check(source: Path, options: Options, settings: Settings) -> None:
    """Refuse what would fail later, before any work is done."""
    check_installed(settings.pool)
    pipeline.check_allocation(options)
    if not source.is_file():
        load(source)  # knows how to say what is wrong with it
    if options.data is not None and not options.data.exists():
        raise DataError("the data do not exist", where=str(options.data), remedy="check the path")
    curves = options.sensitivity, "the analysis of --sensitivity"
    gradients = options.gradients, "the .npz of --gradients"
    for path, what in (curves, gradients, (settings.script, "the script of --eval")):
        if path is not None and not path.is_file():
            raise DataError(f"{what} is not a file", where=str(path), remedy="check the path")


def sweep_key(source: Path, limits: Limits, options: Options) -> str:
    """Of all that every candidate depends on: the model's and the data's content, limits, options, version."""
    same = {k: v for k, v in asdict(options).items() if k not in (*FILES, "time", "overwrite", "step")}
    given = [getattr(options, name) for name in FILES]
    data = [data_hash(path) if path else "" for path in given]
    if options.data and (left := source.with_name(CONFIG)).is_file():
        data.append(file_hash(left))
    return digest([SCHEMA, version(), model_hash(source), asdict(limits), same, *data])


def dense_metric(source: Path, place: Folder, script: Path | None, options: Options, observe: Observer) -> float | None:
    """The dense model's metric, unless it is known."""
    if script is None:
        return None
    key = digest([place.key, file_hash(script)])
    held = place.read(DENSE, "metric", key)
    if held is None:
        observe("metric of the dense model", 0.0)
        held = {"value": metric(script, source, threads=options.threads)}
        place.write(DENSE, "metric", key, held)
    return float(held["value"])


def width(place: Folder, options: Options, observe: Observer) -> int | None:
    """The width step for `--align auto`: measured once, before others work, and the same when the sweep goes on."""
    if options.align is not None:
        return None
    held = place.read(DENSE, "step", place.key)
    if held is None:
        observe("find the width step", 0.0)
        held = {"step": width_step(threads=options.threads).step}
        place.write(DENSE, "step", place.key, held)
    return int(held["step"])


def carry_out(jobs: Sequence[Job], pool: Pool, observe: Observer) -> dict[str, Outcome]:
    """All stages but timing; targets that take measuring have the machine to themselves."""
    found: dict[str, Outcome] = {}
    place = jobs[0].folder
    try:
        observe(f"candidates (0 of {len(jobs)})", 0.0)
        for outcome in spread(pool, work, [job for job in jobs if not job.candidate.timed]):
            found[outcome.label] = outcome
            observe(f"candidates ({len(found)} of {len(jobs)})", len(found) / len(jobs))
        for job in (job for job in jobs if job.candidate.timed):
            found[job.label] = work(job)
            observe(f"candidates ({len(found)} of {len(jobs)})", len(found) / len(jobs))
    finally:
        place.sweep_up()  # workers that were ended while they wrote cannot do it
    return found


@dataclass(frozen=True)
class Timing:
    """The time of one candidate.

    Attributes:
        found: A comparison as JSON; None where the runtime failed.
        reused: Whether it was measured before.
        failed: Why there is none.
    """

    found: Mapping[str, Any] | None
    reused: bool = False
    failed: str = ""


def time_all(jobs: Sequence[Job], outcomes: Mapping[str, Outcome], observe: Observer) -> dict[str, Timing]:
    """Dense against every candidate, one after the other, where that was not measured on such a machine before."""
    facts = runtime.environment()
    machine = {name: facts[name] for name in MACHINE}
    made = [job for job in jobs if finished(job) is not None]
    found = {}
    for n, job in enumerate(made):
        key = stage_key(job, machine)
        held = job.folder.read(job.label, "timing", key)
        found[job.label] = Timing(held, reused=True) if held else timed(job, key, part(observe, n, len(made)))
    return found


def part(observe: Observer, n: int, total: int) -> Observer:
    """An observer of one timing among several."""
    return lambda _, done: observe(f"time ({n + 1} of {total})", (n + done) / total)


def timed(job: Job, key: str, observe: Observer) -> Timing:
    """Time one candidate now."""
    dense, _ = opened(job.source, job.options.through_norms, job.folder.key)
    try:
        feeds = pipeline.timing_feeds(dense, pipeline.sample(dense, job.options, samples_of(job)), job.options)
        pruned = load(job.folder.model(job.label))
        found = pipeline.time_pair(dense, pruned, feeds, job.options, observe).to_dict()
    except OnnxpruneError as error:
        return Timing(None, failed=f"not timed: {error}")
    job.folder.write(job.label, "timing", key, found)
    return Timing(found)


def conclude(
    jobs: Sequence[Job],
    outcomes: Mapping[str, Outcome],
    timings: Mapping[str, Timing],
    dense: float | None,
    settings: Settings,
    names: tuple[str, str],
) -> Sweep:
    """Find the front and write what was found.

    Raises:
        PlanError: There is no candidate to be on it.
    """
    records = {job.label: record(job, outcomes[job.label], timings.get(job.label)) for job in jobs}
    points = [dense_point(jobs[0], dense, settings.time), *(r["point"] for r in records.values())]
    objectives = (*(["speedup"] if settings.time else []), "bytes", "metric" if settings.script else "fidelity")
    found = Front(*names, marked(points, objectives), objectives, conditions(timings), version())
    details = describe(found, jobs[0], records)
    place = jobs[0].folder.path
    write_atomic(place / "sweep.json", json.dumps(details, indent=2) + "\n")
    write_atomic(place / "sweep.md", front_markdown(found))
    write_atomic(place / "sweep.csv", front_csv(found))
    if all(point.bytes is None for point in points[1:]):
        what = f"not one of {words.plural(len(jobs), 'candidate')} could be made; {points[1].label}: {points[1].note}"
        raise PlanError(what, where=names[0], remedy="see sweep.md in the folder for every reason")
    done = sum(len(o.done) for o in outcomes.values()) + sum(not t.reused and not t.failed for t in timings.values())
    reused = sum(len(o.reused) for o in outcomes.values()) + sum(t.reused for t in timings.values())
    return Sweep(found, details, done, reused)


def record(job: Job, outcome: Outcome, timing: Timing | None) -> dict[str, Any]:
    """All that is known of a candidate, with its point."""
    held, key = finished(job), stage_key(job)
    near = job.folder.read(job.label, "fidelity", key) if held else None
    own = job.folder.read(job.label, "metric", stage_key(job, file_hash(job.script))) if held and job.script else None
    note = "; ".join(filter(None, (outcome.failed, timing.failed if timing else "")))
    point = Point(job.label, job.candidate.text, note=note)
    if held:
        point = replace(point, macs=held["macs"], params=held["params"], bytes=held["bytes"])
    if near:
        point = replace(point, fidelity=near["cosine"], agreement=near["agreement"])
    if own:
        point = replace(point, metric=own["value"])
    if timing and timing.found:
        low, high = timing.found["ci95"]
        point = replace(point, speedup=timing.found["speedup"], ci95=(low, high))
    return {"point": point, "fidelity": near, "latency": timing.found if timing else None}


def dense_point(job: Job, value: float | None, timed: bool) -> Point:
    """The model as it came."""
    _, dependencies = opened(job.source, job.options.through_norms, job.folder.key)
    size = cost(dependencies).bytes
    return Point(DENSE, "", 1.0 if timed else None, None, 1.0, 1.0, size, 1.0, 1.0, value)


def marked(points: Sequence[Point], objectives: Sequence[str]) -> tuple[Point, ...]:
    """The points, with those on the front marked; what has no model is on none."""
    made = [point for point in points if point.bytes is not None]
    sign = {"bytes": -1.0}
    scores = [[scaled(getattr(point, o), sign.get(o, 1.0)) for o in objectives] for point in made]
    best = {point.label for point, on in zip(made, pareto.front(scores), strict=True) if on}
    return tuple(replace(point, on_front=point.label in best) for point in points)


def scaled(value: float | None, sign: float) -> float | None:
    """A figure to be maximised."""
    return None if value is None else sign * value


def conditions(timings: Mapping[str, Timing]) -> str:
    """Under which conditions the times hold."""
    held = next((t.found for t in timings.values() if t.found), None)
    if held is None:
        return ""
    where = f"{held['provider']}, {words.plural(held['threads'], 'thread')}, batch {held['batch']}"
    cpu = held.get("environment", {}).get("cpu")
    return f"{where}, {cpu}" if cpu else where


def describe(front: Front, job: Job, records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Everything as JSON."""
    listed = []
    for point in front.points:
        held = records.get(point.label, {})
        files = {"model": f"{point.label}.onnx", "report": f"{point.label}.json"} if held and point.bytes else {}
        rest = {"fidelity_by_output": held.get("fidelity"), "latency": held.get("latency"), "files": files}
        listed.append({**asdict(point), **rest})
    found = {
        "schema": SCHEMA,
        "onnxprune": front.version,
        "model": front.model,
        "key": job.folder.key,
        "objectives": front.objectives,
        "limits": asdict(job.limits),
        "options": {k: v for k, v in asdict(job.options).items() if k not in ("time", "overwrite")},
        "points": listed,
        "front": [point.label for point in front.points if point.on_front],
    }
    return {key: plain(value) for key, value in found.items()}
