"""A deployment's keys for people and scripts: the files, where each goes, and the commands that use them."""

import shlex
from typing import Any

import tomli_w
import typer

from tinyfl.cli.common import LOCAL_PORT, PORT
from tinyfl.deployment.keys import MadeKeys
from tinyfl.system.addresses import LOOPBACK, loopback

CONNECTION = "lab"
"""What the printed commands call the SuperLink in Flower's config.toml."""


def as_json(made: MadeKeys) -> dict[str, Any]:
    """What was made, and what comes next."""
    return {
        "folder": str(made.folder), "made": made.made, "kept": made.kept, "nodes": made.nodes,
        "hosts": made.hosts, "valid_until": made.until.isoformat(), **_steps(made),
    }  # fmt: skip


def keys(made: MadeKeys) -> None:
    """The files, where each goes, and the commands."""
    nodes, steps = made.nodes or ("NAME",), _steps(made)
    lines = [
        f"made in {made.folder}: {' '.join(made.made) or 'nothing, since all is there'}",
        *([f"kept as they were: {' '.join(made.kept)}"] if made.kept else []),
        f"superlink.crt is for {', '.join(made.hosts)}, until {made.until:%Y-%m-%d}.",
        *(["Restart the SuperLink: until then it shows its old superlink.crt."] if made.renewed else []),
        "",
        "Where the files go; no .key may be seen by others:",
        "  ca.key signs the next superlink.crt, and serves nothing else: move it away, and bring it back to renew that.",
        "  superlink.key and superlink.crt stay with the SuperLink, and ca.crt with them.",
        *(f"  {node}.key goes to the machine of gateway {node}, with ca.crt." for node in nodes),
        "",
        "Start the SuperLink. Its database keeps the nodes and runs that it knows through a restart:",
        f"  {steps['superlink']}",
        "",
        "On the same machine, where nodes are registered and runs submitted, add to ~/.flwr/config.toml:",
        *(f"  {line}" for line in steps["config"].splitlines()),
        "",
    ]
    if made.nodes:
        lines += ["Register each node, once:", *(f"  {line}" for line in steps["register"]), ""]
        lines += ["On each gateway's machine, with its devices in a fleet.toml:"]
        lines += [f"  {line}" for line in steps["gateways"].values()]
        lines += ["N is the number of that gateway's first device: one more than the last one before it."] * (len(nodes) > 1)
    else:
        lines += [f"No node has a key yet: tinyfl keys {made.folder} --node lab-a"]
    typer.echo("\n".join(lines))


def _steps(made: MadeKeys) -> dict[str, Any]:
    """What comes next, as text to be pasted: the SuperLink, Flower's config.toml beside it, registration, and each gateway."""
    address = f"[{made.host}]:{PORT}" if ":" in made.host else f"{made.host}:{PORT}"
    superlink = ["tinyfl", "superlink", "--keys", str(made.folder)]
    superlink += ["--host", "127.0.0.1" if made.host == LOOPBACK[0] else made.host] if loopback(made.host) else []
    entry = {"address": f"127.0.0.1:{LOCAL_PORT}", "root-certificates": str((made.folder / "ca.crt").resolve())}
    register = [["flwr", "supernode", "register", str(made.folder / f"{node}.pub"), CONNECTION] for node in made.nodes]
    gateway = ["tinyfl", "gateway", "--superlink", address, "--fleet", "fleet.toml", "--root-certificates", "ca.crt", "--key"]
    return {
        "superlink": shlex.join(superlink),
        "config": tomli_w.dumps({"superlink": {CONNECTION: entry}}),
        "register": [shlex.join(words) for words in register],
        "gateways": {
            node: shlex.join([*gateway, f"{node}.key", "--first-device", "N" if at else "0"])
            for at, node in enumerate(made.nodes)
        },
    }
