"""Recovery as the options ask for it. Law: without samples it has to be asked for, and off means off."""

from __future__ import annotations

from collections.abc import Sequence

from onnxprune.labels import Ids
from onnxprune.model import Model
from onnxprune.pipeline.options import Options
from onnxprune.progress import Observer
from onnxprune.recover import AUTO, Recovered, recover
from onnxprune.runtime import Feeds
from onnxprune.trace import Dependencies


def recovery(options: Options, samples: bool) -> str | None:
    """The method that weights are recovered by; None where they are left as they are.

    Without samples it has to be asked for: nothing tells whether the result is nearer to the dense model.
    """
    if options.recover is False:
        return None
    if options.recovery != "auto":
        return options.recovery
    return AUTO if samples else ("merge" if options.recover else None)


def recovered(
    dependencies: Dependencies,
    removed: Ids,
    pruned: Model,
    samples: Sequence[Feeds],
    options: Options,
    observe: Observer,
) -> Recovered | None:
    """What recovery makes of a pruned model, see `recover`; None where weights are left as they are.

    Args:
        dependencies: The traced dense model.
        removed: Unit numbers.
        pruned: What is left of it.
        samples: To fit to; without enough of them, none.
        options: Method, threads, memory and seed.
        observe: Called with a stage's name and the share of it that is done.
    """
    method = recovery(options, bool(samples))
    if method is None:
        return None
    how = {"threads": options.threads, "memory": options.memory, "seed": options.seed, "method": method}
    return recover(dependencies, removed, pruned, samples, **how, observe=observe)  # type: ignore[arg-type]
