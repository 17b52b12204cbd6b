"""The two models in one process. Law: three sessions are alike in everything but the model, and get the same inputs.

They are the dense model, the same dense model in a second session (the A/A control), and the pruned model; with the
same explicit number of threads, operators one after another, thread spinning off. They are opened in a shuffled order,
so that no model is always the one whose memory lies first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxprune import runtime
from onnxprune.bench.measure import Samples, measure
from onnxprune.bench.protocol import Protocol
from onnxprune.errors import DataError
from onnxprune.runtime import Feeds, Session, Source


@dataclass(frozen=True)
class Setting:
    """How models are opened and run.

    Attributes:
        provider: Execution provider, as for `runtime.session`.
        threads: Threads inside one operator.
        fp16: Whether the models compute in float16.
    """

    provider: str = "cpu"
    threads: int = 1
    fp16: bool = False

    def open(self, model: Source) -> Session:
        """A session of this setting."""
        return runtime.session(model, provider=self.provider, threads=self.threads, fp16=self.fp16)


@dataclass(frozen=True)
class Measured:
    """What one process found.

    Attributes:
        samples: Raw times, for each set of inputs.
        provider: The provider that ran.
        options: The provider's options, as onnxruntime reports them.
        cores: The cores the process was pinned to; empty where it was not.
        nodes: Providers -> nodes of the dense model they ran, where onnxruntime tells; empty on the CPU.
    """

    samples: tuple[Samples, ...]
    provider: str
    options: dict[str, Any]
    cores: tuple[int, ...] = ()
    nodes: dict[str, int] = field(default_factory=dict)


def time_pair(
    before: Source,
    after: Source,
    inputs: Sequence[Feeds],
    setting: Setting,
    protocol: Protocol,
    *,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Measured:
    """Time two models and the control in this process, on each set of inputs in turn.

    Args:
        before: The dense model.
        after: The pruned model.
        inputs: Sets of feeds.
        setting: How models are opened.
        protocol: How long and how often.
        seed: Of the orders.
        progress: Called with the share done, 0 to 1.

    Raises:
        DataError: The models take different inputs, or not these.
    """
    pair = {"before": before, "control": before, "after": after}
    order = [list(pair)[i] for i in np.random.default_rng(seed).permutation(len(pair))]
    sessions = {name: setting.open(pair[name]) for name in order}
    refuse_different(sessions["before"], sessions["after"])
    found = []
    for number, feeds in enumerate(inputs):
        runners = {name: runtime.runner(sessions[name], feeds) for name in pair}

        def observe(share: float, number: int = number) -> None:
            if progress:
                progress((number + share) / len(inputs))

        found.append(measure(runners, protocol=protocol, seed=seed, progress=observe))
    return measured(found, sessions["before"])


def measured(samples: Sequence[Samples], opened: Session) -> Measured:
    """Samples, with what ran them."""
    used = opened.get_providers()[0]
    options = dict(opened.get_provider_options().get(used, {}))
    nodes = dict(runtime.assigned(opened) or {}) if used != runtime.CPU else {}
    return Measured(tuple(samples), used, options, nodes=nodes)


def refuse_different(before: Session, after: Session) -> None:
    """Raise DataError unless both sessions take inputs of the same names, types and shapes."""
    one, two = runtime.signature(before), runtime.signature(after)
    for name in sorted(one.keys() | two.keys()):
        if one.get(name) != two.get(name):
            sides = [_described(side.get(name)) for side in (one, two)]
            where = f"input '{name}': {sides[0]} before, {sides[1]} after"
            raise DataError(
                "the two models take different inputs", where=where, remedy="compare a model and its pruning"
            )


def _described(kind: tuple[str, tuple[int | str | None, ...]] | None) -> str:
    return "absent" if kind is None else f"{kind[0]} [{', '.join(str(d) for d in kind[1])}]"


def made_up(model: Source, batch: int, seed: int) -> Feeds:
    """Seeded random inputs of a batch size; any model takes 1, which then stands for its own.

    Raises:
        DataError: The model's batch is fixed at another size.
    """
    feeds = runtime.random_feeds(model, batch=batch, seed=seed)
    size = batch_size(feeds)
    if batch not in (1, size):
        remedy = f"bench with a batch of {size}, or export the model with an open batch axis"
        raise DataError(f"the model's batch is fixed at {size}, not {batch}", remedy=remedy)
    return feeds


def batch_size(feeds: Feeds) -> int:
    """Size of the first axis of the first input that has axes; 1 if none has."""
    return next((a.shape[0] for a in feeds.values() if a.ndim), 1)
