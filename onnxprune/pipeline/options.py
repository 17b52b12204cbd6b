"""How a run behaves, and what it gives. Law: nothing here does any work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from onnxprune.calibrate.walk import MEMORY
from onnxprune.model import Model
from onnxprune.plan import Plan
from onnxprune.report import Report

Receiver = Callable[["Pruned"], None]
DEFAULT_RATIO = 0.3


def ignore(done: Pruned) -> None:
    """A receiver that does nothing."""


@dataclass(frozen=True)
class Options:
    """How a run behaves, beside its target and limits.

    Attributes:
        criterion: Importance criterion; auto: `reconstruction` where there are enough samples, else `l1`.
        align: Width step; None measures the one this machine rewards.
        data: Samples to verify, score and recover on, see `data.read`; None draws random inputs for verification.
        seed: For random inputs and the order of timing.
        threads: Threads inside one operator.
        time: Whether to time dense against pruned.
        overwrite: Whether an existing output may be replaced.
        strict: Whether groups that fail verification are an error, instead of being left whole.
        through_norms: Whether channels may go that are normalised over, which makes the result approximate.
        best_effort: Whether a target in time that is out of reach is met as far as possible, instead of an error.
        batch: Samples in one timed inference.
        step: The width step this machine rewards, where it is known already; looked at if `align` is None.
        force: Whether a model is written that was timed and is not measurably faster.
        explain: Whether layers are profiled even if the model is faster; if it is not, they always are.
        ep: Execution provider to time on; verification runs on the CPU.
        recover: Whether weights are refitted after the cut; None: where there are enough samples.
        samples: Of the user's data that scores and weights are fitted to, at most.
        gradients: `.npz` with gradients of the loss, for criteria that look at them.
        preprocess: How images become inputs, where the data are a folder of them, see `data.preprocess`.
        script: A Python file with the user's metric, see `metric`; it is told, and never used to choose.
        allocate: How groups share the cut, one of `ALLOCATIONS`.
        sensitivity: A file with the curves to allocate by; None measures them, or recalls them.
        steps: Rounds of pruning, recovering and scoring anew in which a target is approached.
        recovery: How weights are refitted, a name in `recover.METHODS`; auto: `recover.CHAIN`, or `merge` without data.
        memory: Bytes of activations held in memory while samples are looked at; what is beyond lies in files.
        dead: Whether units that no output depends on go first; without a target nothing else goes.
    """

    criterion: str = "auto"
    align: int | None = None
    data: Path | None = None
    seed: int = 0
    threads: int = 1
    time: bool = True
    overwrite: bool = False
    strict: bool = False
    through_norms: bool = False
    best_effort: bool = False
    batch: int = 1
    step: int | None = None
    force: bool = False
    explain: bool = False
    ep: str = "cpu"
    recover: bool | None = None
    samples: int = 1024
    gradients: Path | None = None
    preprocess: str | None = None
    script: Path | None = None
    allocate: str = "auto"
    sensitivity: Path | None = None
    steps: int = 1
    recovery: str = "auto"
    memory: int = MEMORY
    dead: bool = False


@dataclass(frozen=True, eq=False)
class Pruned:
    """What a run produced.

    Attributes:
        model: The pruned model.
        plan: What was removed.
        report: Everything that was found and measured.
    """

    model: Model
    plan: Plan
    report: Report
