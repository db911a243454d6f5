"""The command line: one thin function a verb. Results go to stdout, progress and errors to stderr."""

import sys

import typer

from tinyfl.cli import federation, firmware, flashing, fleet, learning, models  # noqa: F401  each adds its verbs
from tinyfl.cli.app import app
from tinyfl.errors import TinyflError

__all__ = ["app", "main"]


def main() -> None:
    """Runs the command line; a TinyflError becomes its message on stderr and its exit code."""
    try:
        app(prog_name="tinyfl")
    except TinyflError as error:
        typer.echo(f"tinyfl: {error}", err=True)
        sys.exit(error.exit_code)
    except MemoryError as error:
        typer.echo(f"tinyfl: out of memory ({error}). Give a smaller --cohort, --samples, --tasks or --network.", err=True)
        sys.exit(TinyflError.exit_code)
