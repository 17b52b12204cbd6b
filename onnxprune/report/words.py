"""How figures and names read, in every form of the report. Law: ASCII only, one line, and nothing a name can break.

Tensor names come from the model file, so they may hold anything: control characters are shown as escapes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from onnxprune import lossless
from onnxprune.bench import MARGIN, Comparison
from onnxprune.fit import Fitted
from onnxprune.recover import Recovered
from onnxprune.verify import Equivalence

GAP = "..."
SCALES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
NUMBERED = re.compile(r"onnx::.*|(val_)?\d+")  # tensors that an exporter numbered
EXACT = 10_000  # counts below this are shown to the last digit


def count(n: float) -> str:
    """A number of weights or multiplications, to four digits: '272.5 k'."""
    return f"{n:,.0f}" if n < EXACT else scaled(n, "")


def size(n: float) -> str:
    """A number of bytes, in powers of 1000: '1.042 MB'."""
    return f"{n:.0f} B" if n < 1000 else scaled(n, "B")


def scaled(n: float, unit: str) -> str:
    """Four significant digits and a decimal prefix."""
    for scale, prefix in SCALES:
        if float(f"{n:.4g}") >= scale:
            digits = max(0, 4 - len(f"{n / scale:.0f}"))
            return f"{n / scale:.{digits}f} {prefix}{unit}"
    return f"{n:.0f} {unit}".strip()


def change(before: float, after: float) -> str:
    """A relative change: '-51.1%'. Nothing to compare with gives '-'."""
    return f"{(after - before) / before:+.1%}" if before else "-"


def plural(n: int, noun: str) -> str:
    """'1 layer', '2 layers', '3 batches'."""
    ending = "es" if noun.endswith(("ch", "x", "s")) else "s"
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}{ending}"


def shorten(name: str, width: int) -> str:
    """A name in at most `width` characters: repeated parts of a path go first, then the middle; the end tells most."""
    if len(name) <= width:
        return name
    name = lean(name)
    if len(name) <= width or width <= len(GAP) + 2:
        return name[:width]
    head = (width - len(GAP)) * 2 // 5
    return name[:head] + GAP + name[len(name) - (width - len(GAP) - head) :]


def ending(name: str, width: int) -> str:
    """The end of a name in at most `width` characters, for names that differ in the middle."""
    name = name if len(name) <= width else lean(name)
    return name if len(name) <= width else GAP + name[len(name) - max(width - len(GAP), 1) :]


def lean(path: str) -> str:
    """A path without the parts that the next part repeats: '/layer1/layer1.0/Conv' becomes '.../layer1.0/Conv'."""
    parts = [part for part in path.split("/") if part]
    kept = [part for part, after in pairwise([*parts, ""]) if not after.startswith(part)]
    return "/".join([GAP, *kept]) if len(kept) < len(parts) else path


def printable(text: str, *, ascii_only: bool = False) -> str:
    """Text without control characters (shown as escapes), and without what the encoding lacks."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown.encode("ascii", "backslashreplace").decode() if ascii_only else shown


def label(name: str, nodes: Sequence[str]) -> str:
    """What to call a group: its first tensor, or that tensor's node where an exporter numbered the tensors."""
    return nodes[0] if NUMBERED.fullmatch(name) and nodes and nodes[0] else name


def interval(bounds: Sequence[float]) -> str:
    """A 95% interval of a ratio."""
    return f"95% interval {bounds[0]:.2f} to {bounds[1]:.2f}"


def speedup(c: Comparison) -> str:
    """What the timing says, plainly."""
    figures = f"{c.speedup:.2f}x, {interval(c.ci95)}"
    if not c.significant:
        noise = f"; identical models differed by {c.margin:.0%}" if c.margin > MARGIN else ""
        return f"{c.verdict} ({figures}{noise})"
    return f"{c.verdict}: {figures}"


def fitted(f: Fitted) -> str:
    """How a target in time was met."""
    found = ", ".join(f"{t.speedup:.2f}x" for t in f.trials)
    end = "met" if f.reached else "out of reach" if f.least else "not met"
    return f"{f.wanted:.2f}x, {end} after {plural(len(f.trials), 'measurement')}: {found}"


def recovery(found: Recovered) -> str:
    """What refitting came to."""
    if found.note:
        return found.note
    done = f"{sum(bool(layer.method) for layer in found.layers)} of {plural(len(found.layers), 'layer')}"
    if not found.samples:
        return f"{done} took over what similar filters computed; without samples nothing tells how near that comes"
    how = "refitted" if found.method == "ridge" else f"recovered ({found.method})"
    parts = [f"{done} {how} on {plural(found.samples, 'sample')}"]
    errors = [side["relative_l2"] for side in (found.before, found.after)]
    same = [side["agreement"] for side in (found.before, found.after)]
    told = [] if None in errors else [f"output error {errors[0]:.1%} to {errors[1]:.1%}"]
    told += [] if None in same else [f"same top-1 {same[0]:.1%} to {same[1]:.1%}"]
    if told:
        parts.append(f"on {found.held:,} of them, held out: {', '.join(told)}")
    return "; ".join(parts)


def metric(held: Mapping[str, Any]) -> tuple[str, str, str]:
    """The user's metric before and after, and the difference."""
    before, after = float(held["before"]), float(held["after"])
    return f"{before:.6g}", f"{after:.6g}", f"{after - before:+.4g}"


def samples(about: Mapping[str, Any] | None) -> str:
    """Which images there were and what was done to them; nothing of arrays, which go in as they are."""
    if not about or "preprocess" not in about:
        return ""
    lacking = f", {about['unreadable']:,} unreadable left out" if about.get("unreadable") else ""
    origin = {"given": ""}.get(about["preprocess_from"], f" (pixel values: {about['preprocess_from']})")
    counts = f"{about['samples']:,} of {plural(int(about['of']), 'image')}{lacking}"
    return f"{counts}; {about['preprocess'].replace(',', ', ')}{origin}"


def doubts(about: Mapping[str, Any] | None) -> list[str]:
    """What a user should know about the samples before believing the result."""
    found = []
    if about and about.get("preprocess_from") == "assumed":
        how = ",".join(item for item in about["preprocess"].split(",") if item.startswith(("scale", "mean", "std")))
        found.append(f"nothing says how pixels become the model's input: assumed {how}; say it with --preprocess")
    if about and about.get("unreadable"):
        found.append(f"{plural(int(about['unreadable']), 'image')} could not be read: {about['first_unreadable']}")
    if about and about.get("too_few"):
        found.append(f"{about['too_few']}; --data served verification alone, and no weight was refitted")
    return found


def dead(causes: Mapping[str, int]) -> str:
    """How many units no output depends on, and why; nothing is said of an empty one."""
    return (
        f"{sum(causes.values()):,}: {lossless.causes(causes)}; 'prune --dead' removes them without loss"
        if causes
        else "none"
    )


def importance(kept: float) -> str:
    """What is left of the layers' importance."""
    return f"{kept:.1%} kept, geometric mean over the layers"


def control(c: Comparison) -> str:
    """What the same timing says about the dense model against itself."""
    figures = f"{c.control:.2f}x, {interval(c.control_ci95)}"
    return figures if c.control_ok else f"{figures}: not 1, the machine was too noisy to trust the speedup"


def conditions(c: Comparison) -> str:
    """Under which conditions the times hold."""
    where = f"{c.provider}{', float16' if c.fp16 else ''}, {plural(c.threads, 'thread')}, batch {c.batch}"
    apart = f" in {plural(c.processes, 'fresh process')}" if c.processes else ""
    cores = f" on core {', '.join(map(str, c.cores))}" if c.cores else ""
    return f"{where}, {plural(c.rounds, 'round')} of {c.inner}{apart}{cores}"


def drift(c: Comparison) -> str:
    """Whether the ratio moved while it was measured, and what was done about it; nothing where it did not."""
    found = []
    if c.repeated:
        found.append(f"{plural(len(c.repeated), 'process')} repeated")
    if c.drifting:
        worst = max(c.drift, key=abs)
        found.append(f"{c.drifting} of {len(c.drift)} drifted while timed (rank correlation {worst:+.2f})")
    return "; ".join(found)


def throughput(c: Comparison) -> list[tuple[str, str, str]]:
    """For every batch size: samples per second before and after, and what that makes."""
    return [
        (
            per_second(t.before_per_s),
            per_second(t.after_per_s),
            f"batch {t.batch}: {t.speedup:.2f}x, {interval(t.ci95)}",
        )
        for t in c.throughput
    ]


def per_second(rate: float) -> str:
    """A rate, to four digits."""
    return f"{rate:.1f}/s" if rate < 1000 else f"{count(rate)}/s"


def footprints(c: Comparison) -> list[tuple[str, str, str]]:
    """What loading takes: name, before and after; nothing where it was not measured."""
    found = []
    if c.before_load_ms is not None and c.after_load_ms is not None:
        found.append(("load", milliseconds(c.before_load_ms), milliseconds(c.after_load_ms)))
    if c.before_peak_bytes is not None and c.after_peak_bytes is not None:
        found.append(("peak memory", size(c.before_peak_bytes), size(c.after_peak_bytes)))
    return found


def percentiles(c: Comparison) -> list[tuple[str, float, float]]:
    """Times in ms: name, before and after."""
    found = [("median", c.before_ms, c.after_ms), ("90th percentile", c.before_p90_ms, c.after_p90_ms)]
    if c.before_p99_ms is not None and c.after_p99_ms is not None:
        found.append(("99th percentile", c.before_p99_ms, c.after_p99_ms))
    return found


def milliseconds(ms: float) -> str:
    """A time, to three digits after the point below 10 ms."""
    return f"{ms:.3f} ms" if ms < 10 else f"{ms:.2f} ms" if ms < 100 else f"{ms:.1f} ms"


def verified(e: Equivalence) -> str:
    """What was compared, and how closely it agreed; of an approximate result, what makes it one."""
    if e.through:
        kinds = Counter(m.operator for m in e.through)
        return f"{e.kind}: pruned through {', '.join(f'{n} {k}' for k, n in kinds.items())}, over fewer channels now"
    verdict = f"{e.kind}, pruned == masked" if e.ok else "FAILED, pruned differs from masked"
    return f"{verdict} on {agreement(e)}"


def agreement(e: Equivalence) -> str:
    """How closely two models agreed, on how much."""
    figures = f"largest difference {e.max_abs:.1e}, relative {e.max_rel:.1e} (allowed {e.tolerance:.0e})"
    missed = f"; not run, give data for it: {e.not_run}" if e.not_run else ""
    how = f", in {e.pieces} pieces" if e.pieces else ""
    return f"{plural(e.batches, 'batch')}{how}: {figures}{missed}"


def approximation(e: Equivalence) -> list[tuple[str, str]]:
    """Of an approximate result, what is proved all the same and how far outputs moved; nothing for an exact one."""
    if not e.through:
        return []
    if e.unproved:
        compared = f"only shapes and finite values compared, on {plural(e.batches, 'batch')}"
        return [("surgery", f"NOT PROVED ({compared}): no reference for {', '.join(e.unproved)}")]
    proved = f"exact, pruned == masked where those see only what stays, on {agreement(e)}"
    moved = "no figure, the masked model is not finite"
    if e.deviation is not None:
        share = f"{e.deviation:.1%}" if e.deviation >= 1e-3 else f"{e.deviation:.0e}"
        moved = f"{share} of the largest output, against the dense model masked; nothing is recovered yet"
    return [("surgery", proved), ("deviation", moved)]


def isolated(groups: Mapping[str, str], shown: int = 3) -> str:
    """How many groups were left whole because they failed, and the first of them."""
    listed = ", ".join(f"'{name}'" for name in list(groups)[:shown])
    rest = f" and {len(groups) - shown} more" if len(groups) > shown else ""
    return f"{plural(len(groups), 'group')} failed verification and stayed whole: {listed}{rest}"


def points(before: float, after: float) -> str:
    """A difference of two shares, in percentage points."""
    return f"{(after - before) * 100:+.2f} points"


NAMES = {"finer": "finer where narrow", "dead": "dead units first"}  # of settings that are simply on


def settings(held: dict[str, object]) -> str:
    """A plan's settings on one line; what was done to images is told with them, see `samples`."""
    told = {NAMES.get(key, key.replace("_", " ")): setting(v) for key, v in held.items() if key != "preprocess"}
    return ", ".join(f"{name} {value}".rstrip() for name, value in told.items())


def setting(value: object) -> str:
    """One setting: lists without brackets, pairs as GLOB=R; nothing of what is simply on."""
    if value is True:
        return ""
    if isinstance(value, (list, tuple)):
        return " ".join(f"{v[0]}={v[1]}" if isinstance(v, (list, tuple)) and len(v) == 2 else str(v) for v in value)
    return str(value)


def collapsed(found: Sequence[tuple[str, bool]]) -> list[tuple[tuple[str, bool], int]]:
    """(reason, whether it holds the whole layer) with the number of layers, the most frequent first."""
    return Counter(found).most_common()


def layers(n: int, whole: bool) -> str:
    """'12 layers', or '1 layer in part'."""
    return plural(n, "layer") + ("" if whole else " in part")


def rows(families: Sequence[tuple[int, int]]) -> str:
    """Families of rows as 'rows x width', each form once."""
    return ", ".join(f"{r} x {w}" for r, w in dict.fromkeys(families))


def qualified(domain: str, operator: str) -> str:
    """An operator's name, with its domain unless that is ONNX's own."""
    return operator if domain in ("", "ai.onnx") else f"{domain}.{operator}"
