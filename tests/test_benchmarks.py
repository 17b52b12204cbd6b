"""The committed benchmarks: their networks are the published ones, and their figures are the committed ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxprune.importance import score
from onnxprune.model import from_proto, load
from onnxprune.normalise import normalise
from onnxprune.plan import Limits, plan
from onnxprune.rewrite import masked, rewrite
from onnxprune.runtime import run
from onnxprune.trace import trace

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.insert(0, str(FOLDER))  # they are scripts, not a package

import accuracy  # noqa: E402
import coverage  # noqa: E402
import criteria  # noqa: E402
import faster  # noqa: E402
import findings  # noqa: E402
import gpu  # noqa: E402
import large  # noqa: E402
import latency  # noqa: E402
import li2016  # noqa: E402
import macs  # noqa: E402
import scaling  # noqa: E402
import wild  # noqa: E402


@pytest.mark.parametrize("name", li2016.NETWORKS)
def test_dense_networks_have_the_published_sizes(name: str) -> None:
    proto = li2016.NETWORKS[name]()
    onnx.checker.check_model(proto, full_check=True)
    size = li2016.recount(proto)
    macs, weights = li2016.PUBLISHED[name]
    for ours, published in ((size.macs, macs), (size.weights, weights)):
        digits = len(published.partition("e")[0].partition(".")[2])
        assert float(f"{ours:.{digits}e}") == float(published)


def test_the_published_reductions_follow_from_the_ratios_alone() -> None:
    records = list(li2016.reproduce())
    assert [r["model"] for r in records] == [c.name for c in li2016.CASES]
    for record in records:
        assert max(map(abs, record["difference"].values())) <= li2016.POINTS, record


def test_reductions_are_the_committed_ones() -> None:
    committed = json.loads(li2016.RESULTS.read_text(encoding="utf-8"))
    assert list(li2016.reproduce()) == committed["figures"]


def test_a_ratio_that_is_not_the_papers_is_not_within_a_tenth_of_a_point(monkeypatch: pytest.MonkeyPatch) -> None:
    case = li2016.CASES[0]
    ratios = dict.fromkeys(case.ratios, 0.15)
    wrong = li2016.Case(case.name, case.network, ratios, case.macs, case.params)
    monkeypatch.setattr(li2016, "CASES", (wrong,))
    (record,) = li2016.reproduce()
    assert abs(record["difference"]["macs"]) > li2016.POINTS


def test_numbering_follows_the_paper() -> None:
    b = next(c for c in li2016.CASES if c.name == "ResNet-56-B")
    assert len(b.ratios) == 27 - 6 and not {16, 18, 20, 34, 38, 54} & set(b.ratios)
    assert [b.ratios[n] for n in (2, 14, 22, 36, 40, 52)] == [0.6, 0.6, 0.3, 0.3, 0.1, 0.1]
    names = {
        2: "layer1.0.conv1",
        19: "layer1.8.conv2",
        20: "layer2.0.conv1",
        38: "layer3.0.conv1",
        55: "layer3.8.conv2",
    }
    assert all(li2016.exported_name(n) == f"{name}.weight" for n, name in names.items())


def test_resnet56_b_on_real_weights(shared: Path) -> None:
    dependencies = trace(normalise(load(shared / li2016.REAL)))
    case = next(c for c in li2016.CASES if c.name == "ResNet-56-B")
    limits = Limits(layer_ratios=tuple((li2016.exported_name(n), r) for n, r in case.ratios.items()))
    removed = plan(dependencies, score(dependencies), None, limits).removed(dependencies)
    pruned = rewrite(dependencies, removed)
    for number in range(1, 56):
        before = dependencies.model.weights[li2016.exported_name(number)].shape
        kept_out = before[0] - int(np.ceil(before[0] * case.ratios.get(number, 0) - 1e-9))
        kept_in = before[1] - int(np.ceil(before[1] * case.ratios.get(number - 1, 0) - 1e-9))
        assert pruned.weights[li2016.exported_name(number)].shape == (kept_out, kept_in, 3, 3)
    less = li2016.recount(pruned.full()).less(li2016.recount(dependencies.model.full()))
    assert abs(less["macs"] - case.macs) <= li2016.POINTS and abs(less["params"] - case.params) <= li2016.POINTS
    onnx.checker.check_model(pruned.full(), full_check=True)
    x = {"input": np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)}
    reference, smaller = run(masked(dependencies, removed), x)["logits"], run(pruned, x)["logits"]
    np.testing.assert_allclose(smaller, reference, rtol=0, atol=1e-4 * float(np.abs(reference).max()))


def test_the_generated_resnet50_is_one() -> None:
    size = li2016.recount(scaling.bottlenecks((3, 4, 6, 3), 64))
    running = 26_560 * 2  # means and variances, which PyTorch does not count as parameters
    assert size.params - running == 25_557_032 and f"{size.macs:.2e}" == "4.09e+09"


def test_every_stage_is_measured() -> None:
    proto = scaling.bottlenecks((1, 1), 8)
    _, spent = scaling.stages(lambda: from_proto(proto))
    assert tuple(spent) == (*scaling.BEFORE, *scaling.STAGES)
    assert all(stage["seconds"] > 0 and stage["peak_bytes"] > 0 for stage in spent.values())


def test_exponents_are_slopes() -> None:
    cases = [{"nodes": n, "cost": 3.0 * n**2} for n in (10, 20, 40)]
    assert scaling.exponent(cases, "nodes", lambda c: c["cost"]) == pytest.approx(2.0)


def test_a_resnet50_keeps_the_promises(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    size = scaling.store(path, "ResNet-50")["bytes"]
    spent = scaling.child(path)["stages"]
    assert sum(spent[name]["processor_seconds"] for name in scaling.STAGES) < scaling.SECONDS
    if Path("/proc/self/clear_refs").exists():  # elsewhere the peak includes what imports took
        peaks = {name: stage["peak_bytes"] / size for name, stage in spent.items()}
        assert max(peaks.values()) < scaling.MEMORY
        # The loaded weights, 0.3 of slack in the heap, and what is kept of them (half, in a third fewer channels).
        assert peaks["rewrite"] < 2.0


SHOWN = [accuracy, criteria, faster, findings, gpu, li2016, scaling, large, latency, macs, wild]


@pytest.mark.parametrize("script", SHOWN, ids=lambda s: s.__name__)
def test_the_readme_shows_the_committed_figures(script: Any) -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert script.markdown(json.loads(script.RESULTS.read_text(encoding="utf-8"))) in readme


def test_the_front_page_shows_the_committed_coverage() -> None:
    readme = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    assert coverage.markdown(json.loads(coverage.RESULTS.read_text(encoding="utf-8"))) in readme


@pytest.mark.parametrize("script", [scaling, large, coverage], ids=["scaling", "large", "coverage"])
def test_the_committed_promises_hold(script: Any) -> None:
    assert script.broken(json.loads(script.RESULTS.read_text(encoding="utf-8"))) == []
