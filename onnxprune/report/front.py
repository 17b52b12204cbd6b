"""What a sweep found: candidates of one model, and which of them no other beats. Law: all of it JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

SCHEMA = "onnxprune/front/1"


@dataclass(frozen=True)
class FrontPoint:
    """One candidate of a sweep.

    Attributes:
        label: What was asked for, e.g. 'ratio 0.3'.
        speedup: Dense / pruned latency.
        ci95: Its interval; None where it was not measured.
        macs: Share of multiply-accumulates kept, 0 to 1.
        params: Share of parameters kept, 0 to 1.
        bytes: Size of the pruned model's weights.
        fidelity: How close the outputs stay to the dense model's; larger is closer.
        metric: The user's own metric; None where none was given.
        on_front: Whether no other candidate is both faster and better.
    """

    label: str
    speedup: float
    ci95: tuple[float, float] | None
    macs: float
    params: float
    bytes: int
    fidelity: float
    metric: float | None = None
    on_front: bool = False


@dataclass(frozen=True)
class Front:
    """The candidates of a sweep.

    Attributes:
        model: The input file.
        version: Of onnxprune.
        points: Every candidate, those that others beat included.
        fidelity: What `fidelity` measures, e.g. 'cosine similarity of the outputs'.
        metric: What `metric` measures; '' where none was given.
        dense_metric: The dense model's metric.
        settings: How the sweep was made.
        environment: Software and processor.
    """

    model: str
    version: str
    points: tuple[FrontPoint, ...]
    fidelity: str = "fidelity"
    metric: str = ""
    dense_metric: float | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, object] = field(default_factory=dict)

    @property
    def quality(self) -> str:
        """What candidates are judged by beside their speed: the metric if there is one, else the fidelity."""
        return self.metric or self.fidelity

    def value(self, point: FrontPoint) -> float:
        """A candidate's quality."""
        return point.fidelity if point.metric is None or not self.metric else point.metric

    def to_dict(self) -> dict[str, object]:
        """The front as a dictionary; JSON as long as settings and environment are."""
        held = asdict(self)
        held["points"] = [{**p, "ci95": list(p["ci95"]) if p["ci95"] else None} for p in held["points"]]
        return {"schema": SCHEMA, **held}
