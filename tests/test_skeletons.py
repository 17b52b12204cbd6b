"""Exported architectures with seeded weights. Law: at ratio 0.5 a network keeps about a quarter of its work, exactly.

`benchmarks/coverage.py` prunes all of them; here are a few of every kind, small enough to run each time.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxprune.runtime import random_feeds, run, session
from tests.contract import check_report, inflated, onnxprune, prune, stored

pytestmark = pytest.mark.shared

# Share of the multiply-accumulates that may stay. What a LayerNormalization runs over stays, so of transformers the
# hidden units of their MLPs and half of every head go: about a half.
CONVOLUTIONS, TRANSFORMERS = 0.35, 0.56
GRAPHS = {
    **dict.fromkeys(("resnet18_dyn", "mobilenet_v3_small_tsbn", "squeezenet1_1_ts", "mnasnet0_5_ts"), CONVOLUTIONS),
    **dict.fromkeys(("shufflenet_v2_x0_5_tsbn", "regnet_y_400mf_dyn", "efficientnet_b0_ts"), CONVOLUTIONS),
    **dict.fromkeys(("densenet121_tsbn", "googlenet_dyn", "lraspp_mobilenet_v3_large_dyn"), CONVOLUTIONS),
    **dict.fromkeys(("swin_t_ts", "swin_t_dyn", "convnext_tiny_ts"), TRANSFORMERS),
}
TIED = ("shufflenet_v2_x0_5_tsbn", "swin_t_ts")


@pytest.mark.parametrize(("name", "tied"), [(n, False) for n in GRAPHS] + [(n, True) for n in TIED])
def test_half_the_channels_go(name: str, tied: bool, shared: Path, tmp_path: Path) -> None:
    model, small = stored(inflated(shared, name, tied), tmp_path), tmp_path / "small.onnx"
    found = onnxprune(*prune(model, "--ratio", "0.5", "--json", out=small))
    assert found.code == 0, found.err
    report = found.json
    check_report(report)
    assert report["verified"]["kind"] == "exact" and not report["isolated"]
    assert report["after"]["macs"] <= GRAPHS[name] * report["before"]["macs"]
    for group in report["groups"]:  # as near as whole channels and equal rows allow, or a word why not
        share = 1 - group["channels_after"] / group["channels_before"]
        assert abs(share - 0.5) <= 0.05 + 1 / group["channels_before"] or group["note"], group
    assert run(session(small), random_feeds(model, batch=1, seed=1))
