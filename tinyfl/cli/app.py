"""What the verbs share: the application they belong to, and options that many of them have."""

from typing import Annotated

import typer

from tinyfl import __version__
from tinyfl.toolchains import Toolchain

app = typer.Typer(
    name="tinyfl",
    help="Train a fleet of microcontrollers together.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Compiler = Annotated[Toolchain, typer.Option(help="zig (from tinyfl\\[firmware]) or gcc (arm-none-eabi-gcc).")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def tinyfl(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Train a fleet of microcontrollers together."""
