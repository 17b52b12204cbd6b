"""Whether a pruned model may be written. Law: what is not measured to be faster is not, unless that is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from onnxprune.bench import Comparison
from onnxprune.errors import NoSpeedup
from onnxprune.gains.profiles import Gains, Layer


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
    advice = next((r.remedy for layer in layers for r in layer.reasons if "--align" in r.remedy), "remove more")
    return NoSpeedup(
        f"the pruned model is {verdict} ({figures}{noise}) and was not written",
        where=summed_up(layers) if layers else "no layer stands out",
        remedy=f"{advice}, or write it all the same with --force",
    )


def summed_up(layers: Sequence[Layer]) -> str:
    """How many layers failed to gain and by which cause, and the costliest one in full."""
    kinds = Counter(layer.reasons[0].kind for layer in layers)
    counted = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
    first = f"'{layers[0].pair.node}': {layers[0].reasons[0].text}"
    return f"layers that failed to gain: {counted}, first {first}"
