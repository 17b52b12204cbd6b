"""The ways of recovery by name. Law: one method is one function from a cut model to one with other weights.

    @method("ridge", needs="samples")
    def ridge(task): ...

registers one. The first line of its docstring says what it does; paper and equation stand below.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from onnxprune.calibrate.walk import MEMORY
from onnxprune.errors import PlanError
from onnxprune.model import Array, Model
from onnxprune.progress import Observer, silent
from onnxprune.recover.answer import Layer
from onnxprune.runtime import Feeds
from onnxprune.trace import Dependencies

Needs = Literal["weights", "samples"]


@dataclass(frozen=True, eq=False)
class Task:
    """What is to be recovered, from what, and how.

    Attributes:
        dependencies: The traced dense model.
        removed: Unit numbers.
        pruned: What `rewrite` made of them.
        batches: Calibration samples, unlabelled.
        threads: Threads inside one operator.
        memory: Bytes of activations held in memory; what is beyond lies in temporary files.
        seed: Of the sites that are drawn.
        observe: Called with a stage's name and the share of it that is done.
    """

    dependencies: Dependencies
    removed: Array
    pruned: Model
    batches: Sequence[Feeds] = ()
    threads: int = 1
    memory: int = MEMORY
    seed: int = 0
    observe: Observer = silent


Function = Callable[[Task], tuple[Model, list[Layer]]]


@dataclass(frozen=True, eq=False)
class Method:
    """An entry of the registry.

    Attributes:
        name: What `--recovery` takes.
        function: Gives the model with its new weights, and what became of each layer.
        needs: What it looks at: 'weights' alone, or 'samples'.
    """

    name: str
    function: Function
    needs: Needs

    @property
    def summary(self) -> str:
        """One line: what it does."""
        return (self.function.__doc__ or "").strip().splitlines()[0]


METHODS: dict[str, Method] = {}


def method(name: str, needs: Needs = "samples") -> Callable[[Function], Function]:
    """Register a method."""

    def register(function: Function) -> Function:
        METHODS[name] = Method(name, function, needs)
        return function

    return register


def method_of(name: str) -> Method:
    """The method of this name.

    Raises:
        PlanError: There is none.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1, cutoff=0.0)
        what = f"unknown recovery '{name}'"
        raise PlanError(what, remedy=f"did you mean '{near[0]}'? there are: {', '.join(sorted(METHODS))}")
    return METHODS[name]
