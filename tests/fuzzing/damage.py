"""Damage to the bytes of a file, as broken transfers and disks leave it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Damage = Callable[[bytes, np.random.Generator], bytes]


def span(data: bytes, rng: np.random.Generator, longest: int = 64) -> tuple[int, int]:
    """A random stretch."""
    start = int(rng.integers(len(data) or 1))
    return start, start + int(rng.integers(1, longest))


def bits_flipped(data: bytes, rng: np.random.Generator) -> bytes:
    out = bytearray(data)
    for at in rng.integers(len(data), size=int(rng.integers(1, 9))):
        out[at] ^= 1 << int(rng.integers(8))
    return bytes(out)


def bytes_overwritten(data: bytes, rng: np.random.Generator) -> bytes:
    a, b = span(data, rng)
    filling = rng.integers(256, size=b - a).astype(np.uint8).tobytes()
    return data[:a] + (filling if rng.random() < 0.5 else b"\xff" * (b - a)) + data[b:]


def bytes_deleted(data: bytes, rng: np.random.Generator) -> bytes:
    a, b = span(data, rng)
    return data[:a] + data[b:]


def bytes_inserted(data: bytes, rng: np.random.Generator) -> bytes:
    a, b = span(data, rng)
    return data[:a] + rng.integers(256, size=b - a).astype(np.uint8).tobytes() + data[a:]


def bytes_repeated(data: bytes, rng: np.random.Generator) -> bytes:
    a, b = span(data, rng, 2000)
    return data[:b] + data[a:b] + data[b:]


def truncated(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(len(data) or 1))]


def zeroed(data: bytes, rng: np.random.Generator) -> bytes:
    a, b = span(data, rng, 5000)
    return data[:a] + bytes(len(data[a:b])) + data[b:]


DAMAGES: dict[str, Damage] = {
    f.__name__: f
    for f in (bits_flipped, bytes_overwritten, bytes_deleted, bytes_inserted, bytes_repeated, truncated, zeroed)
}
