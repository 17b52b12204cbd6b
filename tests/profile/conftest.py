"""What the tests of the profile share: a chain of convolutions, and the widths its groups can stop at."""

from __future__ import annotations

import pytest

from onnxprune.importance import score
from onnxprune.plan import Limits
from onnxprune.plan.levels import Level, choosers_of, levels_of
from onnxprune.trace import Dependencies
from tests import graphs


@pytest.fixture
def dependencies() -> Dependencies:
    return graphs.traced(graphs.chain())


@pytest.fixture
def levels(dependencies: Dependencies) -> list[list[Level]]:
    return levels_of(choosers_of(dependencies, score(dependencies), Limits(), finer=False))
