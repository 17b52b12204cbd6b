"""Whether a pruned model is written. Law: what was timed and is not measurably faster is not, unless that is forced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from onnxprune.errors import NoSpeedup, VerificationError
from onnxprune.gains import explain, is_faster, no_speedup
from onnxprune.model import Model
from onnxprune.report import Report
from onnxprune.runtime import Feeds


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
    faster = report.latency is not None and is_faster(report.latency)
    gains = explain(dense, pruned, feeds, threads=threads, seed=seed) if always or not faster else None
    return replace(report, output=report.output if faster or force else "", gains=gains)


def refusal(report: Report) -> NoSpeedup | None:
    """The error for a model that is not to be written; None for one that is."""
    if report.latency is None or report.output:
        return None
    return no_speedup(report.latency, report.gains)


def not_all(isolated: Mapping[str, str]) -> VerificationError:
    """The error for groups that fail where all of them were to be pruned."""
    names, first = ", ".join(f"'{name}'" for name in isolated), next(iter(isolated.values()))
    what = f"not all groups can be pruned: {names} ({first})"
    return VerificationError(what, remedy="nothing was written; without --strict they are left whole")
