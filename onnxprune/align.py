"""The width step this machine rewards. Law: a step is chosen only when widths inside it cost the same when timed.

Runtimes round channel counts up to whole blocks (onnxruntime's NCHWc layout: 16 with AVX-512, 8 with AVX2, none
elsewhere), so time over width is a staircase and a width just above a stair is paid for in full. A staircase of small
3x3 convolutions, `fixed` -> c -> `fixed` channels, is timed on the runtime itself, and the step read off the times.
The answer is kept in the user's cache folder, by processor, onnxruntime version, provider and threads, unless the
machine was so busy that two halves of the measurement disagree.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxprune import runtime
from onnxprune.cache import cache_path, machine_key, recall, remember

Floats = NDArray[np.float64]

SCHEMA = 1
STEPS = (4, 8, 16, 32)  # candidates above 1; each divides the next
FLAT = 0.4  # slope inside a stair over the slope across stairs: 0 for a stair, about 0.8 for a stair twice too wide
MIN_ROUNDS, MAX_ROUNDS, BUDGET_S = 8, 60, 1.2  # of one turn
ATTEMPTS = 3
BETWEEN = (17, 18, 41, 42, 57, 58, 77, 78)  # widths off the multiples of 4, to tell a step of 4 from none


@dataclass(frozen=True)
class Step:
    """The answer of `width_step`.

    Attributes:
        step: Channel counts should be multiples of this; 1 means any width is as good.
        widths: Channel counts timed, ascending.
        times_ms: Time of the two convolutions at each width, ms.
        source: 'measured' now, or read from the 'cache'.
    """

    step: int
    widths: tuple[int, ...]
    times_ms: tuple[float, ...]
    source: Literal["measured", "cache"]


def width_step(*, provider: str = "cpu", threads: int = 1, cache: bool = True) -> Step:
    """Find the width step the machine rewards, in a second or two; at once when it is in the cache.

    Args:
        provider: Execution provider, as for `runtime.session`.
        threads: Threads inside one operator.
        cache: Read and write the cache. A cache that cannot be read or written is not an error.

    Raises:
        ProviderError, RuntimeUnavailable: See `runtime.session`.
    """
    path = cache_path("width-step", key(provider, threads)) if cache else None
    if before := known(path):
        return before
    rounds = staircase(provider=provider, threads=threads)
    widths, times = tuple(rounds), low(rounds)
    found = Step(infer(widths, times), widths, times, "measured")
    if agree(rounds):
        remember(path, key(provider, threads), asdict(found))
    return found


def infer(widths: Sequence[int], times_ms: Sequence[float]) -> int:
    """Read the step off a staircase: the widest stair that is flat, all narrower ones being flat too.

    For each candidate s the widths fall into stairs ceil(c / s); the least-squares slope within stairs, pooled over
    all of them, is compared with the slope over all widths. It is robust to what a fitted staircase is not: stairs of
    unequal height (caches), and widths off the fast layout costing more than the whole stair. A smaller step wins
    ties, because it costs least when wrong.

    Args:
        widths: Channel counts.
        times_ms: Time at each.

    Returns:
        1, 4, 8, 16 or 32; 1 when time does not grow with width.
    """
    c, t = np.asarray(widths, np.float64), np.asarray(times_ms, np.float64)
    whole = c % STEPS[0] == 0
    across = slope(c[whole], t[whole], np.zeros(int(whole.sum())))
    chosen = 1
    for step in STEPS:
        use = np.full(c.shape, True) if step == STEPS[0] else whole
        if across <= 0 or slope(c[use], t[use], np.ceil(c[use] / step)) > FLAT * across:
            break
        chosen = step
    return chosen


def slope(x: Floats, y: Floats, group: Floats) -> float:
    """Least-squares slope of y over x with an intercept of its own for every group.

    Args:
        x: Positions (n,).
        y: Values (n,).
        group: Group label of each (n,).
    """
    _, index = np.unique(group, return_inverse=True)
    size = np.bincount(index)
    dx = x - (np.bincount(index, x) / size)[index]
    dy = y - (np.bincount(index, y) / size)[index]
    spread = float(dx @ dx)
    return float(dx @ dy) / spread if spread else 0.0


def staircase(*, provider: str = "cpu", threads: int = 1) -> dict[int, list[float]]:
    """Time the convolutions at every width: width, ascending -> seconds, one per round.

    An accelerator is given wider and larger maps, and 16 of them: with one, a large GPU takes as long for any width.
    """
    on_host = runtime.provider_name(provider) == runtime.CPU
    fixed, size, base, batch = (64, 28, 32, 1) if on_host else (256, 56, 128, 16)
    runners = {}
    for width in sorted(base + w for w in (*range(4, 97, 4), *BETWEEN)):
        model = pair(width, fixed, size, batch)
        opened = runtime.session(model, provider=provider, threads=threads)
        runners[width] = runtime.runner(opened, runtime.random_feeds(model))
    return settle(runners)


def settle(runners: Mapping[int, Callable[[], object]]) -> dict[int, list[float]]:
    """Time until the even and the odd rounds give the same answer, in at most ATTEMPTS turns."""
    rounds: dict[int, list[float]] = {width: [] for width in runners}
    for turn in range(ATTEMPTS):
        for width, seconds in interleave(runners, seed=turn).items():
            rounds[width] += seconds
        if agree(rounds):
            break
    return rounds


def agree(rounds: Mapping[int, Sequence[float]]) -> bool:
    """Whether every other round leads to the same step as the rounds between: if not, the machine is too busy."""
    halves = ({w: seconds[half::2] for w, seconds in rounds.items()} for half in (0, 1))
    first, second = (infer(tuple(half), low(half)) for half in halves)
    return first == second == infer(tuple(rounds), low(rounds))


def low(rounds: Mapping[int, Sequence[float]]) -> tuple[float, ...]:
    """A time for each width, ms: the lower quartile of its rounds.

    Other load only adds time, but the very least can be a moment of raised clock.
    """
    return tuple(float(np.quantile(seconds, 0.25)) * 1e3 for seconds in rounds.values())


def pair(width: int, fixed: int, size: int, batch: int = 1) -> onnx.ModelProto:
    """Two 3x3 convolutions, `fixed` -> `width` -> `fixed` channels, on `batch` maps of `size` x `size`."""
    rng = np.random.default_rng(0)
    shapes = {"w0": (width, fixed, 3, 3), "w1": (fixed, width, 3, 3)}
    weights = [numpy_helper.from_array(rng.normal(0, 0.05, s).astype(np.float32), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("Conv", [a, w], [b], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        for a, w, b in (("x", "w0", "h"), ("h", "w1", "y"))
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [batch, fixed, size, size]) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "pair", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def interleave(
    runners: Mapping[int, Callable[[], object]], *, seed: int = 0, clock: Callable[[], float] = time.perf_counter
) -> dict[int, list[float]]:
    """Seconds of every runner, once a round in shuffled order, so that drift and other load hit all widths alike."""
    rng, start = np.random.default_rng(seed), clock()
    times: dict[int, list[float]] = {width: [] for width in runners}
    keys, rounds = list(runners), 0
    while rounds < MIN_ROUNDS or (rounds < MAX_ROUNDS and clock() - start < BUDGET_S):
        for index in rng.permutation(len(keys)):
            run = runners[keys[index]]
            run()  # brings the weights back into the caches the last width has filled
            times[keys[index]].append(min(timed(run, clock) for _ in range(2)))
        rounds += 1
    return times


def timed(run: Callable[[], object], clock: Callable[[], float]) -> float:
    """Seconds of one run."""
    start = clock()
    run()
    return clock() - start


def key(provider: str, threads: int) -> dict[str, Any]:
    """Everything the answer depends on."""
    return machine_key(provider, threads) | {"schema": SCHEMA}


def known(path: Path | None) -> Step | None:
    """The remembered answer; None when there is none, or the file is damaged."""
    held = recall(path) or {}
    try:
        step, widths, times = int(held["step"]), tuple(map(int, held["widths"])), tuple(map(float, held["times_ms"]))
    except (ValueError, KeyError, TypeError):
        return None
    if step not in (1, *STEPS) or len(widths) != len(times):
        return None
    return Step(step, widths, times, "cache")
