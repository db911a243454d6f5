"""Verbs of a federation over a network: gateway, keys."""

import json as jsonlib
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinyfl.cli.app import Json, app

if TYPE_CHECKING:
    from tinyfl.flower.keys import Made

PORT = 8000
"""Where a SuperLink listens by default."""
CONNECTION = "lab"
"""What the printed commands call the SuperLink in Flower's config.toml."""


@app.command()
def gateway(
    superlink: Annotated[str, typer.Option(help="The SuperLink's HOST:PORT.")],
    fleet: Annotated[Path, typer.Option(help="A TOML file with the [[fleet]] parts that are here.")],
    first: Annotated[
        int | None, typer.Option(min=0, help="The number of the first device here. Default: the file's, or 0.")
    ] = None,
    root_certificates: Annotated[Path | None, typer.Option(help="The certificate of the federation's CA: ca.crt.")] = None,
    key: Annotated[Path | None, typer.Option(help="This gateway's own key.")] = None,
    name: Annotated[str, typer.Option(help="What people call this gateway. Default: the key's name.")] = "",
    insecure: Annotated[bool, typer.Option("--insecure", help="No TLS and no keys: for a SuperLink on this machine.")] = False,
) -> None:
    """Keep boards, emulated or real, and simulated devices up, and serve them to a Flower federation until Ctrl-C."""
    from tinyfl.assembly import raised
    from tinyfl.emulation import ended_by_signal
    from tinyfl.flower.gateway import Gateway, read_holding
    from tinyfl.flower.supernode import SuperLink, serve_federation

    link = SuperLink(superlink, root_certificates, key, insecure)
    link.check()
    holding = read_holding(fleet, first)
    with raised(holding.parts, holding.first) as site:
        ended = ended_by_signal()
        called = name or (key.stem if key else fleet.stem)
        devices = site.devices
        typer.echo(f"{called}: devices {devices.start} to {devices.stop - 1}, {len(site.boards)} boards up", err=True)
        with closing(Gateway(called, site, holding.data, _say)) as answer:
            serve_federation(link, answer, ended, _say)


def _say(line: str) -> None:
    typer.echo(line, err=True)


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
    from tinyfl.flower.keys import make_keys

    made = make_keys(folder, host or (), node or ())
    steps = _steps(made)
    if json:
        typer.echo(jsonlib.dumps(_as_json(made) | steps))
    else:
        _show(made, steps)


def _as_json(made: "Made") -> dict[str, Any]:
    return {
        "folder": str(made.folder), "made": made.made, "kept": made.kept, "nodes": made.nodes,
        "hosts": made.hosts, "valid_until": made.until.isoformat(),
    }  # fmt: skip


def _steps(made: "Made") -> dict[str, Any]:
    """What comes next, as text to be pasted: the SuperLink, Flower's config.toml, registration, and each gateway."""
    import shlex

    import tomli_w

    from tinyfl.flower.keys import LOCAL

    v6 = ":" in made.host
    address = f"[{made.host}]:{PORT}" if v6 else f"{made.host}:{PORT}"
    listen = "127.0.0.1" if made.host in LOCAL else "::" if v6 else "0.0.0.0"
    superlink = ["flower-superlink", "--host", listen, "--port", str(PORT)]
    for option, file in {"ca-certfile": "ca.crt", "certfile": "superlink.crt", "keyfile": "superlink.key"}.items():
        superlink += [f"--ssl-{option}", str(made.folder / file)]
    superlink += ["--enable-supernode-auth", "--disable-runtime-dependency-installation", "--database", "superlink.db"]
    entry = {"address": address, "root-certificates": str((made.folder / "ca.crt").resolve())}
    register = [["flwr", "supernode", "register", str(made.folder / f"{node}.pub"), CONNECTION] for node in made.nodes]
    gateway = ["tinyfl", "gateway", "--superlink", address, "--fleet", "fleet.toml", "--root-certificates", "ca.crt", "--key"]
    return {
        "superlink": shlex.join(superlink),
        "config": tomli_w.dumps({"superlink": {CONNECTION: entry}}),
        "register": [shlex.join(words) for words in register],
        "gateways": {node: shlex.join([*gateway, f"{node}.key"]) for node in made.nodes},
    }


def _show(made: "Made", steps: dict[str, Any]) -> None:
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
        "Where you use the flwr command, add to ~/.flwr/config.toml:",
        *(f"  {line}" for line in steps["config"].splitlines()),
        "",
    ]
    if made.nodes:
        lines += ["Register each node, once:", *(f"  {line}" for line in steps["register"]), ""]
        lines += ["On each gateway's machine:", *(f"  {line}" for line in steps["gateways"].values())]
    else:
        lines += [f"No node has a key yet: tinyfl keys {made.folder} --node lab-a"]
    typer.echo("\n".join(lines))
