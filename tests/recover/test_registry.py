"""Laws of the registry: a method is found by its name, says what it does, and gets what it needs."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.errors import DataError, PlanError
from onnxprune.recover import METHODS, method_of, recover
from onnxprune.rewrite import rewrite
from tests import graphs


def test_what_there_is() -> None:
    assert {name: found.needs for name, found in METHODS.items()} == {
        "ridge": "samples",
        "statistics": "samples",
        "bias": "samples",
        "merge": "weights",
    }
    assert all(found.summary.endswith(".") and "arXiv" in str(found.function.__doc__) for found in METHODS.values())


def test_one_that_is_not_there_is_named_with_the_nearest() -> None:
    with pytest.raises(PlanError, match="did you mean 'statistics'"):
        method_of("statistic")


@pytest.mark.parametrize("method", [name for name, found in METHODS.items() if found.needs == "samples"])
def test_samples_that_are_missing_are_asked_for(method: str) -> None:
    dependencies = graphs.traced(graphs.chain())
    nothing = np.zeros(0, dtype=np.int64)
    with pytest.raises(DataError, match="--data"):
        recover(dependencies, nothing, rewrite(dependencies, nothing), [], method=method)
