"""A run on a federation from the command line: submitted to a SuperLink as a Flower app, and followed to its end.

`flwr run` exits with 0 however a run ends, which no script can use. This exits with the run's own code.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import tomlkit

from tinyfl import errors
from tinyfl.config import Config, read_settings, read_toml, renamed, resolve
from tinyfl.errors import ConfigError, DataError, LinkError, TinyflError
from tinyfl.flower.settings import NO_BUFFER, OF_THE_NODES, to_run_config
from tinyfl.networks import is_file, located
from tinyfl.registry import KINDS
from tinyfl.registry.chosen import Chosen
from tinyfl.runs.directory import CONFIG, RunDirectory
from tinyfl.runs.extensions import Resumable
from tinyfl.system import cache
from tinyfl.system.files import private_folder
from tinyfl.system.interrupts import interrupt_message
from tinyfl.system.proxies import demand_usable, exempt_loopback, proxy_note

APP = files("tinyfl.flower") / "app" / "pyproject.toml"
EXIT = re.compile(r"\((not begun, )?exit \d+: (\w+)\)")
FORBIDDEN = "403 Forbidden"
"""Flower's message at a port that serves only gateways."""

ONLY_THERE = (
    "the SuperLink takes no runs at this address, which is for gateways. On its own machine, give Flower's config.toml its "
    "local address, 127.0.0.1:8001; from elsewhere, forward that first: ssh -N -L 8001:127.0.0.1:8001 HOST "
    "(docs/federation.md)."
)
LOOK_SECONDS = 1.0
"""Polling interval of a run's status after its log has ended, in seconds."""


def run_on(
    superlink: str, *, config: Path | None, resume: Path | None, out: Path | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Runs ``options`` to the end on the federation whose SuperLink has the name ``superlink`` in Flower's configuration.
    Returns the run's JSON or, if its directory is on another machine, the SuperLink's status.

    Raises the kind of error that ended the run, LinkError if the SuperLink does not answer, ConfigError for options of a local
    fleet.
    """
    _demand_home()
    settings, folder = _resumed(resume, config, options) if resume else _fresh(superlink, config, out, options)
    again = _directory(folder, superlink).resume_command
    before = _changed(folder / "result.json")
    with interrupt_message(
        lambda: f"stopped while the run was being submitted. If it runs all the same: flwr list {superlink}, flwr stop"
    ):
        number = _submitted(superlink, settings)

    def stopped() -> str:
        if (folder / CONFIG).exists():
            return f"the SuperLink stops the run after its last finished round. Go on with: {again}"
        return f"the SuperLink stops the run. If it had begun, go on with: {again}"

    with interrupt_message(stopped):
        try:
            ended = _followed(superlink, number, again)
        except KeyboardInterrupt:
            with suppress(LinkError):
                _flwr("stop", number, superlink, "--format", "json")
            raise
    if ended["status"] != "finished:completed":
        raise _failure(ended, again)
    is_local = _changed(folder / "result.json") not in (None, before)  # the SuperLink may be another machine
    return RunDirectory(folder).result() if is_local else {"run": str(folder), **ended}


def _changed(file: Path) -> tuple[int, int] | None:
    """What changes when a file is replaced, whatever the clock does meanwhile; None without the file."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _demand_home() -> None:
    """Raises ConfigError if Flower's command line has no home folder, where it looks up the SuperLink."""
    given, home = os.environ.get("FLWR_HOME"), cache.home()
    folder = Path(given) if given else home and home / ".flwr"
    if folder is None or not (folder.is_dir() or cache.writable(folder)):
        raise ConfigError(
            f"Flower looks up the SuperLink in {folder or 'the home'}, which does not exist and cannot be made. Set FLWR_HOME "
            "to the folder whose config.toml lists it (docs/federation.md)."
        )


def _submitted(superlink: str, settings: Mapping[str, Any]) -> str:
    """Submits the run to the SuperLink and returns its number."""
    demand_usable()
    with private_folder("tinyfl-run-") as app:
        table: Any = tomlkit.parse(APP.read_bytes())
        table["tool"]["flwr"]["app"]["config"] = to_run_config(settings)
        path = app / "tinyfl-fleet"
        path.mkdir()
        (path / "pyproject.toml").write_bytes(tomlkit.dumps(table).encode())
        try:
            started = _flwr("run", str(path), superlink, "--format", "json")
        except LinkError as error:
            if explained := _explained(error, superlink):
                raise explained from error
            raise
    if not started.get("run-id"):
        raise LinkError(f"the SuperLink {superlink} did not start the run: {started}")
    return str(started["run-id"])


def _explained(error: LinkError, superlink: str) -> TinyflError | None:
    """The error about the certificate of a SuperLink that Flower cannot reach, or about the proxy on the way, if it is one of
    these, which Flower reports as a network error."""
    from flwr.supercore.utils import get_flwr_home

    from tinyfl.deployment import certificates

    saved: Any = read_toml(get_flwr_home() / "config.toml").get("superlink", {}).get(superlink, {})
    address, root = str(saved.get("address", "")), saved.get("root-certificates")
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if root and port.isdecimal():
        try:
            certificates.check(address, host, int(port), Path(root))
        except ConfigError as fault:
            return fault
    way = proxy_note(host, "http" if saved.get("insecure") else "https")
    return LinkError(f"{error}\nIt was asked {way}.") if way else None


def _directory(folder: Path, superlink: str) -> RunDirectory:
    return Resumable(folder, ("--federation", superlink))


def _fresh(superlink: str, config: Path | None, out: Path | None, options: Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
    from tinyfl.runs.directory import free_directory

    given = _given(config, options)
    resolved = resolve(given)
    folder = (out or free_directory(resolved)).resolve()
    if (folder / CONFIG).exists():
        directory = _directory(folder, superlink)
        with directory.locked():  # not by a coordinator on this machine
            directory.demand_new()
    return {**given, "out": str(folder)}, folder


def _resumed(resume: Path, config: Path | None, options: Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
    saved: Config = RunDirectory(resume).config()
    return {**saved.as_options(), **_given(config, options), "resume": str(resume.resolve())}, resume.resolve()


def _given(config: Path | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in the file and the options, with absolute paths, since the coordinator starts elsewhere. Raises ConfigError
    for a setting of the nodes, and for asynchronous rounds."""
    in_file = read_settings(config) if config else {}
    chosen = renamed({key: value for key, value in options.items() if value is not None})
    given = {**in_file, **chosen, **_extensions(in_file, chosen)}
    if given.pop("continued", None):
        raise ConfigError("a run that got more rounds is repeated on one machine only: leave --federation out.")
    if given.get("buffer"):
        raise ConfigError(NO_BUFFER)
    for key in OF_THE_NODES:
        if given.pop(key, None):
            raise ConfigError(f"with --federation the {key} is at the gateways: leave it out, and give each gateway its own.")
    return {key: _absolute(key, value) for key, value in given.items()}


def _extensions(in_file: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Chosen]:
    """The algorithm, task and aggregator that are not tinyfl's own, with the options that the file has of them.

    Raises ConfigError for code of this machine.
    """
    found = {}
    for kind in KINDS:
        upper, lower = (Chosen.read(kind, given[kind]) if kind in given else None for given in (chosen, in_file))
        each = upper.over(lower) if upper else lower
        if each and not each.loads_by_name:
            raise ConfigError(
                f"{each.called} is code on this machine, and a federation's machines load installed packages only. Make it one "
                "(docs/your-own.md), and give the name of its entry point."
            )
        if each and not each.built_in:
            found[kind] = each
    return found


def _absolute(key: str, value: Any) -> Any:
    """A setting, made absolute if it is a path."""
    value = located(value) if key == "network" and isinstance(value, str) else value
    is_path = isinstance(value, str) and value and (key == "data" or (key == "network" and is_file(value)))
    return str(Path(value).resolve()) if is_path else value


def _followed(superlink: str, number: str, again: str) -> dict[str, Any]:
    """Shows the run's log until the run has ended, also across broken connections, and returns its final status."""
    while True:
        subprocess.run([*_program(), "log", number, superlink], stdout=sys.stderr, check=False, env=_environment())
        try:
            (ended,) = _flwr("list", superlink, "--run-id", number, "--format", "json")["runs"]
        except (LinkError, KeyError, ValueError) as error:
            raise LinkError(
                f"the SuperLink {superlink} did not report how run {number} ended. Start the SuperLink again; if the run had "
                f"begun, go on with: {again}"
            ) from error
        if ended["status"].startswith("finished"):
            return dict(ended)
        time.sleep(LOOK_SECONDS)


def _failure(ended: Mapping[str, Any], again: str) -> TinyflError:
    """The error that ended a run, of the kind reported by the coordinator."""
    details = str(ended["status-details"]).removeprefix("ServerApp failed with exception: ")
    named = EXIT.search(details)
    kind = getattr(errors, named[2], LinkError) if named else LinkError
    text = EXIT.sub("", details).strip() if named else f"the run ended as {ended['status']} ({details})."
    if named and (named[1] or kind in (ConfigError, DataError)):  # nothing to go on with, or not in this way
        return kind(text)
    return kind(f"{text}\nTo go on with it{'' if named else ', if it had begun'}: {again}")


def _program() -> list[str]:
    return [str(Path(sys.executable).with_name("flwr"))]


def _environment() -> dict[str, str]:
    """The environment of Flower's command line, which reaches a SuperLink on this machine past any proxy."""
    environment = dict(os.environ)
    exempt_loopback(environment)
    return environment


def _flwr(*words: str) -> dict[str, Any]:
    """Runs Flower's command line and returns its output, parsed from JSON.

    Raises LinkError if it fails.
    """
    done = subprocess.run(
        [*_program(), *words], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=_environment()
    )
    start = done.stdout.find("{")
    try:
        reply: dict[str, Any] = json.loads(done.stdout[start:]) if start >= 0 else {}
    except json.JSONDecodeError:
        reply = {}
    if not reply.get("success"):
        why = reply.get("error-message") or done.stderr.strip() or done.stdout.strip()
        raise LinkError(ONLY_THERE if FORBIDDEN in str(why) else f"flwr {words[0]} failed: {str(why).strip()[-600:]}")
    return reply
