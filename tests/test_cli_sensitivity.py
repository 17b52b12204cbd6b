"""The command `sensitivity`: `prune --allocate sensitivity` goes by what it writes, and it does nothing twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.runtime import random_feeds, run
from onnxprune.sensitivity.measure import Analysis
from tests import graphs
from tests.contract import onnxprune, prune, stored

GRID = ["--ratios", "0.25,0.5,0.75"]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    proto = graphs.mlp()
    dependencies = graphs.traced(proto)
    feeds = dict(random_feeds(dependencies.model, batch=64, seed=3))
    labels = next(iter(run(dependencies.model, feeds).values())).argmax(axis=1)
    np.savez(tmp_path / "x.npz", **feeds, labels=labels)
    np.save(tmp_path / "y.npy", labels)
    return stored(proto, tmp_path)


def test_curves_go_to_every_file_and_are_not_measured_twice(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, calls, point = model.parent, [], Analysis.point

    def counted(self: Analysis, g: int, ratio: float, below: object) -> object:
        calls.append(g)
        return point(self, g, ratio, below)  # type: ignore[arg-type]

    monkeypatch.setattr(Analysis, "point", counted)
    base = ["sensitivity", model, "--data", folder / "x.npz", *GRID, "--labels", "labels"]
    sides = ["-o", folder / "s.json", "--picture", folder / "s.svg", "--html", folder / "s.html"]
    first = onnxprune(*base, *sides, "--json")
    assert first.code == 0, first.err
    measured = len(calls)
    assert measured and first.json["accuracy"] == 1.0
    assert first.json["groups"] == json.loads((folder / "s.json").read_text())["groups"]
    assert (folder / "s.svg").read_text().startswith("<svg") and "Sensitivity" in (folder / "s.html").read_text()
    again = onnxprune(*base, "-o", folder / "s.csv", "--json")
    assert again.json == first.json and len(calls) == measured
    assert (folder / "s.csv").read_text().startswith("group,channels,ratio")
    assert onnxprune(*base, "--fresh").code == 0 and len(calls) == 2 * measured
    same = onnxprune(*base[:-1], folder / "y.npy", "--json")
    assert same.json["accuracy"] == 1.0


def test_prune_goes_by_what_the_command_recommends(model: Path) -> None:
    folder = model.parent
    told = onnxprune("sensitivity", model, "--data", folder / "x.npz", "--json", "-o", folder / "s.json")
    assert told.code == 0, told.err
    for options in (["--data", folder / "x.npz"], ["--data", folder / "x.npz", "--sensitivity", folder / "s.json"]):
        found = onnxprune(
            *prune(model, "--macs", "0.5", "--allocate", "sensitivity", *options, "--overwrite", "--json")
        )
        assert found.code == 0, found.err
        assert found.json["settings"]["allocate"] == "sensitivity"
        lost = {g["name"]: 1 - g["channels_after"] / g["channels_before"] for g in found.json["groups"]}
        assert lost == pytest.approx({g["name"]: g["recommended"] for g in told.json["groups"]})


def test_the_metric_of_a_script(model: Path) -> None:
    script = model.parent / "metric.py"
    script.write_text(
        "import numpy as np\n"
        f"held = np.load({str(model.parent / 'x.npz')!r})\n"
        "feeds = {k: held[k] for k in held.files if k != 'labels'}\n"
        "def evaluate(run):\n"
        "    return float((next(iter(run(feeds).values())).argmax(axis=1) == held['labels']).mean())\n"
    )
    found = onnxprune(
        "sensitivity", model, "--data", model.parent / "x.npz", "--ratios", "0.5", "--eval", script, "--json"
    )
    assert found.code == 0, found.err
    assert found.json["metric"] == 1.0 and all(0 <= p["metric"] <= 1 for g in found.json["groups"] for p in g["points"])


@pytest.mark.parametrize(
    ("options", "pattern", "code"),
    [
        (["--labels", "lables"], "has no array 'lables' (it has: ", 1),
        (["--labels", "none.npy"], "cannot be read", 1),
        (["--eval", "none.py"], "is not a file", 1),
        (["--ratios", "0,0.5"], "is not between 0 and 1", 2),
        (["--ratios", "half"], "neither a number nor", 2),
        (["--picture", "s.png"], "is drawn as SVG", 2),
        (["--macs", "2"], "outside (0, 1)", 1),
        (["--criterion", "l11"], "did you mean 'l1'", 1),
    ],
)
def test_bad_options_are_refused(options: list[str], pattern: str, code: int, model: Path) -> None:
    found = onnxprune("sensitivity", model, "--data", model.parent / "x.npz", *options)
    assert found.code == code and pattern in found.words, found.words


def test_it_needs_data(model: Path) -> None:
    found = onnxprune("sensitivity", model)
    assert found.code == 2 and "--data" in found.words


def test_a_target_that_no_ratios_meet_is_said(model: Path) -> None:
    found = onnxprune("sensitivity", model, "--data", model.parent / "x.npz", *GRID, "--macs", "0.001")
    assert found.code == 0 and "no ratios are recommended" in found.err and "lose" not in found.out


def test_labels_are_those_of_the_samples_or_refused(model: Path) -> None:
    folder = model.parent
    held = np.load(folder / "x.npz")
    name = next(iter(set(held.files) - {"labels"}))
    np.save(folder / "short.npy", held["labels"][:-1])
    np.save(folder / "long.npy", np.append(held["labels"], 0))
    np.save(folder / "one.npy", np.int64(1))
    base = ["sensitivity", model, "--data", folder / "x.npz", *GRID]
    for bad, told in (("short", "63 labels"), ("long", "65 labels"), ("one", "no list")):
        refused = onnxprune(*base, "--labels", folder / f"{bad}.npy")
        assert refused.code == 1 and told in refused.err
    (folder / "arrays").mkdir()
    for n, sample in enumerate(held[name]):
        np.save(folder / "arrays" / f"{n}.npy", sample)
    refused = onnxprune("sensitivity", model, "--data", folder / "arrays", *GRID, "--labels", folder / "y.npy")
    assert refused.code == 1 and "in no order of labels" in refused.err and "--eval" in refused.err


def test_labels_stay_with_their_samples_where_not_all_are_taken(model: Path) -> None:
    folder = model.parent
    held = np.load(folder / "x.npz")
    name = next(iter(set(held.files) - {"labels"}))
    order = np.argsort(np.tile(held["labels"], 8), kind="stable")  # sorted by class, and more than are compared
    x, y = np.tile(held[name], (8, *(1,) * (held[name].ndim - 1)))[order], np.tile(held["labels"], 8)[order]
    np.savez(folder / "sorted.npz", **{name: x}, labels=y)
    base = ["sensitivity", model, "--data", folder / "sorted.npz", *GRID, "--labels", "labels", "--samples", "32"]
    found = onnxprune(*base, "--json")
    assert found.code == 0, found.err
    assert found.json["accuracy"] == 1.0


def test_channels_are_chosen_by_gradients_and_other_gradients_are_measured_anew(model: Path) -> None:
    folder, tensors = model.parent, onnx.load(model).graph.initializer
    base = ["sensitivity", model, "--data", folder / "x.npz", *GRID, "--criterion", "taylor"]
    found = []
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        np.savez(folder / "g.npz", **{t.name: rng.normal(size=t.dims).astype(np.float32) for t in tensors})
        found.append(onnxprune(*base, "--gradients", folder / "g.npz", "--json"))
        assert found[-1].code == 0, found[-1].err
        assert found[-1].json["criterion"] == "taylor"
    assert found[0].json["groups"] != found[1].json["groups"]
