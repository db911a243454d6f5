"""Verbs on published data sets, which a user downloads."""

import json as jsonlib
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from tinyfl.cli.common import Json, say
from tinyfl.cli.data import data


@data.command("list")
def list_sets(json: Json = False) -> None:
    """List the published data sets of the tasks: where they come from, their licence and size. Nothing is downloaded."""
    from tinyfl.cli.show import data as show
    from tinyfl.data.published import PUBLISHED

    if json:
        typer.echo(jsonlib.dumps({"sets": [each.as_json() for each in PUBLISHED]}))
    else:
        show.published(PUBLISHED)


@data.command()
def verify(
    path: Annotated[Path, typer.Argument(help="A file of `tinyfl data list`, under its own name.", metavar="FILE")],
    json: Json = False,
) -> None:
    """Compare a downloaded file with its published checksum: verified, or unchecked if none is known; or exit code 3."""
    from tinyfl.data.published import verify as compare

    found = compare(path)
    if json:
        typer.echo(jsonlib.dumps(found))
    else:
        say(f"{found['file']}: {found['status']} ({found['why']}), {found['bytes']:,} bytes")


@data.command()
def convert(
    task: Annotated[str, typer.Argument(help="keywords, activity or presence.", metavar="TASK")],
    source: Annotated[Path, typer.Argument(help="The archive as it was downloaded, or a folder of its files.")],
    out: Annotated[Path, typer.Argument(help="The .npz file to write, for --data of a run.")],
    json: Json = False,
) -> None:
    """Make the .npz file of a task from a downloaded data set."""
    from tinyfl.errors import ConfigError
    from tinyfl.registry.tasks import TASKS
    from tinyfl.system.files import npz, write_whole

    converters = {name: entry.converter for name, entry in TASKS.items() if entry.converter}
    if task not in converters:
        raise ConfigError(f"nothing is converted for task {task!r}. Give one of {', '.join(converters)}.")
    if out.suffix != ".npz":
        raise ConfigError(f"{out} would be an .npz file. Give a name that ends so, such as {task}.npz.")
    module, _, name = converters[task].partition(":")
    arrays = getattr(import_module(module), name)(source)
    write_whole(out, npz(**arrays))
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    if json:
        typer.echo(jsonlib.dumps({"out": str(out), "arrays": shapes}))
    else:
        say(f"{out}: " + ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items()))
