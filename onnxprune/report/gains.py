"""Where the time goes, for a terminal. Law: layers that failed to gain are shown with why, the costliest first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from onnxprune.bench import Comparison
from onnxprune.gains import Gains, Layer
from onnxprune.report import words
from onnxprune.report.canvas import Canvas, View

ROWS = 40  # layers shown of a profile
FAILED = 8  # layers shown with their reasons
ABBREVIATED = (("com.microsoft.nchwc.", "nchwc."), ("com.microsoft.", "ms."))


def gains_view(gains: Gains, comparison: Comparison) -> View:
    """Time per operator and per layer, and which layers failed to gain."""

    def draw(canvas: Canvas) -> Iterator[RenderableType]:
        yield from operator_table(canvas, gains)
        times = (gains.before_ms, gains.after_ms), (comparison.before_ms, comparison.after_ms)
        sums, whole = (canvas.arrows([(words.milliseconds(b), words.milliseconds(a))])[0] for b, a in times)
        yield canvas.text(f"all operators {sums} in {words.plural(gains.runs, 'profiled run')}; unprofiled {whole}")
        yield Text("")
        yield from layer_table(canvas, gains.layers)
        yield from failures(canvas, gains)

    return View(draw)


def operator_table(canvas: Canvas, gains: Gains) -> Iterator[RenderableType]:
    """Kernels by kind."""
    found = gains.operators
    counts = canvas.arrows([(str(o.count_before), str(o.count_after)) for o in found])
    times = canvas.arrows([(f"{o.ms_before:.3f}", f"{o.ms_after:.3f}") for o in found])
    sums = max(gains.before_ms, 1e-9), max(gains.after_ms, 1e-9)
    shares = canvas.arrows([(f"{o.ms_before / sums[0]:.0%}", f"{o.ms_after / sums[1]:.0%}") for o in found])
    columns = [["count", *counts], ["ms", *times], ["share", *shares]]
    yield from rows(canvas, "operator", [o.op for o in found], columns)


def layer_table(canvas: Canvas, layers: Sequence[Layer]) -> Iterator[RenderableType]:
    """Layers in the order of the graph."""
    if not layers:
        yield canvas.text("no layers: the two models do not share the names of their tensors", "dim")
        return
    shown = layers[:ROWS]
    pairs = [(la.pair.before, la.pair.after) for la in shown]
    kernels = [changed(canvas, *(abbreviated(s.main.op) if s.main else "-" for s in pair)) for pair in pairs]
    shapes = [changed(canvas, *("x".join(map(str, s.shape)) for s in pair)) for pair in pairs]
    times = canvas.arrows([(f"{b.ms:.3f}", f"{a.ms:.3f}") for b, a in pairs])
    ratios = [f"{la.ratio:.2f}x" if la.ratio else "-" for la in shown]
    columns = [["kernel", *kernels], ["shape", *shapes], ["ms", *times], ["ratio", *ratios]]
    while len(columns) > 2 and canvas.rest(columns) < len("layer") + 14:
        del columns[max(range(len(columns) - 2), key=lambda i: max(map(len, columns[i])))]
    yield from rows(canvas, "layer", [la.pair.node for la in shown], columns)
    if len(layers) > ROWS:
        yield canvas.text(f"... and {words.plural(len(layers) - ROWS, 'more layer')} (see --json)", "dim")


def rows(canvas: Canvas, head: str, names: Sequence[str], columns: Sequence[Sequence[str]]) -> Iterator[RenderableType]:
    """A table of names and columns beside them."""
    table = canvas.table([(head, "left"), *((c[0], "right") for c in columns)])
    shown = canvas.names(names, [""] * len(names), canvas.rest(columns))
    for cells in zip(shown, *(c[1:] for c in columns), strict=True):
        table.add_row(*cells)
    yield table


def abbreviated(op: str) -> str:
    """An operator with its domain shortened."""
    return next((short + op.removeprefix(long) for long, short in ABBREVIATED if op.startswith(long)), op)


def changed(canvas: Canvas, before: str, after: str) -> str:
    """'before -> after', or one where they are the same."""
    return before if before == after else f"{before} {canvas.arrow} {after}"


def failures(canvas: Canvas, gains: Gains | None) -> Iterator[RenderableType]:
    """Layers that failed to gain, with why and what helps."""
    if gains is None:
        return
    found = gains.failed
    if not found:
        yield canvas.text("every layer whose work shrank gained", "dim")
        return
    yield Text("")
    yield Text("Layers that failed to gain", style="bold")
    for layer in found[:FAILED]:
        times = [words.milliseconds(side.ms) for side in (layer.pair.before, layer.pair.after)]
        texts, remedies = why(layer)
        yield canvas.text(f"{layer.pair.node}  {canvas.arrows([(times[0], times[1])])[0]}", "yellow")
        yield from (canvas.text(f"  {text}") for text in texts)
        yield from (canvas.text(f"  {remedy}", "dim") for remedy in remedies)
    if len(found) > FAILED:
        yield canvas.text(f"... and {words.plural(len(found) - FAILED, 'more layer')} (in the JSON)", "dim")


def why(layer: Layer) -> tuple[list[str], list[str]]:
    """The reasons of a layer, and their remedies, each once."""
    return [r.text for r in layer.reasons], list(dict.fromkeys(r.remedy for r in layer.reasons if r.remedy))
