"""Verbs on a user's data, before a run."""

import json as jsonlib
from pathlib import Path
from typing import Annotated, Any

import typer

from tinyfl.cli.common import Json, app
from tinyfl.cli.options import given, with_settings
from tinyfl.errors import DataError
from tinyfl.registry.parameters import OF_A_TABLE

data = typer.Typer(help="Look at your own data before a run.", no_args_is_help=True)
app.add_typer(data, name="data")


@data.command()
@with_settings("targets", *OF_A_TABLE, "shots", "seed")
def check(
    path: Annotated[Path, typer.Argument(help="What --data of a run takes: a file, or a folder of files.", metavar="FILE")],
    json: Json = False,
    **settings: Any,
) -> None:
    """Check your own data: devices, classes, leaks, suspicious inputs. Exits with 3 if a run would be refused or misled."""
    from tinyfl.cli.show import data as show
    from tinyfl.config import resolve
    from tinyfl.data.check import check as look
    from tinyfl.data.check import demand_usable
    from tinyfl.data.reading import read_table
    from tinyfl.tasks.npz import Npz

    if not path.exists():
        raise DataError(f"{path}: no such file or folder. Give the path of your data.")
    config = resolve({"task": Npz.name, **given(settings)})
    reading = config.reading
    found = look(read_table(path, reading), config.seed, reading)
    if json:
        typer.echo(jsonlib.dumps(found))
    else:
        show.check(found)
    demand_usable(found)
