"""What every test of a rule shares: an exception inside a rule shows, instead of freezing the node."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _debugging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXPRUNE_DEBUG", "1")
