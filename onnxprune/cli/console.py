"""What a user sees. Law: results go to standard output, everything else to standard error; a pipe gets no colours."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from onnxprune.errors import OnnxpruneError, OutputError, debugging, described
from onnxprune.progress import Observer, silent

DISK = "check the disk's free space and permissions, and run again"


def show(view: RenderableType) -> None:
    """Print to standard output, without colour in a pipe."""
    Console(highlight=False).print(view)


@contextmanager
def progress() -> Iterator[Observer]:
    """A progress bar on standard error where that is a terminal; silence elsewhere."""
    console = Console(stderr=True)
    if not (sys.stderr.isatty() and console.is_terminal):  # rich takes a pipe for a terminal where FORCE_COLOR is set
        with interruptible():
            yield silent
        return
    columns: list[Any] = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()]
    with interruptible(), Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("start", total=1.0)

        def observe(stage: str, done: float) -> None:
            bar.update(task, description=stage, completed=done, total=1.0 if done else None)

        yield observe


@contextmanager
def interruptible() -> Iterator[None]:
    """Say what an interrupt left behind; typer would end without a word."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("onnxprune: interrupted; nothing half-written was left", err=True)
        sys.exit(130)


def reserve_stdout() -> None:
    """Keep standard output for results: native libraries write warnings there, so theirs goes to standard error."""
    try:
        if sys.stdout.fileno() != 1:
            return
        sys.stdout.flush()
        ours = os.dup(1)
        os.dup2(2, 1)
    except (AttributeError, OSError, ValueError):  # closed, or replaced by something that is no file
        return
    sys.stdout = open(ours, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)  # noqa: SIM115, PTH123


def run_app(app: Callable[[], object]) -> None:
    """Run a command line; every failure is one line and an exit code."""
    reserve_stdout()
    try:
        app()
    except OnnxpruneError as error:
        fail(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left; say nothing more
        sys.exit(1)
    except OSError as error:  # a full disk, a file taken away meanwhile: not ours, and not a bug
        fail(str(OutputError(error.strerror or str(error), where=str(error.filename or ""), remedy=DISK)))
    except Exception as error:  # the last resort: users see one line, developers set the variable
        if debugging():
            raise
        fail(f"internal error, {described(error)}; please report it with the output of ONNXPRUNE_DEBUG=1")


def fail(line: str) -> None:
    """Print an error line and exit with 1."""
    typer.echo(f"onnxprune: {line}", err=True)
    sys.exit(1)
