"""Whether a pruned model may be written. Law: what is not measured to be faster is not, unless that is asked for."""

from __future__ import annotations

from onnxprune.bench import Comparison
from onnxprune.errors import NoSpeedup
from onnxprune.gains.profiles import Gains

FIRST = 2  # reasons that the error names


def is_faster(comparison: Comparison) -> bool:
    """Whether the whole interval of the speedup lies above 1 and the margin that identical models leave."""
    return comparison.significant and comparison.speedup > 1


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
    first = [f"'{layer.pair.node}': {layer.reasons[0].text}" for layer in layers[:FIRST]]
    more = [f"and {len(layers) - FIRST} more layers"] if len(layers) > FIRST else []
    advice = next((r.remedy for layer in layers for r in layer.reasons if "--align" in r.remedy), "remove more")
    return NoSpeedup(
        f"the pruned model is {verdict} ({figures}{noise}) and was not written",
        where=", ".join([*first, *more]) or "no layer stands out",
        remedy=f"{advice}, or write it all the same with --force",
    )
