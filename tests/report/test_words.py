"""How figures and names read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from onnxprune.report import words
from tests.report.runs import NASTY, fitted, timed


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0"), (9_999, "9,999"), (10_000, "10.00 k"), (272_474, "272.5 k"), (999_990, "1.000 M"), (4.1e9, "4.100 G")],
)
def test_counts(n: int, text: str) -> None:
    assert words.count(n) == text


@pytest.mark.parametrize(("n", "text"), [(8, "8 B"), (1_084_648, "1.085 MB"), (999, "999 B"), (123_456, "123.5 kB")])
def test_sizes(n: int, text: str) -> None:
    assert words.size(n) == text


def test_changes() -> None:
    assert words.change(200, 100) == "-50.0%" and words.change(100, 110) == "+10.0%" and words.change(0, 1) == "-"
    assert words.points(0.9865, 0.98) == "-0.65 points"


def test_plurals() -> None:
    assert [words.plural(n, "batch") for n in (1, 2)] == ["1 batch", "2 batches"]
    assert words.plural(1200, "layer") == "1,200 layers"


@pytest.mark.parametrize("width", [1, 5, 6, 12, 20, 30, 44])
@pytest.mark.parametrize("name", ["w", "/layer1/layer1.0/layer1.0.0/Conv", "model.encoder.layers.11.attention.query"])
def test_short_names_fit_and_whole_ones_stay(name: str, width: int) -> None:
    for short in (words.shorten(name, width), words.ending(name, max(width, 4))):
        assert len(short) <= max(width, 4) and (short == name or len(name) > width)


def test_names_lose_repetitions_first_and_keep_their_ends() -> None:
    assert words.shorten("/features/features.1/block/block.0/block.0.0/Conv", 30) == ".../features.1/block.0.0/Conv"
    assert words.shorten("model.layers.11.attention.query.weight", 24) == "model.la....query.weight"


def test_control_characters_show_as_escapes() -> None:
    shown = words.printable(NASTY)
    assert shown.isprintable() and "\\n" in shown and "\\x1b" in shown
    assert words.printable("Gewicht_ß", ascii_only=True).isascii()


def test_numbered_tensors_go_by_their_node() -> None:
    assert words.label("onnx::Conv_193", ["/conv1/Conv"]) == words.label("val_12", ["/conv1/Conv"]) == "/conv1/Conv"
    assert words.label("conv1.weight", ["/conv1/Conv"]) == "conv1.weight"
    assert words.label("39", [""]) == "39"


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [(1.5, "faster: 1.50x"), (0.5, "slower: 0.50x"), (1.0, "no significant difference (1.00x")],
)
def test_a_timing_is_told_plainly(ratio: float, verdict: str) -> None:
    assert words.speedup(timed(ratio)).startswith(verdict)


def test_a_noisy_machine_is_told() -> None:
    assert "identical models differed by 10%" in words.speedup(timed(1.05, control=1.1))
    assert "too noisy" in words.control(timed(control=1.1)) and "too noisy" not in words.control(timed())


def test_settings_read_as_they_were_given() -> None:
    held = {"ratio": 0.3, "skip": ("a*", "b"), "layer_ratios": (("c*", 0.5),)}
    assert words.settings(held) == "ratio 0.3, skip a* b, layer ratios c*=0.5"


@pytest.mark.parametrize(
    ("reached", "least", "text"), [(True, False, "met"), (False, True, "out of reach"), (False, False, "not met")]
)
def test_a_target_says_how_it_was_met(reached: bool, least: bool, text: str) -> None:
    found = replace(fitted(), reached=reached, least=least)
    assert words.fitted(found) == f"1.50x, {text} after 2 measurements: 1.38x, 1.49x"
