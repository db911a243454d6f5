"""What the verbs share: the application they belong to, and options that many of them have."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from click.core import ParameterSource

from tinyfl import __version__
from tinyfl.building.toolchains import Toolchain
from tinyfl.errors import ConfigError
from tinyfl.errors.words import visible

app = typer.Typer(
    name="tinyfl",
    help="Train a fleet of microcontrollers together.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

PORT, LOCAL_PORT = 8000, 8001
"""Where a SuperLink listens by default: for gateways, and, on its own machine, for submitted runs."""

Compiler = Annotated[Toolchain, typer.Option(help="zig (from tinyfl\\[firmware]) or gcc (arm-none-eabi-gcc).")]
Kinds = Annotated[list[str] | None, typer.Option("--board", help="A kind of board, or a manifest's path; may repeat.")]
Ids = Annotated[list[str] | None, typer.Option("--id", help="A board by its unique id, or the id's beginning; may repeat.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="Boards with this tag in devices.toml; may repeat.")]
Ports = Annotated[
    list[str] | None, typer.Option("--port", help="The serial port of a board: a name, a pty, socket://…; may repeat.")
]
MAX_BAUD = 4_000_000
Baud = Annotated[int, typer.Option(min=0, max=MAX_BAUD, help="Speed of --port. Default: the manifest's, or 115,200.")]
AutoBaud = Annotated[
    str,
    typer.Option(
        metavar="N|auto",
        help="Speed of --port. Default: the manifest's, or 115,200. auto: raised as far as board, adapter and cable allow.",
    ),
]
Wait = Annotated[float, typer.Option(min=0, help="Seconds to wait for absent boards.")]
Inventory = Annotated[
    Path | None, typer.Option("--inventory", help="Your file of boards and their tags. Default: devices.toml, if there is one.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def read_baud(text: str) -> tuple[int, bool]:
    """The rate (0: the manifest's) of an AutoBaud option, and whether it is to be raised.

    Raises ConfigError for what is neither a rate nor "auto"."""
    if text == "auto":
        return 0, True
    if not text.isascii() or not text.isdigit() or int(text) > MAX_BAUD:
        raise ConfigError(f"--baud {text} is no speed: give a number up to {MAX_BAUD:,}, or auto.")
    return int(text), False


def given(ctx: typer.Context, name: str) -> bool:
    """Whether the user gave that option."""
    return ctx.get_parameter_source(name) is not ParameterSource.DEFAULT


def say(text: str) -> None:
    """Lines for stdout; JSON needs none of this care."""
    print(visible(text), flush=True)  # not click's echo, which writes UTF-8 where the output takes ASCII only


def tell(text: str) -> None:
    """Lines for stderr. Where nobody can take them, as on a full disk, they are lost: a missing word must not end a gateway."""
    try:
        print(visible(text), file=sys.stderr, flush=True)
    except OSError:
        return


def _version(on: bool) -> None:
    if on:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def tinyfl(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Train a fleet of microcontrollers together."""
