"""The verb that writes firmware to boards: flash."""

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from tinyfl.cli.common import Baud, Compiler, Ids, Inventory, Json, Kinds, Ports, Tags, Wait, app, say


@app.command()
def flash(
    board: Kinds = None,
    everything: Annotated[bool, typer.Option("--all", help="Every connected board (of these kinds).")] = False,
    id: Ids = None,
    tag: Tags = None,
    probe: Annotated[
        list[str] | None,
        typer.Option(help="A debug probe, bootloader or drive: its USB serial number or socket, or its path; may repeat."),
    ] = None,
    port: Ports = None,
    baud: Baud = 0,
    method: Annotated[
        str,
        typer.Option(help="pyocd, openocd, copy, bossac or dfu-util. Default: the first available one of the manifest's."),
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands, and touch no board.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Flash boards that are up to date, too.")] = False,
    wait: Wait = 0.0,
    toolchain: Compiler = "zig",
    source: Annotated[list[Path] | None, typer.Option(help="A C file with sources of samples; may repeat.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to build, a folder for each board. Default: the user's cache.")
    ] = None,
    file: Inventory = None,
    json: Json = False,
) -> None:
    """Build firmware, write it to connected boards in parallel, and verify it. Skips boards that already run it."""
    from tinyfl.building import boards
    from tinyfl.cli.show import flash as show
    from tinyfl.flash import run
    from tinyfl.flash.targets import FlashSelection

    words = tuple(board or ())
    kinds = tuple(map(boards.load, words))
    selection = FlashSelection(
        kinds, tuple(id or ()), tuple(tag or ()), everything, tuple(probe or ()), tuple(port or ()), baud, words
    )
    job = run.Job(method, toolchain, tuple(source or ()), force, out)
    if dry_run:
        lines = run.commands(selection, job, devices=file)
        say(jsonlib.dumps({"commands": lines}) if json else "\n".join(lines))
        return
    outcomes = run.flash(selection, job, wait=wait, devices=file, tell=show.outcome)
    if json:
        typer.echo(jsonlib.dumps({"boards": [each.as_json() for each in outcomes]}))
    else:
        show.outcomes(outcomes)
    run.demand_all(outcomes)
