"""The error tree. Law: every error is one line that says what is wrong, where, and what to do about it."""

from __future__ import annotations

import os

LONGEST = 300  # characters of a part of a message: names in damaged files can be longer than any screen


class OnnxpruneError(Exception):
    """Any failure onnxprune can name. The command line prints it as one line and exits 1.

    Args:
        what: What is wrong.
        where: The file, node or tensor it was seen at.
        remedy: What the user can do.
    """

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__("; ".join(shorten(part) for part in (what, where, remedy) if part))
        self.what, self.where, self.remedy = what, where, remedy


def shorten(text: str) -> str:
    """One line, without its middle where it is too long."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"


def debugging() -> bool:
    """Whether exceptions nobody foresaw are raised as they are (ONNXPRUNE_DEBUG), for the developer to see."""
    return bool(os.environ.get("ONNXPRUNE_DEBUG"))


def described(error: BaseException) -> str:
    """The kind and message of an exception on one line."""
    return shorten(f"{type(error).__name__}: {error}")


class ModelError(OnnxpruneError):
    """The input file is not a model that can be read, or breaks the ONNX standard."""


class UnprunableError(OnnxpruneError):
    """The model is fine, but nothing in it can be removed."""


class DataError(OnnxpruneError):
    """Calibration arrays do not fit the model's inputs."""


class PlanError(OnnxpruneError):
    """A target, limit or plan file that cannot be carried out on this model."""


class VerificationError(OnnxpruneError):
    """The pruned model does not compute what the masked model computes."""


class NoSpeedup(OnnxpruneError):
    """The pruned model is right, but a timing does not show it to be faster."""


class RuntimeUnavailable(OnnxpruneError):
    """onnxruntime is missing, or refuses a model."""


class ProviderError(OnnxpruneError):
    """An execution provider that this onnxruntime does not have."""


class OutputError(OnnxpruneError):
    """The result cannot be written where it was asked for."""
