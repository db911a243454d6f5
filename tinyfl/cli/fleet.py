"""Verbs of boards that are connected: devices, push, record, monitor, doctor."""

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from tinyfl.cli.common import AutoBaud, Baud, Ids, Inventory, Json, Kinds, Ports, Tags, Wait, app, read_baud, say
from tinyfl.errors import ConfigError
from tinyfl.errors.words import plain


@app.command()
def devices(
    port: Ports = None,
    baud: Baud = 0,
    seconds: Annotated[float, typer.Option(min=0.1, max=60, help="Time limit for a board's answer.")] = 2.0,
    save: Annotated[bool, typer.Option("--save", help="Write the boards that answer to devices.toml.")] = False,
    tag: Annotated[list[str] | None, typer.Option(help="With --save: give them this tag; may repeat.")] = None,
    file: Inventory = None,
    json: Json = False,
) -> None:
    """List serial ports and debug probes, with the boards that answer. Resets none."""
    from dataclasses import asdict

    from tinyfl.cli.show import devices as show
    from tinyfl.devices import connected, inventory, ports
    from tinyfl.system.loop import in_loop

    if tag and not save:
        raise ConfigError("--tag is for boards that are saved: give --save too. To choose by tag: tinyfl push --tag.")
    saved = () if save and file and not file.exists() else inventory.read_inventory(file)
    now = ports.serial_ports()
    named = {each.url: each for each in inventory.ports_of(saved)}
    named |= {url: ports.port(url, baud, now) for url in port or ()}
    found = in_loop(connected.look(list(named.values()), seconds))
    probes = connected.probes()
    written = inventory.save(found, tag or (), file) if save else ()
    if json:
        listed = {"devices": [each.as_json() for each in found], "probes": [asdict(probe) for probe in probes]}
        typer.echo(jsonlib.dumps(listed | ({"saved": [asdict(each) for each in written]} if save else {})))
        return
    show.devices(found, probes, {each.id: each for each in (*saved, *written)})
    if save:
        what = ", ".join(each.id for each in written) or "nothing, since no board answered"
        say(f"saved in {file or inventory.DEVICES}: {what}")
        for each in inventory.without_manifest(written):
            kind = f"{each.id} is of a kind of your own, {plain(each.board)}, whose manifest is not here."
            say(f'{kind} For tinyfl flash to find it, write into its table: manifest = "PATH.toml"')


@app.command()
def push(
    model: Annotated[str, typer.Argument(help="A finished run's directory, an .npz of weights, or an int8 .tflite file.")],
    all: Annotated[bool, typer.Option("--all", help="All boards that are connected or in devices.toml.")] = False,
    board: Kinds = None,
    id: Ids = None,
    tag: Tags = None,
    port: Ports = None,
    baud: AutoBaud = "0",
    wait: Wait = 0.0,
    file: Inventory = None,
    json: Json = False,
) -> None:
    """Write a model to the flash of connected boards: a run's weights to learn from, or an int8 model to infer with."""
    from tinyfl.cli.show import devices as show
    from tinyfl.devices import inventory
    from tinyfl.devices import push as pushing

    selection = inventory.selection(board or (), id or (), tag or (), port or (), everything=all)
    speed, auto = read_baud(baud)
    done = pushing.push(model, selection, urls=port or (), baud=speed, auto=auto, wait=wait, devices=file, tell=show.outcome)
    if json:
        typer.echo(jsonlib.dumps(done.as_json()))
    else:
        show.pushed(done)
    pushing.demand_all(done)


@app.command()
def record(
    port: Annotated[str, typer.Argument(help="The board's port.")],
    sensor: Annotated[str, typer.Option(help="The name of its sensor.")],
    label: Annotated[
        str, typer.Option(help="The label of all these readings: a class by name or number. Default: the board's own labels.")
    ] = "",
    seconds: Annotated[float, typer.Option(min=0.1, max=86_400, help="How long.")] = 60.0,
    raw: Annotated[bool, typer.Option("--raw", help="Readings, as the chip gives them, instead of samples.")] = False,
    device: Annotated[str, typer.Option(help="The device in the file. Default: the board's id.")] = "",
    out: Annotated[Path, typer.Option(help="The .npz file; rows are added to those there.")] = Path("recorded.npz"),
    baud: Baud = 0,
    json: Json = False,
) -> None:
    """Record a board's sensor, as a file that runs take as --data or as readings."""
    from tinyfl.devices import record as recording

    what = recording.Recorder(sensor, label, seconds, raw, device)
    done = recording.record(port, what, out, baud=baud)
    if json:
        typer.echo(jsonlib.dumps(done.as_json()))
        return
    kind = "readings" if raw else "samples"
    say(f"{done.added:,} {kind} of {plain(done.device)} added to {out}, which has {done.rows:,}")
    if done.late:
        say(f"{done.late:,} came after the sensor's deadline; they are kept.")
    if done.unlabelled:
        say(f"{done.unlabelled:,} had no label: say what it was with --label NAME.")
    if done.unknown:
        say(
            f"{done.unknown:,} had a label beyond the last class, and are kept without one: let .read give 0 to "
            f"{done.sensor.outputs - 1}."
        )


@app.command()
def monitor(
    port: Annotated[str, typer.Argument(help="The board's port; or give --id.")] = "",
    id: Annotated[str, typer.Option(help="The board with this id, or the beginning of one, wherever it is.")] = "",
    baud: Baud = 0,
    interval: Annotated[float, typer.Option(help="Seconds between two statuses.")] = 1.0,
    sensor: Annotated[str, typer.Option(help="Show its sensor of this name too, and what its network makes of it.")] = "",
    file: Inventory = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line on stdout.")] = False,
) -> None:
    """Show one board's messages live, through restarts and unplugged cables, until Ctrl-C."""
    from tinyfl.cli.show import devices as show
    from tinyfl.devices import monitor as watching

    def line(entry: watching.Line) -> None:
        print(jsonlib.dumps(entry.as_json()), flush=True)

    if json:
        watching.monitor(port, line, id=id, baud=baud, interval=interval, devices=file, sensor=sensor)
        return
    with show.Monitor() as shown:
        watching.monitor(port, shown.tell, id=id, baud=baud, interval=interval, devices=file, sensor=sensor)


@app.command()
def doctor(
    udev_rules: Annotated[
        bool, typer.Option("--udev-rules", help="Print a file of udev rules for all boards' probes and ports.")
    ] = False,
    json: Json = False,
) -> None:
    """Check this machine for all that tinyfl needs, with a cure for each problem. Changes nothing."""
    from tinyfl import doctor as checking
    from tinyfl.cli.show import devices as show
    from tinyfl.devices import udev

    if udev_rules:
        text = udev.rules(*checking.usb_ids())
        typer.echo(jsonlib.dumps({"file": udev.FILE, "rules": text}) if json else text, nl=json)
        return
    found = checking.doctor()
    if json:
        typer.echo(jsonlib.dumps(checking.as_json(found)))
    else:
        show.checks(found)
    checking.demand_needed(found)
