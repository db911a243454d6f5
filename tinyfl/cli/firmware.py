"""Verbs of boards and their firmware: boards, build, emulate."""

import json as jsonlib
import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tinyfl.cli.common import Compiler, Json, app, say
from tinyfl.errors.words import shell

boards_app = typer.Typer(help="List, show and check board manifests (TOML files).", no_args_is_help=True)
app.add_typer(boards_app, name="boards")


@boards_app.command("list")
def boards_list(json: Json = False) -> None:
    """List tinyfl's own boards."""
    from tinyfl.building import boards
    from tinyfl.cli.show import boards as show

    found = boards.select("all")
    if json:
        typer.echo(jsonlib.dumps({"boards": [board.model_dump(mode="json", by_alias=True) for board in found]}))
    else:
        show.boards(found)


@boards_app.command("show")
def boards_show(
    board: Annotated[str, typer.Argument(help="A board's name, or a manifest's path.")], json: Json = False
) -> None:
    """Show one board: its memory, links and flash methods, and what was checked."""
    from tinyfl.building import boards
    from tinyfl.cli.show import boards as show

    found = boards.load(board)
    if json:
        typer.echo(jsonlib.dumps(found.model_dump(mode="json", by_alias=True)))
    else:
        show.board(found)


@boards_app.command("check")
def boards_check(
    manifest: Annotated[Path, typer.Argument(help="A manifest of your own, such as my-board.toml.")], json: Json = False
) -> None:
    """Report everything missing from a manifest, or wrong in it."""
    from tinyfl.building import boards

    board, wrong = boards.check(manifest)
    missing = boards.missing(board) if board else []
    if json:
        typer.echo(jsonlib.dumps({"manifest": str(manifest), "wrong": wrong, "missing": missing}))
    else:
        for line in missing:
            say(f"without {line}")
        if board:
            say(f"{manifest} is a whole manifest: {shell('tinyfl', 'build', '--board', manifest)}")
    if board is None:
        boards.read_manifest(manifest)


@boards_app.command("schema")
def boards_schema() -> None:
    """Print the manifest's JSON Schema, for editors."""
    from tinyfl.building import boards

    typer.echo(jsonlib.dumps(boards.schema(), indent=2))


@app.command()
def build(
    board: Annotated[str, typer.Option(help="Boards' names or manifests' paths, with commas between, or all.")],
    toolchain: Compiler = "zig",
    source: Annotated[list[Path] | None, typer.Option(help="A C file with sources of samples; may repeat.")] = None,
    out: Annotated[Path, typer.Option(help="Where to build, a folder for each board.")] = Path("build/firmware"),
    json: Json = False,
) -> None:
    """Build the firmware of boards, and show its flash and RAM."""
    from tinyfl.building import boards
    from tinyfl.building import build as builder
    from tinyfl.cli.show import boards as show

    chosen = boards.select(board)
    made = [builder.build(each, out / each.name, toolchain=toolchain, sources=source or ()) for each in chosen]
    if json:
        typer.echo(jsonlib.dumps({"firmware": [firmware.summary() for firmware in made]}))
    else:
        show.firmware(made)


@app.command()
def emulate(
    board: Annotated[str, typer.Option(help="A board's name.")],
    count: Annotated[int, typer.Option(help="How many.")] = 1,
    engine: Annotated[str, typer.Option(help="unicorn, qemu or process. Default: the board's first.")] = "",
    link: Annotated[str, typer.Option(help="pty or tcp.")] = "pty",
    toolchain: Compiler = "zig",
    first_id: Annotated[int, typer.Option(help="Id of the first board; the others' follow.")] = 1,
    source: Annotated[list[Path] | None, typer.Option(help="A C file with sources of samples; may repeat.")] = None,
    sensor: Annotated[str, typer.Option(help="With --readings: the sensor that took them.")] = "",
    readings: Annotated[Path | None, typer.Option(help="Recorded readings: each board takes those of one device.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to build. Default: the user's cache.")] = None,
    json: Json = False,
) -> None:
    """Run emulated boards with their real firmware, each on its own pty or TCP port, until Ctrl-C."""
    from tinyfl.cli.show import runs as show
    from tinyfl.fleets import emulation
    from tinyfl.sensors.source import images

    taken = images(readings, sensor, source or (), count) if readings else ()
    up = emulation.emulate(
        board, count, engine=engine, link=link, toolchain=toolchain, first=first_id, out=out, sources=source or (),
        readings=taken,
    )  # fmt: skip
    with up as running, suppress(KeyboardInterrupt):  # from the moment that their addresses are printed
        if json:
            typer.echo(jsonlib.dumps({"boards": [asdict(each) for each in running]}))
        else:
            show.emulated(running)
        threading.Event().wait()
