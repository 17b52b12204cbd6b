"""Laws of dead units: without them the outputs are what they were, and no unit that could be proved dead is missed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune.dead import CAUSES, Dead, dead_units, settle
from onnxprune.importance import score
from onnxprune.lossless import plan_dead
from onnxprune.model import Model
from onnxprune.normalise import normalise
from onnxprune.plan import Limits
from onnxprune.rewrite import masked, rewrite
from onnxprune.runtime import random_feeds
from onnxprune.trace import trace
from onnxprune.verify import compare
from tests import graphs
from tests.dead.plants import PLANTED

# Outputs are sums of at most a few hundred float32 terms of size about 1; they differ by the order of these at most.
ROUNDING = 1e-5
SEEN = 1e-6  # relative change of some output that no rounding makes where nothing but zeros left a sum: it was alive


def found_in(proto: onnx.ModelProto) -> tuple[Model, Dead]:
    model = graphs.loaded(proto)
    return model, settle(trace(normalise(model)))


def stripped(dead: Dead) -> tuple[Model, np.ndarray]:
    """The model without its dead units, and those that went."""
    chosen = plan_dead(dead, score(dead.dependencies), Limits())
    removed = chosen.removed(dead.dependencies)
    return rewrite(dead.dependencies, removed), removed


def feeds(model: Model, count: int = 3) -> list[dict[str, np.ndarray]]:
    """Ordinary and large inputs, so that a ReLU that fires at all has its chance."""
    drawn = [random_feeds(model, batch=2, seed=seed) for seed in range(count)]
    return drawn + [{k: 100 * v for k, v in drawn[0].items()}]


@pytest.mark.parametrize("name", PLANTED)
def test_planted_units_are_found_and_no_others(name: str) -> None:
    planted = PLANTED[name]()
    _, dead = found_in(planted.proto)
    cause = dict(zip(dead.units.tolist(), dead.cause.tolist(), strict=True))
    found = {}
    for source in dead.dependencies.sources:
        for index, unit in enumerate(dead.dependencies.unit[source.ids].ravel().tolist()):
            if unit in cause:
                found[source.tensor, index] = CAUSES[cause[unit]]
    assert found == planted.dead


@pytest.mark.parametrize("name", PLANTED)
def test_without_them_the_outputs_are_the_same(name: str) -> None:
    planted = PLANTED[name]()
    model, dead = found_in(planted.proto)
    if not planted.dead:
        assert not dead.units.size
        return
    pruned, removed = stripped(dead)
    assert removed.size
    same = compare(model, pruned, feeds(model))
    assert same.ok and same.max_rel < ROUNDING
    again = settle(trace(normalise(pruned)))
    kept = dead.units.size - removed.size
    assert again.units.size <= kept  # what is left is alive, but for what rows keep
