"""Where candidates are worked on. Law: whatever the backend and the number of jobs, the files are the same.

Only what is pickled cheaply crosses to a worker: paths, targets, options. Each worker opens models itself, so no
session of onnxruntime ever leaves its process, and writes what it finishes, so an interrupt loses nothing finished.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from onnxprune.errors import OnnxpruneError, PlanError, RuntimeUnavailable

BACKENDS = ("loky", "threading", "dask", "ray")
NEEDS = {"dask": ("dask", "distributed"), "ray": ("ray",)}
Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Pool:
    """Who works.

    Attributes:
        backend: 'loky' (processes), 'threading', 'dask' or 'ray'.
        jobs: Candidates at a time; None: as many as there are cores, or workers at the scheduler.
        scheduler: Address of a running dask scheduler or ray cluster; None starts one on this machine.
    """

    backend: str = "loky"
    jobs: int | None = None
    scheduler: str | None = None

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise PlanError(f"unknown backend '{self.backend}'", remedy=f"use one of {', '.join(BACKENDS)}")
        if self.scheduler and self.backend not in NEEDS:
            raise PlanError(f"--backend {self.backend} has no scheduler", remedy="use --backend dask or ray")

    @property
    def local_jobs(self) -> int:
        """Workers to start on this machine."""
        return self.jobs or os.cpu_count() or 1


def check_installed(pool: Pool) -> None:
    """Refuse a backend whose library is missing.

    Raises:
        RuntimeUnavailable: Its extra is to be installed.
    """
    for name in NEEDS.get(pool.backend, ()):
        try:
            importlib.import_module(name)
        except ImportError as error:
            what = f"--backend {pool.backend} needs the package '{name}', which cannot be imported ({error})"
            raise RuntimeUnavailable(what, remedy=f"pip install 'onnxprune[{pool.backend}]'") from error


def spread(pool: Pool, work: Callable[[Task], Result], tasks: Sequence[Task]) -> Generator[Result, None, None]:
    """The result of every task as it is finished, in any order. When this ends, however it ends, no worker is left."""
    import joblib  # half of the time this package takes to import, needed by one command

    if not tasks:
        return
    check_installed(pool)
    with running(pool) as jobs:
        ordered = pool.backend == "ray"  # its backend can hand over everything at the end only
        parallel = joblib.Parallel(n_jobs=jobs, batch_size=1, return_as="list" if ordered else "generator_unordered")
        results = parallel(joblib.delayed(work)(task) for task in tasks)
        try:
            for result in results:  # noqa: UP028  (it would close them first, with a warning)
                yield result
        finally:
            if not ordered:
                with warnings.catch_warnings(action="ignore"):  # of joblib, that tasks are cancelled: they should be
                    results.close()


@contextmanager
def running(pool: Pool) -> Iterator[int]:
    """joblib's backend in place, with its workers; gives the number of jobs."""
    import joblib

    with ExitStack() as held:
        jobs = STARTERS[pool.backend](pool, held)
        held.enter_context(joblib.parallel_config(backend=pool.backend, n_jobs=jobs))
        yield jobs


def start_loky(pool: Pool, held: ExitStack) -> int:
    """Processes on this machine; joblib starts them, and would leave them for a next call."""
    from joblib.externals.loky import get_reusable_executor

    if pool.local_jobs > 1:  # one job runs in this process
        held.callback(lambda: get_reusable_executor().shutdown(wait=True, kill_workers=True))
    return pool.local_jobs


def start_threads(pool: Pool, held: ExitStack) -> int:
    """Threads of this process. None can be ended from outside, so the candidates in work are waited for."""
    before = set(threading.enumerate())

    def wait() -> None:
        for thread in set(threading.enumerate()) - before:
            thread.join()

    held.callback(wait)
    return pool.local_jobs


def start_dask(pool: Pool, held: ExitStack) -> int:
    """A client of a running scheduler, or of a cluster of processes on this machine."""
    distributed = importlib.import_module("distributed")
    if pool.scheduler is None:
        cluster = distributed.LocalCluster(
            n_workers=pool.local_jobs,
            threads_per_worker=1,
            dashboard_address=None,  # no port is opened for a web page
            memory_limit=0,  # models are large, and a worker that is ended for it would end the sweep
            silence_logs=logging.CRITICAL,
        )
        held.enter_context(cluster)
        client = held.enter_context(distributed.Client(cluster))
        client.run(ignore_interrupts)
        return pool.local_jobs
    with named(pool):
        client = held.enter_context(distributed.Client(pool.scheduler, timeout="10s"))
    return pool.jobs or max(1, sum(client.nthreads().values()))


def start_ray(pool: Pool, held: ExitStack) -> int:
    """A running ray cluster, or one on this machine."""
    ray: Any = importlib.import_module("ray")
    options: dict[str, Any] = {"address": pool.scheduler} if pool.scheduler else {"num_cpus": pool.local_jobs}
    with named(pool), deaf():
        ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False, **options)
    held.callback(ray.shutdown)
    importlib.import_module("ray.util.joblib").register_ray()
    return pool.jobs or max(1, int(ray.cluster_resources().get("CPU", 1)))


def ignore_interrupts() -> None:
    """In a worker: a terminal sends Ctrl-C to all, but it is the sweep that ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def deaf() -> Iterator[None]:
    """Processes started here do not get Ctrl-C, which a terminal sends to all: this one ends them, in order.

    They inherit the mask; what arrives here meanwhile waits until the block ends.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def named(pool: Pool) -> Iterator[None]:
    """An error of starting or reaching a cluster, as one of ours."""
    try:
        yield
    except OnnxpruneError:
        raise
    except Exception as error:
        what = f"--backend {pool.backend} cannot reach its scheduler ({error})"
        where = pool.scheduler or "this machine"
        raise RuntimeUnavailable(what, where=where, remedy="check --scheduler, or leave it out") from error


STARTERS = {"loky": start_loky, "threading": start_threads, "dask": start_dask, "ray": start_ray}
