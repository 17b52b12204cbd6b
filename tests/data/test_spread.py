"""Laws of choosing samples: as many as asked for, none twice, from every part, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.data.spread import mixed, spread


@pytest.mark.parametrize(("total", "limit"), [(0, 4), (3, 4), (4, 4), (5, 4), (1000, 7), (10**6, 64)])
@pytest.mark.parametrize("seed", [0, 1])
def test_one_of_each_stretch(total: int, limit: int, seed: int) -> None:
    found = spread(total, limit, seed)
    assert len(found) == min(total, limit) == len(np.unique(found)) and np.array_equal(found, np.sort(found))
    if total > limit:
        assert (found >= np.arange(limit) * total // limit).all()
        assert (found < (np.arange(limit) + 1) * total // limit).all()
    assert np.array_equal(found, spread(total, limit, seed))


def test_every_class_of_sorted_data_gets_its_share() -> None:
    classes = np.repeat(np.arange(10), 500)
    counts = np.bincount(classes[spread(5000, 64)])
    assert counts.min() >= 5 and counts.max() <= 8  # 6.4 each, and a stretch may lie over a border at either end


def test_seeds_differ_and_mixing_keeps_the_numbers() -> None:
    assert not np.array_equal(spread(1000, 50, 0), spread(1000, 50, 1))
    order = mixed(spread(1000, 50))
    assert sorted(order) == spread(1000, 50).tolist() != order.tolist()
    assert np.array_equal(order, mixed(spread(1000, 50)))
