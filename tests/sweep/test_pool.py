"""Laws of the pool: every task has its result, and when it is stopped no worker is left."""

from __future__ import annotations

import threading
import time

from onnxprune.sweep.pool import Pool, spread


def slow(number: int) -> int:
    time.sleep(0.05)
    return -number


def test_every_task_has_its_result() -> None:
    for jobs in (1, 3):
        assert sorted(spread(Pool("threading", jobs), slow, range(5))) == [-4, -3, -2, -1, 0]
    assert not list(spread(Pool(), slow, []))


def test_a_stop_waits_for_the_threads_at_work() -> None:
    before, results = set(threading.enumerate()), spread(Pool("threading", 2), slow, range(20))
    next(results)
    results.close()  # as an interrupt does
    assert set(threading.enumerate()) == before
