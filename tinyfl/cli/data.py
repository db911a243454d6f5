"""Verbs on a user's data, before a run."""

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from tinyfl.cli.common import Json, app
from tinyfl.config.settings import SETTINGS

data = typer.Typer(help="Look at your own data before a run.", no_args_is_help=True)
app.add_typer(data, name="data")


@data.command()
def check(
    path: Annotated[Path, typer.Argument(help="What --data of a run takes: a file, or a folder of files.", metavar="FILE")],
    label_column: Annotated[str, typer.Option(help=SETTINGS["label_column"].help)] = "",
    device_column: Annotated[str, typer.Option(help=SETTINGS["device_column"].help)] = "",
    input_columns: Annotated[str, typer.Option(help=SETTINGS["input_columns"].help)] = "",
    window: Annotated[int, typer.Option(min=0, help=SETTINGS["window"].help)] = 0,
    stride: Annotated[int, typer.Option(min=0, help=SETTINGS["stride"].help)] = 0,
    targets: Annotated[str, typer.Option(help=SETTINGS["targets"].help)] = "",
    shots: Annotated[int, typer.Option(min=1, help="Samples that a device adapts on, as of the run.")] = 10,
    drop_small: Annotated[bool, typer.Option("--drop-small", help=SETTINGS["drop_small"].help)] = False,
    seed: Annotated[int, typer.Option(min=0, help="The run's, which draws the devices to hold out.")] = 0,
    json: Json = False,
) -> None:
    """Check your own data: devices, classes, leaks, suspicious inputs. Exits with 3 if a run would be refused or misled."""
    from tinyfl.cli.show import data as show
    from tinyfl.data import Reading
    from tinyfl.data.check import check as look
    from tinyfl.data.check import demand_usable
    from tinyfl.data.reading import read_table

    SETTINGS["targets"].demand_choice(targets)
    reading = Reading(
        label_column, device_column, input_columns, window, stride, drop_small=drop_small, shots=shots, targets=targets
    )
    found = look(read_table(path, reading), seed, reading)
    if json:
        typer.echo(jsonlib.dumps(found))
    else:
        show.check(found)
    demand_usable(found)
