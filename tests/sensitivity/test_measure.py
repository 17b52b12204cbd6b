"""Laws of an analysis: curves start at 0, what is resumed is what would have been, and nothing is measured twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onnxprune.errors import DataError
from onnxprune.importance import score
from onnxprune.model import Model
from onnxprune.rewrite import masked
from onnxprune.runtime import random_feeds, run
from onnxprune.sensitivity import Curves, Question, Record, analyse, content
from onnxprune.sensitivity.curves import parse, read
from onnxprune.sensitivity.measure import Analysis
from onnxprune.trace import Dependencies
from tests import graphs

RATIOS = (0.25, 0.5, 0.75)


def samples(dependencies: Dependencies, count: int = 3) -> list[dict[str, np.ndarray]]:
    return [dict(random_feeds(dependencies.model, batch=4, seed=seed)) for seed in range(count)]


def found(dependencies: Dependencies, record: Record | None = None, **more: object) -> Curves:
    threads = more.pop("threads", 1)
    question = Question(samples(dependencies), RATIOS, **more)  # type: ignore[arg-type]
    return analyse(dependencies, score(dependencies), question, record, threads=threads)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def chain() -> Dependencies:
    return graphs.traced(graphs.chain())


@pytest.mark.parametrize("name", graphs.ALL)
def test_every_group_has_a_curve_and_costs_nothing_where_nothing_goes(name: str) -> None:
    dependencies = graphs.traced(graphs.ALL[name]())
    curves = found(dependencies)
    assert [c.name for c in curves.groups] == [g.name for g in dependencies.groups]
    for curve in curves.groups:
        assert [p.ratio for p in curve.points] == list(RATIOS)
        assert all(p.divergence == 0 and p.saved == 0 for p in curve.points if not p.removed)
        assert all(p.divergence > 0 and 0 < p.saved < 1 for p in curve.points if p.removed)
    tiny = analyse(dependencies, score(dependencies), Question(samples(dependencies), (1e-9,)))
    assert all(p.divergence >= 0 for c in tiny.groups for p in c.points)


def test_the_divergence_is_that_of_the_whole_masked_model() -> None:
    dependencies = graphs.traced(graphs.mlp())
    curves, group = found(dependencies), dependencies.groups[0]
    order = np.argsort(score(dependencies).values[group.units], kind="stable")
    removed = group.units[order][: -(-group.units.size // 2)]
    models = dependencies.model, masked(dependencies, removed)
    tables = [
        np.concatenate([next(iter(run(m, feeds).values())) for feeds in samples(dependencies)]).astype(np.float64)
        for m in models
    ]
    p, q = (x - np.log(np.exp(x).sum(axis=1, keepdims=True)) for x in tables)
    point = curves.groups[0].points[1]
    assert point.removed == removed.size and set(curves.kinds.values()) == {"kl of logits"}
    assert point.divergence == pytest.approx((np.exp(p) * (p - q)).sum() / len(p), rel=1e-3)  # float32, fused otherwise


@pytest.mark.parametrize("threads", [1, 3])
def test_resumed_is_what_an_uninterrupted_run_finds(
    threads: int, chain: Dependencies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = found(chain)
    path, key, point, calls = tmp_path / "r.json", {"model": content(chain.model)}, Analysis.point, []

    def interrupted(self: Analysis, g: int, ratio: float, below: object) -> object:
        calls.append((g, ratio))
        if len(calls) == 5:
            raise KeyboardInterrupt
        return point(self, g, ratio, below)  # type: ignore[arg-type]

    monkeypatch.setattr(Analysis, "point", interrupted)
    with pytest.raises(KeyboardInterrupt):
        found(chain, Record.opened(path, key), threads=threads)
    kept = sum(len(p) for p in Record.opened(path, key).points.values())
    assert 3 <= kept < len(RATIOS) * len(chain.groups)
    calls[:] = [(0, 0.0)] * 5  # from here on none is interrupted
    again = found(chain, Record.opened(path, key), threads=threads)
    assert len(calls) - 5 == len(RATIOS) * len(chain.groups) - kept
    assert [c.name for c in again.groups] == [c.name for c in wanted.groups]
    for a, b in zip(again.groups, wanted.groups, strict=True):
        assert [p.divergence for p in a.points] == pytest.approx([p.divergence for p in b.points], rel=1e-4)  # float32


def test_what_is_recorded_of_another_model_or_damaged_is_not_used(chain: Dependencies, tmp_path: Path) -> None:
    path, key = tmp_path / "r.json", {"model": content(chain.model)}
    found(chain, Record.opened(path, key))
    assert Record.opened(path, key).points and not Record.opened(path, {"model": "other"}).points
    assert not Record.opened(path, key, fresh=True).points
    path.write_text(path.read_text()[:-20])
    assert not Record.opened(path, key).points
    weights = {name: w * 2 for name, w in chain.model.weights.items()}
    assert content(replace(chain.model, weights=weights)) != key["model"]


def test_ratios_that_come_to_the_same_cut_are_measured_once(
    chain: Dependencies, monkeypatch: pytest.MonkeyPatch
) -> None:
    point, calls = Analysis.point, []

    def counted(self: Analysis, g: int, ratio: float, below: object) -> object:
        calls.append(g)
        return point(self, g, ratio, below)  # type: ignore[arg-type]

    monkeypatch.setattr(Analysis, "point", counted)
    curves = analyse(chain, score(chain), Question(samples(chain), (0.5, 0.49, 0.48)))
    assert len(calls) == sum(len({p.removed for p in c.points}) for c in curves.groups) < 9
    assert all([p.ratio for p in c.points] == [0.48, 0.49, 0.5] for c in curves.groups)


def test_labels_give_the_accuracy_of_the_masked_model() -> None:
    dependencies = graphs.traced(graphs.mlp())
    fed = samples(dependencies)
    tables = [next(iter(run(dependencies.model, feeds).values())) for feeds in fed]
    labels = np.concatenate([t.argmax(axis=1) for t in tables])
    curves = found(dependencies, labels=labels)
    assert curves.accuracy == 1.0
    assert all(0 <= p.accuracy <= 1 for c in curves.groups for p in c.points if p.accuracy is not None)
    assert any(p.accuracy is not None for c in curves.groups for p in c.points)
    for bad in (labels[:-1], labels.astype(float), labels + 10_000, labels[:, None]):
        with pytest.raises(DataError, match=r"the labels are .* the model's table is"):
            found(dependencies, labels=bad)


def test_a_metric_is_called_on_every_cut_model(chain: Dependencies) -> None:
    def parameters(model: Model) -> float:
        return float(sum(w.size for w in model.weights.values()))

    curves = found(chain, metric=parameters)
    assert curves.metric is not None
    assert all(p.metric is not None and p.metric < curves.metric for c in curves.groups for p in c.points)


def test_a_file_read_back_holds_what_was_written(chain: Dependencies, tmp_path: Path) -> None:
    curves, path = found(chain), tmp_path / "s.json"
    curves.save(path)
    assert read(path, chain) == curves == parse(curves.to_dict())
    with pytest.raises(DataError, match=r"another model; .*write it with 'onnxprune sensitivity"):
        read(path, graphs.traced(graphs.residual()))
    for text in ("{", "[]", '{"schema": "onnxprune/plan/1"}', '{"schema": "onnxprune/sensitivity/1"}'):
        path.write_text(text)
        with pytest.raises(DataError, match="is no sensitivity analysis"):
            read(path, chain)
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "none.json", chain)
