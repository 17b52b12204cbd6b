"""Remembered measurements."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onnxprune import cache, runtime


def test_what_is_remembered_is_recalled_with_its_key(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "x.json"
    cache.remember(path, {"threads": 1}, {"step": 8})
    assert cache.recall(path) == {"key": {"threads": 1}, "step": 8}


def test_another_key_is_another_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    one, two = cache.machine_key("cpu", 1), cache.machine_key("cpu", 2)
    assert cache.cache_path("a", one) == cache.cache_path("a", dict(reversed(one.items())))
    assert len({cache.cache_path("a", one), cache.cache_path("a", two), cache.cache_path("b", one)}) == 3


def test_another_accelerator_is_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = []
    for name in ("NVIDIA A", "NVIDIA B"):
        monkeypatch.setattr(runtime, "device", lambda provider, name=name: {"device": name})
        keys.append(cache.machine_key("cpu", 1))
    assert keys[0] != keys[1]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_damaged_file_is_nothing(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(content)
    assert cache.recall(tmp_path / "x.json") is None


def test_without_a_path_nothing_is_kept() -> None:
    cache.remember(None, {}, {})
    assert cache.recall(None) is None


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cache.remember(tmp_path / "x.json", {}, {})
    assert list(tmp_path.iterdir()) == []
