"""A broken model by its number. Law: the number alone says what the files hold.

Weights are most of a file, and damage to them is seldom noticed, so most seed models are small.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx

from tests import graphs
from tests.fuzzing import structure, values
from tests.fuzzing.damage import DAMAGES
from tests.fuzzing.draft import MUTATIONS, Draft

__all__ = ["DAMAGES", "MUTATIONS", "SEEDS", "Specimen", "read_seed", "specimen", "structure", "values"]

REPO = Path(__file__).resolve().parent.parent.parent
LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
BUILT = {**graphs.ALL, "rich": graphs.rich}
FILES = {
    "digits": REPO / "models" / "digits_resnet.onnx",
    "mnist_cntk": REPO.parent / "shared" / "wild" / "qonnx__mnist_cntk.onnx",
    "espcn_quant": REPO.parent / "shared" / "wild" / "qonnx__espcn_nn_resize_quant_model.onnx",
    "silero_vad_16k": REPO.parent / "shared" / "wild" / "silero__silero_vad_16k_op15.onnx",
    "gtcrn": REPO.parent / "shared" / "wild" / "gtcrn__gtcrn_simple.onnx",
    "mobilenetv3_detection": REPO.parent / "shared" / "wild" / "openseeface__mnv3_detection_opt.onnx",
    "resnet20": REPO.parent / "shared" / "cifar10" / "resnet20_dynamo.onnx",
    "light_squeezenet": LIGHT / "light_squeezenet.onnx",
    "light_shufflenet": LIGHT / "light_shufflenet.onnx",
}
SEEDS = (*BUILT, *FILES)
SHARE_OF_BUILT = 0.8  # the files take seconds, the built ones milliseconds
STRUCTURED = 0.75  # the rest is damage to bytes


@dataclass(frozen=True)
class Specimen:
    """A broken model.

    Attributes:
        number: What it was made from.
        seed: The model it was.
        changes: What was done to it.
        files: File name -> content; the model is `model.onnx`.
    """

    number: int
    seed: str
    changes: tuple[str, ...]
    files: Mapping[str, bytes]


@cache
def read_seed(name: str) -> bytes | None:
    """A sound model's bytes; None where its file is not there."""
    if name in BUILT:
        return BUILT[name]().SerializeToString()
    return FILES[name].read_bytes() if FILES[name].is_file() else None


def specimen(number: int, seeds: tuple[str, ...] = SEEDS) -> Specimen | None:
    """The broken model of a number; None where its seed model is not there."""
    rng = np.random.default_rng(number)
    built = [s for s in seeds if s in BUILT]
    files = [s for s in seeds if s in FILES]
    among = built if built and (rng.random() < SHARE_OF_BUILT or not files) else files
    name = among[int(rng.integers(len(among)))]
    data = read_seed(name)
    if data is None:
        return None
    if rng.random() < STRUCTURED:
        return mutated(number, name, data, rng)
    kind = list(DAMAGES)[int(rng.integers(len(DAMAGES)))]
    return Specimen(number, name, (kind,), {"model.onnx": DAMAGES[kind](data, rng)})


def mutated(number: int, name: str, data: bytes, rng: np.random.Generator) -> Specimen:
    """One change in three of five, two or three in the others."""
    draft, changes = Draft(onnx.ModelProto.FromString(data), rng), []
    wanted = int(rng.choice([1, 1, 1, 2, 3]))
    while len(changes) < wanted:
        kind = list(MUTATIONS)[int(rng.integers(len(MUTATIONS)))]
        try:
            MUTATIONS[kind](draft)
        except Exception:  # nothing to break, protobuf refuses, or an earlier change left nothing to read
            continue
        changes.append(kind)
    return Specimen(number, name, tuple(changes), {"model.onnx": draft.serialised(), **draft.files})
