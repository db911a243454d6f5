"""Verbs of a federation over a network: superlink, gateway, keys."""

import json as jsonlib
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinyfl.cli.common import Json, app, tell
from tinyfl.errors import ConfigError

if TYPE_CHECKING:
    from tinyfl.deployment.keys import MadeKeys
    from tinyfl.flower.allowed import Allowed

PORT, LOCAL_PORT = 8000, 8001
"""Where a SuperLink listens by default: for gateways, and, on its own machine, for whoever hands runs in."""
Allow = Annotated[
    Path | None,
    typer.Option(envvar="TINYFL_ALLOWED", help="A TOML file: the apps and folders that runs may use. Default: no app, runs/."),
]
CONNECTION = "lab"
"""What the printed commands call the SuperLink in Flower's config.toml."""


@app.command()
def superlink(
    keys: Annotated[Path | None, typer.Option(help="The folder that tinyfl keys made. Default: keys.")] = None,
    host: Annotated[str, typer.Option(help="Where to listen for gateways. Default: every address of this machine.")] = "",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where to listen for gateways.")] = PORT,
    local_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Where runs are handed in, on this machine alone.")
    ] = LOCAL_PORT,
    database: Annotated[Path, typer.Option(help="Where its nodes and runs are kept through a restart.")] = Path("superlink.db"),
    allow: Allow = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="No TLS and no keys: for gateways on this machine.")] = False,
) -> None:
    """Start Flower's SuperLink, serve gateways on the network and take runs from this machine alone, until Ctrl-C."""
    from tinyfl.deployment.superlink import Setting, serve_superlink
    from tinyfl.system.interrupts import ended_by_signal

    if insecure and keys:
        raise ConfigError("--insecure has no keys. Leave it out, or --keys.")
    at = Setting(host or "127.0.0.1" * insecure, port, local_port, database, None if insecure else keys or Path("keys"))
    at.check()
    serve_superlink(at, _allowed(allow), ended_by_signal(), tell)
    tell("ended. Start it again with the same command; runs that were cut off go on with tinyfl run --resume.")
    sys.stdout.flush()
    os._exit(0)  # all is closed; what Python would still do, with threads of Flower's about, can take seconds


@app.command()
def gateway(
    superlink: Annotated[str, typer.Option(help="The SuperLink's HOST:PORT.")],
    fleet: Annotated[Path, typer.Option(help="A TOML file with the [[fleet]] parts that are here.")],
    first_device: Annotated[
        int | None, typer.Option(min=0, help="The number of the first device here. Default: the file's, or 0.")
    ] = None,
    root_certificates: Annotated[Path | None, typer.Option(help="The certificate of the federation's CA: ca.crt.")] = None,
    key: Annotated[Path | None, typer.Option(help="This gateway's own key.")] = None,
    name: Annotated[str, typer.Option(help="What people call this gateway. Default: the key's name.")] = "",
    insecure: Annotated[bool, typer.Option("--insecure", help="No TLS and no keys: for a SuperLink on this machine.")] = False,
    allow: Allow = None,
) -> None:
    """Keep boards, emulated or real, and simulated devices up, and serve them to a Flower federation until Ctrl-C."""
    from tinyfl.deployment.gateway import Gateway, read_holding
    from tinyfl.deployment.supernode import SuperLink, serve_federation
    from tinyfl.fleets.assembly import opened
    from tinyfl.system.interrupts import ended_by_signal

    link = SuperLink(superlink, root_certificates, key, insecure)
    link.check()
    holding, allowed = read_holding(fleet, first_device), _allowed(allow)
    with opened(holding.parts, holding.first) as site:
        ended = ended_by_signal()
        called = name or (key.stem if key else fleet.stem)
        devices = site.devices
        tell(f"{called}: devices {devices.start} to {devices.stop - 1}, {len(site.boards)} boards up")
        with closing(Gateway(called, site, allowed, holding.data, tell)) as answer:
            serve_federation(link, answer, ended, tell)
    tell(f"{called}: ended. Start it again with the same command.")
    os._exit(0)  # all is closed; a round that is still at work would hold Python up


def _allowed(file: Path | None) -> "Allowed":
    """The allow list in ``file``, for this process and for those that Flower starts, which have no option for it."""
    from tinyfl.flower.allowed import VARIABLE, read_allowed

    allowed = read_allowed(file)
    if file:
        os.environ[VARIABLE] = str(file.resolve())
    return allowed


@app.command()
def keys(
    folder: Annotated[Path, typer.Argument(help="Where the files go. What is there is kept, and what lacks is added.")],
    host: Annotated[
        list[str] | None, typer.Option(help="A DNS name or IP address that gateways reach the SuperLink by; may repeat.")
    ] = None,
    node: Annotated[list[str] | None, typer.Option(help="The name of a gateway that is to have a key; may repeat.")] = None,
    json: Json = False,
) -> None:
    """Make the certificates and keys of a Flower deployment, and print the commands that use them."""
    from tinyfl.deployment.keys import make_keys

    made = make_keys(folder, host or (), node or ())
    steps = _steps(made)
    if json:
        typer.echo(jsonlib.dumps(_as_json(made) | steps))
    else:
        _show(made, steps)


def _as_json(made: "MadeKeys") -> dict[str, Any]:
    return {
        "folder": str(made.folder), "made": made.made, "kept": made.kept, "nodes": made.nodes,
        "hosts": made.hosts, "valid_until": made.until.isoformat(),
    }  # fmt: skip


def _steps(made: "MadeKeys") -> dict[str, Any]:
    """What comes next, as text to be pasted: the SuperLink, Flower's config.toml beside it, registration, and each gateway."""
    import shlex

    import tomli_w

    from tinyfl.deployment.keys import LOCAL

    address = f"[{made.host}]:{PORT}" if ":" in made.host else f"{made.host}:{PORT}"
    superlink = ["tinyfl", "superlink", "--keys", str(made.folder)]
    superlink += ["--host", "127.0.0.1"] if made.host in LOCAL else []
    entry = {"address": f"127.0.0.1:{LOCAL_PORT}", "root-certificates": str((made.folder / "ca.crt").resolve())}
    register = [["flwr", "supernode", "register", str(made.folder / f"{node}.pub"), CONNECTION] for node in made.nodes]
    gateway = ["tinyfl", "gateway", "--superlink", address, "--fleet", "fleet.toml", "--root-certificates", "ca.crt", "--key"]
    return {
        "superlink": shlex.join(superlink),
        "config": tomli_w.dumps({"superlink": {CONNECTION: entry}}),
        "register": [shlex.join(words) for words in register],
        "gateways": {node: shlex.join([*gateway, f"{node}.key"]) for node in made.nodes},
    }


def _show(made: "MadeKeys", steps: dict[str, Any]) -> None:
    """The files, where each goes, and the commands."""
    nodes = made.nodes or ("NAME",)
    lines = [
        f"made in {made.folder}: {' '.join(made.made) or 'nothing, since all is there'}",
        *([f"kept as they were: {' '.join(made.kept)}"] if made.kept else []),
        f"superlink.crt is for {', '.join(made.hosts)}, until {made.until:%Y-%m-%d}.",
        "",
        "Where the files go; no .key may be seen by others:",
        "  ca.key stays offline. It signs the next superlink.crt, and serves nothing else.",
        "  superlink.key and superlink.crt stay with the SuperLink, and ca.crt with them.",
        *(f"  {node}.key goes to the machine of gateway {node}, with ca.crt." for node in nodes),
        "",
        "Start the SuperLink. Its database keeps the nodes and runs that it knows through a restart:",
        f"  {steps['superlink']}",
        "",
        "On the same machine, where nodes are registered and runs handed in, add to ~/.flwr/config.toml:",
        *(f"  {line}" for line in steps["config"].splitlines()),
        "",
    ]
    if made.nodes:
        lines += ["Register each node, once:", *(f"  {line}" for line in steps["register"]), ""]
        lines += ["On each gateway's machine:", *(f"  {line}" for line in steps["gateways"].values())]
    else:
        lines += [f"No node has a key yet: tinyfl keys {made.folder} --node lab-a"]
    typer.echo("\n".join(lines))
