"""The command line. Law: a command turns its options into one call of the pipeline and prints the result, nothing more.

Exit codes: 0 done, 1 an error that onnxprune names in one line, 2 wrong usage, 130 interrupted.
"""

from onnxprune.cli import sensitivity, sweep
from onnxprune.cli.commands import app, model_folder
from onnxprune.cli.console import run_app

__all__ = ["app", "main", "model_folder", "sensitivity", "sweep"]


def main() -> None:
    """Run the command line; every failure is one line and an exit code."""
    run_app(app)
