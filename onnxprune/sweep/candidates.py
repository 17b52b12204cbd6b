"""What is tried. Law: a range holds the numbers a reader of its text expects, whatever binary rounding does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal, InvalidOperation

from onnxprune.plan import Target

MOST = 1000  # candidates: more is a slip of the keyboard


@dataclass(frozen=True)
class Candidate:
    """One target.

    Attributes:
        label: Names its files: 'ratio-0.3'.
        target: What to reach.
    """

    label: str
    target: Target

    @property
    def text(self) -> str:
        """The target as the option of `prune` that asks for it: '--ratio 0.3'."""
        return " ".join(f"--{k.replace('_', '-')} {v:g}" for k, v in asdict(self.target).items() if v is not None)

    @property
    def timed(self) -> bool:
        """Whether meeting the target takes measuring times, so that it must have its machine alone."""
        return self.target.timed


def candidates(wanted: Mapping[str, Sequence[float]]) -> tuple[Candidate, ...]:
    """One candidate for each value, in the order given, none twice.

    Args:
        wanted: Field of `Target` -> its values.

    Raises:
        PlanError: A value that the target refuses, or a target that cannot be planned for.
    """
    found = [
        Candidate(f"{kind}-{value:g}", Target(**{kind: value})) for kind, values in wanted.items() for value in values
    ]
    return tuple({candidate.label: candidate for candidate in found}.values())


def numbers(text: str) -> tuple[float, ...]:
    """Numbers and ranges, separated by commas: '0.1:0.9:0.1' is first : last : step, both ends included.

    Raises:
        ValueError: It is neither, or there are too many; the message says what is wrong.
    """
    found = [number for part in text.split(",") for number in expanded(part.strip())]
    if len(found) > MOST:
        raise ValueError(f"'{text}' is more than {MOST} numbers")
    return tuple(dict.fromkeys(map(float, found)))


def expanded(part: str) -> Iterator[Decimal]:
    """The numbers of one part; decimal arithmetic, for 0.1 + 0.2 is to be 0.3."""
    try:
        ends = [Decimal(number) for number in part.split(":")]
    except InvalidOperation:
        ends = []
    if len(ends) not in (1, 3) or not all(end.is_finite() for end in ends):
        raise ValueError(f"'{part}' is neither a number nor FIRST:LAST:STEP, e.g. 0.1:0.9:0.1")
    first, last, step = ends if len(ends) == 3 else (ends[0], ends[0], Decimal(1))
    if step <= 0 or last < first:
        raise ValueError(f"'{part}' counts up from {first} to {last} in steps of {step}: there is nothing in it")
    if (last - first) / step > MOST:
        raise ValueError(f"'{part}' is more than {MOST} numbers")
    yield from (first + i * step for i in range(int((last - first) / step) + 1))
