"""What every test shares: one thread per worker, and the folder of real models where there is one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before anything loads a BLAS: the tests already run in parallel, and threads of threads only slow each other down.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

REPO = Path(__file__).resolve().parent.parent


def find_shared() -> Path | None:
    """The folder of real models, or None; one that was asked for by name and is missing is an error, not a skip."""
    named = os.environ.get("ONNXPRUNE_SHARED")
    folder = Path(named) if named else REPO.parent / "shared"
    if folder.is_dir():
        return folder.resolve()
    if named:
        raise pytest.UsageError(f"ONNXPRUNE_SHARED names no folder: {named}")
    return None


def pytest_report_header() -> str:
    return f"real models: {find_shared() or 'absent, tests marked `shared` are skipped'}"


def pytest_itemcollected(item: pytest.Item) -> None:
    """Whoever asks for the fixture carries the marker, before `-m` selects."""
    if "shared" in getattr(item, "fixturenames", ()):
        item.add_marker("shared")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("shared") and find_shared() is None:
        pytest.skip("no folder of real models")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models; the test that asks for it is skipped where there is none."""
    folder = find_shared()
    if folder is None:
        pytest.skip("no folder of real models")
    return folder


@pytest.fixture(scope="session")
def repo() -> Path:
    """The repository's root."""
    return REPO
