"""Laws of the fit behind an activation: it knows what is let through, and is never worse there than least squares."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from onnxprune.calibrate import Moments, readers_of
from onnxprune.model import from_proto
from onnxprune.recover.rectified import Rows, Window, iterated, rectified, window_of
from onnxprune.recover.ridge import best_update, penalised
from tests import graphs


def problem(seed: int, groups: int = 1) -> tuple[tuple[Moments, Moments], tuple[Rows, Rows], np.ndarray]:
    """A layer with two outputs for each group, behind a scale, of which a third of the inputs is missing."""
    rng = np.random.default_rng(seed)
    slope, moments, rows = rng.uniform(-2, 2, 2 * groups), [], []
    true = rng.normal(size=(groups, 6, 2))
    for sites in (300, 100):
        x = rng.normal(size=(groups, sites, 6))
        y = (x @ true).transpose(1, 0, 2).reshape(sites, -1) * slope
        found, inputs = np.zeros_like(y), x[:, :, :4]
        part = Moments.empty(groups, 4, 2)
        part.add(inputs.transpose(1, 0, 2), (y - found) / slope, y)
        moments.append(part)
        rows.append(Rows(inputs.astype(np.float32), found, y))
    return (moments[0], moments[1]), (rows[0], rows[1]), slope


@pytest.mark.parametrize("window", [Window(0, np.inf), Window(0, 1.5), Window(-1, 1)])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_the_error_behind_the_activation_falls(seed: int, groups: int, window: Window) -> None:
    moments, rows, slope = problem(seed, groups)
    weight = np.square(slope).reshape(groups, 2)
    plain = best_update(*moments, weight)
    assert plain is not None
    ones = np.ones_like(slope)
    better = iterated([rows[0]], moments[0], plain, window, slope, 1 / slope, intercept=True)
    penalty = (penalised(moments[0], plain.ridge) - moments[0].gram)[:, :1, :1]
    before, after = (
        window.error(rows[0].predicted(m, slope), rows[0].wanted, slope**-2.0) + (penalty * m[:, :-1] ** 2).sum()
        for m in (plain.part, better)
    )
    assert after < before
    found = rectified(plain, moments, rows, window, slope)
    assert found is not None
    linear = window.error(rows[1].predicted(plain.part, slope), rows[1].wanted, ones)
    assert found.after <= linear and found.after < found.before


def test_where_nothing_is_cut_off_it_is_least_squares() -> None:
    moments, rows, slope = problem(0)
    plain = best_update(*moments, np.square(slope).reshape(1, 2))
    assert plain is not None
    same = iterated([rows[0]], moments[0], plain, Window(-np.inf, np.inf), slope, 1 / slope, intercept=True)
    assert np.allclose(same, plain.part, atol=1e-4)  # rows are float32
    held = iterated([rows[0]], moments[0], plain, Window(0, np.inf), slope, 1 / slope, intercept=False)
    assert not held[:, -1].any()


def test_what_readers_let_through() -> None:
    model = from_proto(
        onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N,3] x) => (float[N,3] p, float[N,3] q, float[N,3] r, float[N,3] s, float[N,3] x2)
        <float low = {-1}, float high = {6}> {
            a = Identity(x) p = Relu(a) a2 = Relu(a)
            b = Identity(x) q = Clip(b, low, high)
            c = Identity(x) r = Clip(c, , high)
            d = Identity(x) s = Relu(d) x2 = Add(d, a2)
        }""")
    )
    found = {name: window_of(name, model, readers_of(model)) for name in "abcdp"}
    assert found == {"a": Window(0, np.inf), "b": Window(-1, 6), "c": Window(-np.inf, 6), "d": None, "p": None}


def test_a_bundled_net_has_windows() -> None:
    model = graphs.traced(graphs.residual()).model
    assert window_of("a.add", model, readers_of(model)) == Window(0, np.inf)


def test_a_channel_that_is_always_zero_does_no_harm_to_the_others() -> None:
    """A depthwise convolution reads a channel behind a ReLU that never fires: its Gram matrix is nothing but zeros."""
    moments, rows, slope = problem(0, groups=3)
    for part, r in zip(moments, rows, strict=True):
        part.gram[1, :-1], part.gram[1, :, :-1], part.cross[1, :-1] = 0.0, 0.0, 0.0
        r.inputs[1] = 0.0
    weight = np.square(slope).reshape(3, 2)
    plain = best_update(*moments, weight)
    assert plain is not None
    found = rectified(replace(plain, ridge=1e-5), moments, rows, Window(0, np.inf), slope)
    assert found is not None and np.isfinite(found.matrix).all() and found.after < found.before
    assert not found.matrix[1, :-1].any()
