"""Verbs of a federation over a network: superlink, gateway, keys."""

import json as jsonlib
import os
import sys
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinyfl.cli.common import LOCAL_PORT, PORT, Json, app, tell
from tinyfl.errors import ConfigError

if TYPE_CHECKING:
    from tinyfl.flower.allowed import Allowed

Allow = Annotated[
    Path | None,
    typer.Option(
        envvar="TINYFL_ALLOWED",
        help="A TOML file: the apps, folders and extensions that runs may use. Default: tinyfl's own, runs/.",
    ),
]


@app.command()
def superlink(
    keys: Annotated[Path | None, typer.Option(help="The folder that tinyfl keys made. Default: keys.")] = None,
    host: Annotated[str, typer.Option(help="Where to listen for gateways. Default: every address of this machine.")] = "",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where to listen for gateways.")] = PORT,
    local_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Where runs are submitted, from this machine only.")
    ] = LOCAL_PORT,
    database: Annotated[Path, typer.Option(help="File of its nodes and runs, kept through a restart.")] = Path("superlink.db"),
    allow: Allow = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="No TLS and no keys: for gateways on this machine.")] = False,
) -> None:
    """Run Flower's server, the SuperLink, for gateways on the network and runs from this machine only, until Ctrl-C."""
    from tinyfl.deployment.superlink import Setting, serve_superlink
    from tinyfl.system.interrupts import ended_by_signal

    if insecure and keys:
        raise ConfigError("--insecure has no keys. Leave it out, or --keys.")
    at = Setting(
        host.strip("[]") or "127.0.0.1" * insecure, port, local_port, database, None if insecure else keys or Path("keys")
    )
    at.check()
    serve_superlink(at, _allowed(allow), ended_by_signal(), tell)
    tell("ended. Start it again with the same command; runs that were cut off go on with tinyfl run --resume.")
    sys.stdout.flush()
    os._exit(0)  # all is closed; what Python would still do, with threads of Flower's about, can take seconds


@app.command()
def gateway(
    superlink: Annotated[str, typer.Option(help="The SuperLink's HOST:PORT.")],
    fleet: Annotated[Path | None, typer.Option(help="A TOML file of this machine's part of the fleet.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="The samples of this site's own devices, which stay here. Default: the file's.")
    ] = None,
    source: Annotated[list[Path] | None, typer.Option(help="A C file with this fleet's sensors; may repeat.")] = None,
    first_device: Annotated[
        int | None, typer.Option(min=0, help="The number of the first device here. Default: the file's, or 0.")
    ] = None,
    root_certificates: Annotated[Path | None, typer.Option(help="The certificate of the federation's CA: ca.crt.")] = None,
    key: Annotated[Path | None, typer.Option(help="This gateway's own key.")] = None,
    name: Annotated[str, typer.Option(help="A name for this gateway. Default: the key's.")] = "",
    share_devices: Annotated[
        bool, typer.Option("--share-devices", help="Own data: send results and updates of single devices, not sums alone.")
    ] = False,
    insecure: Annotated[bool, typer.Option("--insecure", help="No TLS and no keys: for a SuperLink on this machine.")] = False,
    allow: Allow = None,
) -> None:
    """Serve this machine's boards, emulated or real, and simulated devices to a SuperLink, until Ctrl-C."""
    from tinyfl.deployment.certificates import ClockError
    from tinyfl.deployment.gateway import Gateway, read_holding
    from tinyfl.deployment.supernode import SuperLink, serve_federation
    from tinyfl.fleets.assembly import opened
    from tinyfl.system.interrupts import ended_by_signal

    link = SuperLink(superlink, root_certificates, key, insecure)
    with suppress(ClockError):  # it passes: the gateway waits for it
        link.check()
    holding, allowed = read_holding(fleet, first_device, data), _allowed(allow)
    with opened(holding.parts, holding.first, source or ()) as site:
        ended = ended_by_signal()
        called = name or next(path.stem for path in (key, fleet, data) if path)
        devices = site.devices
        here = f"devices {devices.start} to {devices.stop - 1}, {len(site.boards)} boards up" if devices else "ready"
        timed(f"{called}: {here}{f', data in {holding.data}' if holding.data else ''}")
        with closing(Gateway(called, site, allowed, holding.data, timed, shares=share_devices)) as answer:
            serve_federation(link, answer, ended, timed)
    timed(f"{called}: ended. Start it again with the same command.")
    os._exit(0)  # all is closed; a round that is still at work would hold Python up


def timed(text: str) -> None:
    """Lines for stderr with the time of day: logs of several machines are read side by side."""
    tell(f"{datetime.now():%H:%M:%S} {text}")


def _allowed(file: Path | None) -> "Allowed":
    """The allow list in ``file``, for this process and for those that Flower starts, which have no option for it."""
    from tinyfl.flower.allowed import VARIABLE, read_allowed

    allowed = read_allowed(file)
    if file:
        os.environ[VARIABLE] = str(file.resolve())
    return allowed


@app.command()
def keys(
    folder: Annotated[Path, typer.Argument(help="Folder for the files. Adds missing ones, and keeps the others.")],
    host: Annotated[
        list[str] | None, typer.Option(help="The SuperLink's DNS name or IP address, for gateways; may repeat.")
    ] = None,
    node: Annotated[list[str] | None, typer.Option(help="Name of a gateway, to make its key; may repeat.")] = None,
    json: Json = False,
) -> None:
    """Make the certificates and keys of a SuperLink and its gateways, and print the commands that use them."""
    from tinyfl.cli.show import keys as show
    from tinyfl.deployment.keys import make_keys

    made = make_keys(folder, host or (), node or ())
    if json:
        typer.echo(jsonlib.dumps(show.as_json(made)))
    else:
        show.keys(made)
