"""Why a layer did not gain. Law: a reason is what the two runs show, a kernel or a padded width, never a guess at one.

A layer failed to gain if its work shrank, but its time by less than half of the share that its work did, and the
time it did not lose is more than the times are uncertain by (`Side.noise_ms`).

What is seen: that a kernel left onnxruntime's blocked layout, to which width its channels are padded, which nodes run
by themselves that were part of another kernel, how often the layout is changed. Only which width makes a kernel leave
the layout cannot be seen; those conditions are onnxruntime's own (nchwc_transformer.cc), with the measured width step
for its block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from onnxprune.gains.layers import Pair, Side, is_change, is_fast, is_product, short
from onnxprune.runtime import Kernel

SHRUNK = 0.99  # share of the work: what is above did not shrink
HALF = 0.5  # of the saving that the work promises
QUARTER = 4  # onnxruntime's blocked convolutions read channels in fours
CALLS = 3.0  # times the cheapest kernel: up to there the call is a good part of the time
SMALL = 64  # positions of a feature map: with fewer, reading the weights takes the time


@dataclass(frozen=True)
class Reason:
    """One cause.

    Attributes:
        kind: 'left the fast layout', 'fusion lost', 'layout changes', 'unaligned width', 'does not shrink', or
            'not explained'.
        text: What was seen.
        remedy: What to do about it; '' where nothing would help.
    """

    kind: str
    text: str
    remedy: str = ""


def lost_ms(pair: Pair) -> float:
    """The time a layer takes beyond its share of the work, ms; 0 if its work did not shrink or is not known."""
    if not pair.before.work or pair.after.work is None or not pair.before.kernels:
        return 0.0
    share = pair.after.work / pair.before.work
    return max(0.0, pair.after.ms - share * pair.before.ms) if share < SHRUNK else 0.0


def failed(pair: Pair) -> bool:
    """Whether a layer's time did not shrink with its work; the module's docstring has the rule."""
    lost = lost_ms(pair)
    promised = pair.before.ms - (pair.after.ms - lost)
    noise = (pair.before.noise_ms**2 + pair.after.noise_ms**2) ** 0.5
    return lost > noise and pair.before.ms - pair.after.ms < HALF * promised


def reasons(before: Side, after: Side, step: int, least_ms: float = 0.0) -> tuple[Reason, ...]:
    """Why a layer that failed to gain did: a pure function of what ran.

    Args:
        before: The layer in the dense model.
        after: In the pruned one.
        step: The width step the machine rewards, see `align.width_step`.
        least_ms: Time of the cheapest kernel of the two models: what a call costs.

    Returns:
        At least one; the weightiest first.
    """
    makers: tuple[Callable[[Side, Side, int], Reason | None], ...] = (left_layout, lost_fusion, layout_changes, rounded)
    found = [reason for make in makers if (reason := make(before, after, step))]
    return tuple(found) or (elsewhere(after, least_ms),)


def left_layout(before: Side, after: Side, step: int) -> Reason | None:
    """The kernel ran in the blocked layout and does no longer."""
    was, now = before.main, after.main
    if was is None or now is None or not is_fast(was) or is_fast(now) or is_change(now):
        return None
    width, cause = blamed(now, after, step)
    text = f"{now.op} in place of {was.op}: it left the fast layout, {cause}"
    return Reason("left the fast layout", text, alignment(width, step))


def blamed(now: Kernel, side: Side, step: int) -> tuple[int, str]:
    """The width that keeps a kernel out of the blocked layout, and in words."""
    if not is_product(now):
        return side.out, f"which {short(now.op)} needs whole blocks of {step} channels for; here are {side.out}"
    if side.groups > 1 and side.into != side.groups:
        widths = [width // side.groups for width in (side.into, side.out)]
        width = next((w for w in widths if w % step), widths[0])
        return width, f"which needs groups of a multiple of {step} channels; these have {width}"
    kind = "a depthwise convolution" if side.groups > 1 else "it"
    if side.into % QUARTER:
        return side.into, f"because {kind} reads {side.into} channels, no multiple of {QUARTER}"
    return side.into, f"at {side.into} channels read and {side.out} written"


def lost_fusion(before: Side, after: Side, step: int) -> Reason | None:
    """Nodes run by themselves that were part of the convolution."""
    if before.main is None or not is_product(before.main):
        return None
    extra = Counter(small_parts(after)) - Counter(small_parts(before))
    if not extra:
        return None
    took = sum(k.typical_ms for k in after.kernels if short(k.op) in extra)
    text = f"{listed(extra)} no longer part of {short(before.main.op)}, {took:.3f} ms"
    return Reason("fusion lost", text, alignment(after.out, step))


def small_parts(side: Side) -> Iterable[str]:
    """Operators of a layer beside its product and changes of layout."""
    return (short(k.op) for k in side.kernels if not is_product(k) and not is_change(k))


def layout_changes(before: Side, after: Side, step: int) -> Reason | None:
    """More changes of layout than before."""
    was, now = ([k for k in side.kernels if is_change(k)] for side in (before, after))
    if len(now) <= len(was):
        return None
    took = sum(k.typical_ms for k in now)
    why = ""
    if new := [kind for kind in after.readers if kind not in before.readers]:
        why = f": {listed(new)} after it runs outside the fast layout at {after.out} channels"
    text = f"{listed(Counter(short(k.op) for k in now))} beside it, {took:.3f} ms{why}"
    return Reason("layout changes", text, alignment(after.out, step))


def rounded(before: Side, after: Side, step: int) -> Reason | None:
    """Widths are rounded up, so that too few whole steps were saved; outside the blocked layout nothing is padded."""
    if left_layout(before, after, step):
        return None
    was, now = padded(before, step), padded(after, step)
    true = max(after.into, 1) * after.out / max(1, max(before.into, 1) * before.out)
    paid = now[0] * now[1] / max(1, was[0] * was[1])
    if true >= SHRUNK or 1 - paid >= HALF * (1 - true):
        return None
    sides = ((before.into, after.into, now[0]), (before.out, after.out, now[1]))
    ends = list(dict.fromkeys(end for end in sides if end[1] < end[2] and end[1] < end[0]))
    if not ends:
        return None
    what = " and ".join(f"{kept} of {dense} channels cost as much as {paid_for}" for dense, kept, paid_for in ends)
    return Reason("unaligned width", f"{what}: widths are padded to whole steps of {step}", alignment(ends[0][1], step))


def padded(side: Side, step: int) -> tuple[int, int]:
    """Channels read and written as they are paid for: seen where they are padded, else rounded up to the step."""
    main = side.main
    if main is not None and is_fast(main) and main.inputs and min(map(len, (main.inputs[0], main.outputs[0]))) > 1:
        return (main.inputs[0][1] if side.into else 1), main.outputs[0][1]
    return max(1, -(-side.into // step) * step), -(-side.out // step) * step


def elsewhere(after: Side, least_ms: float) -> Reason:
    """What takes the time where the kernel is as good as it was."""
    main, kind = after.main, "does not shrink"
    if main is None:
        return Reason("not explained", "nothing was seen to run for it")
    if after.ms <= CALLS * max(least_ms, 1e-3):
        return Reason(kind, f"{short(main.op)} takes {after.ms:.3f} ms, little more than the call of any kernel")
    if not is_product(main):
        return Reason(kind, f"{short(main.op)} is bound by memory and calls, not by channels")
    sizes = after.shape[2:]
    count = 1
    for size in sizes:
        count *= size
    if count <= SMALL:
        where = f"maps of {' x '.join(map(str, sizes))}" if sizes else "single vectors"
        return Reason(kind, f"{short(main.op)} on {where}: reading the weights takes the time")
    text = f"{short(main.op)} is the same kernel, and its widths are no worse"
    return Reason("not explained", text, "time it again on a quiet machine")


def listed(names: Iterable[str] | Counter[str]) -> str:
    """'Add, 2 Relu'."""
    return ", ".join(f"{n} {name}" if n > 1 else name for name, n in Counter(names).items())


def alignment(width: int, step: int) -> str:
    """The alignment that a width wants: the machine's step, or more where it is aligned to that and yet slow."""
    least = max(step, QUARTER)
    wanted = least if width % least else 2 * least
    return f"round widths to a multiple of {wanted}: --align {wanted}"
