"""Whether a pruned model is written. Law: what was timed and is not measurably faster is not, unless that is forced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from onnxprune.bench import Comparison
from onnxprune.errors import NoSpeedup
from onnxprune.gains import Gains, Layer, explain
from onnxprune.model import Model
from onnxprune.report import Report
from onnxprune.runtime import CPU, Feeds


def judged(
    report: Report,
    dense: Model,
    pruned: Model,
    feeds: Feeds,
    threads: int = 1,
    seed: int = 0,
    *,
    always: bool = False,
    force: bool = False,
) -> Report:
    """A report with a verdict: without an output where the model is refused, with why it is not faster.

    A model whose outputs are the original's is written unless it is slower: it was not asked to be faster.

    Args:
        report: With its timing.
        dense: The model that was timed.
        pruned: Its pruning.
        feeds: What they were timed on.
        threads: Threads inside one operator.
        seed: Of the order of profiled runs.
        always: Whether layers are profiled although it is faster.
        force: Whether it is written in any case.
    """
    faster = report.latency is not None and report.latency.verdict == "faster"
    tells = report.latency is None or report.latency.provider == CPU  # what other kernels take, no profile says
    gains = explain(dense, pruned, feeds, threads=threads, seed=seed) if tells and (always or not faster) else None
    return replace(report, output=report.output if faster or force or report.lossless else "", gains=gains)


def refusal(report: Report) -> NoSpeedup | None:
    """The error for a model that is not to be written; None for one that is."""
    if report.latency is None or report.output:
        return None
    return no_speedup(report.latency, report.gains)


def no_speedup(comparison: Comparison, gains: Gains | None) -> NoSpeedup:
    """The error for a model that is not measured to be faster.

    Args:
        comparison: The timing.
        gains: Why, where that was found out.
    """
    low, high = comparison.ci95
    figures = f"{comparison.speedup:.2f}x, 95% interval {low:.2f} to {high:.2f}"
    verdict = "slower" if comparison.verdict == "slower" else "not measurably faster"
    noise = "" if comparison.control_ok else ", on a machine too busy to tell"
    layers = gains.failed if gains else ()
    advice = next((r.remedy for layer in layers for r in layer.reasons if "--align" in r.remedy), "remove more")
    return NoSpeedup(
        f"the pruned model is {verdict} ({figures}{noise}) and was not written",
        where=summed_up(layers) if layers else "no layer stands out" if gains else "",
        remedy=f"{advice}, or write it all the same with --force",
    )


def summed_up(layers: Sequence[Layer]) -> str:
    """How many layers failed to gain and by which cause, and the costliest one in full."""
    kinds = Counter(layer.reasons[0].kind for layer in layers)
    counted = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
    first = f"'{layers[0].pair.node}': {layers[0].reasons[0].text}"
    return f"layers that failed to gain: {counted}, first {first}"
