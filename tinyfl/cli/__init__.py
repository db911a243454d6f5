"""The command line: one thin function a verb. Results go to stdout, progress and errors to stderr."""

from typing import Any

from tinyfl.cli import ending

__all__ = ["app", "command", "main"]


def command() -> None:
    """This process: the command line, which signals end."""
    try:
        ending.prepare()  # before anything that takes a while, such as loading the verbs
        main()
    except BaseException as error:
        if ending.interrupted(error):
            ending.leave(error)
        raise


def main() -> None:
    """Runs the command line; a TinyflError becomes its message on stderr and its exit code."""
    import sys

    import typer

    from tinyfl.errors import TinyflError

    try:
        _verbs()(prog_name="tinyfl")
    except TinyflError as error:
        if ending.interrupted(error):
            raise
        typer.echo(f"tinyfl: {error}", err=True)
        sys.exit(error.exit_code)
    except MemoryError as error:
        typer.echo(f"tinyfl: out of memory ({error}). Give a smaller --cohort, --samples, --tasks or --network.", err=True)
        sys.exit(TinyflError.exit_code)


def _verbs() -> Any:
    """The application, with all verbs."""
    from tinyfl.cli import federation, firmware, flashing, fleet, learning, models  # noqa: F401  each adds its verbs
    from tinyfl.cli.app import app

    globals()["app"] = app  # in the place of the module of this name
    return app


def __getattr__(name: str) -> Any:
    if name == "app":
        return _verbs()
    raise AttributeError(f"module 'tinyfl.cli' has no attribute {name!r}")
