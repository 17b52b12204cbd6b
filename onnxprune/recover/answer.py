"""What a recovery found. Law: nothing here does any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from onnxprune.model import Model


@dataclass(frozen=True)
class Layer:
    """What became of one layer.

    Attributes:
        node: The node.
        tensor: Where its error is measured: the output, or what is computed from it by channel.
        before: Root of the squared error on held-out samples, relative to the spread of the dense model's values; None
            where it was not measured, or these do not vary.
        after: The same with the new weights; `before` where they were left alone.
        ridge: Weight of the penalty on change, relative to the mean square of an input; None where there was none.
        note: Why the layer was left alone; '' where it was not.
        method: How it was recovered; '' where it was left alone.
    """

    node: str
    tensor: str
    before: float | None
    after: float | None
    ridge: float | None = None
    note: str = ""
    method: str = ""


@dataclass(frozen=True, eq=False)
class Recovered:
    """A model with new weights.

    Attributes:
        model: The model.
        layers: Its layers from front to back; those whose inputs are what they were are not among them.
        samples: Calibration samples.
        held: How many of them chose the penalty.
        before: How near the outputs were to the dense model's on those (`fidelity`).
        after: How near they are with the new weights.
        note: Why the model is the one given all the same; '' where it is not.
        method: How it was recovered, by name.
    """

    model: Model
    layers: tuple[Layer, ...]
    samples: int
    held: int
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    note: str = ""
    method: str = "ridge"

    def to_dict(self) -> dict[str, object]:
        """As JSON types."""
        sides = {"before": dict(self.before), "after": dict(self.after)}
        layers = [asdict(layer) for layer in self.layers]
        counts = {"samples": self.samples, "held_out": self.held}
        return {"method": self.method} | counts | {"fidelity": sides, "layers": layers, "note": self.note}
