"""A run on a federation, from the command line: handed to a SuperLink as a Flower app, followed, and judged by its end.

`flwr run` leaves with 0 however a run ends, so that a script cannot tell. This leaves with the run's own exit code.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import tomlkit

from tinyfl import errors
from tinyfl.config import Config, read_settings, read_toml, renamed, resolve
from tinyfl.errors import ConfigError, DataError, LinkError, RunError, TinyflError
from tinyfl.flower.settings import OF_THE_NODES, to_run_config
from tinyfl.networks import is_file
from tinyfl.runs.directory import RunDirectory
from tinyfl.system import cache
from tinyfl.system.interrupts import telling

APP = files("tinyfl.flower") / "app" / "pyproject.toml"
EXIT = re.compile(r"\(exit (\d+): (\w+)\)")
FORBIDDEN = "403 Forbidden"
"""What Flower says where only gateways are served."""

ONLY_THERE = (
    "the SuperLink takes no runs at this address, which is for gateways. On its own machine, give Flower's config.toml its "
    "other one, 127.0.0.1:8001; from elsewhere, bring that here first: ssh -N -L 8001:127.0.0.1:8001 HOST (docs/federation.md)."
)
LOOK_SECONDS = 1.0
"""From one look at a run's status to the next, where its log has ended."""


def run_on(
    superlink: str, *, config: Path | None, resume: Path | None, out: Path | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Runs ``options`` on the federation of the SuperLink that Flower's configuration calls ``superlink``, to the end; returns
    the run's JSON, or, where its directory is on another machine, what the SuperLink says of it.

    Raises the kind of error that ended the run, LinkError where the SuperLink does not answer, ConfigError for options that
    only a fleet on this machine has.
    """
    _demand_home()
    settings, folder = _resumed(resume, config, options) if resume else _fresh(config, out, options)
    again = f"tinyfl run --resume {folder} --federation {superlink}"
    began = time.time()
    with telling(lambda: f"stopped while the run was handed in. Where it runs all the same: flwr list {superlink}, flwr stop"):
        number = _handed_in(superlink, settings)
    with telling(lambda: f"the SuperLink was told to stop the run after its last finished round. Go on with: {again}"):
        try:
            ended = _followed(superlink, number, again)
        except KeyboardInterrupt:
            with suppress(LinkError):
                _flwr("stop", number, superlink, "--format", "json")
            raise
    if ended["status"] != "finished:completed":
        raise _failure(ended, again)
    made = folder / "result.json"
    here = made.is_file() and made.stat().st_mtime >= began  # the SuperLink may be another machine
    return RunDirectory(folder).result() if here else {"run": str(folder), **ended}


def _demand_home() -> None:
    """Raises ConfigError where Flower's command line has no folder of its own, in which it looks up the SuperLink."""
    given, home = os.environ.get("FLWR_HOME"), cache.home()
    folder = Path(given) if given else home and home / ".flwr"
    if folder is None or not (folder.is_dir() or cache.writable(folder)):
        raise ConfigError(
            f"Flower looks up the SuperLink in {folder or 'the home'}, which is not there and cannot be made. Set FLWR_HOME to "
            "the folder whose config.toml names it (docs/federation.md)."
        )


def _handed_in(superlink: str, settings: Mapping[str, Any]) -> str:
    """The number of the run that the SuperLink has started."""
    with tempfile.TemporaryDirectory() as app:
        table: Any = tomlkit.parse(APP.read_text())
        table["tool"]["flwr"]["app"]["config"] = to_run_config(settings)
        path = Path(app, "tinyfl-fleet")
        path.mkdir()
        (path / "pyproject.toml").write_text(tomlkit.dumps(table))
        try:
            started = _flwr("run", str(path), superlink, "--format", "json")
        except LinkError:
            _demand_certificate(superlink)
            raise
    if not started.get("run-id"):
        raise LinkError(f"the SuperLink {superlink} did not start the run: {started}")
    return str(started["run-id"])


def _demand_certificate(superlink: str) -> None:
    """Raises ConfigError where the SuperLink cannot be reached because of its certificate, which Flower takes for the network's
    fault."""
    from flwr.supercore.utils import get_flwr_home

    from tinyfl.deployment import certificates

    held: Any = read_toml(get_flwr_home() / "config.toml").get("superlink", {}).get(superlink, {})
    address, root = str(held.get("address", "")), held.get("root-certificates")
    host, _, port = address.rpartition(":")
    if root and port.isdecimal():
        certificates.check(address, host.strip("[]"), int(port), Path(root))


def _fresh(config: Path | None, out: Path | None, options: Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
    from tinyfl.runs.directory import free_directory

    given = _given(config, options)
    folder = (out or free_directory(resolve(given))).resolve()
    if (folder / "config.toml").exists():
        raise RunError(f"{folder} already holds a run. Go on with it: tinyfl run --resume {folder}; or give another --out.")
    return {**given, "out": str(folder)}, folder


def _resumed(resume: Path, config: Path | None, options: Mapping[str, Any]) -> tuple[dict[str, Any], Path]:
    held: Config = RunDirectory(resume).config()
    return {**vars(held), **_given(config, options), "resume": str(resume.resolve())}, resume.resolve()


def _given(config: Path | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """What the file and the options say, with whole paths, since the coordinator starts elsewhere; ConfigError where that is of
    the nodes."""
    chosen = {key: value for key, value in options.items() if value is not None}
    given = {**(read_settings(config) if config else {}), **renamed(chosen)}
    for key in OF_THE_NODES:
        if given.pop(key, None):
            raise ConfigError(f"with --federation the {key} is at the gateways: leave it out, and give each gateway its own.")
    return {key: _whole(key, value) for key, value in given.items()}


def _whole(key: str, value: Any) -> Any:
    """A setting with its path made whole, if it is one."""
    is_path = isinstance(value, str) and value and (key == "data" or (key == "network" and is_file(value)))
    return str(Path(value).resolve()) if is_path else value


def _followed(superlink: str, number: str, again: str) -> dict[str, Any]:
    """How the run stands once it has ended; until then its log is shown, also where the log's own connection breaks."""
    while True:
        subprocess.run([*_program(), "log", number, superlink], stdout=sys.stderr, check=False)
        try:
            (ended,) = _flwr("list", superlink, "--run-id", number, "--format", "json")["runs"]
        except (LinkError, KeyError, ValueError) as error:
            raise LinkError(
                f"the SuperLink {superlink} does not say how run {number} ended. Start it, then: {again}"
            ) from error
        if ended["status"].startswith("finished"):
            return dict(ended)
        time.sleep(LOOK_SECONDS)


def _failure(ended: Mapping[str, Any], again: str) -> TinyflError:
    """The error that ended a run, of its own kind where the coordinator said so."""
    details = str(ended["status-details"]).removeprefix("ServerApp failed with exception: ")
    named = EXIT.search(details)
    kind = getattr(errors, named[2], LinkError) if named else LinkError
    text = EXIT.sub("", details).strip() if named else f"the run ended as {ended['status']} ({details})."
    began = kind not in (ConfigError, DataError)
    return kind(f"{text}\nTo go on with it: {again}" if began else text)


def _program() -> list[str]:
    return [str(Path(sys.executable).with_name("flwr"))]


def _flwr(*words: str) -> dict[str, Any]:
    """What Flower's command line answers, as JSON.

    Raises LinkError where it does not.
    """
    done = subprocess.run([*_program(), *words], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    start = done.stdout.find("{")
    try:
        said: dict[str, Any] = json.loads(done.stdout[start:]) if start >= 0 else {}
    except json.JSONDecodeError:
        said = {}
    if not said.get("success"):
        why = said.get("error-message") or done.stderr.strip() or done.stdout.strip()
        raise LinkError(ONLY_THERE if FORBIDDEN in str(why) else f"flwr {words[0]} failed: {str(why).strip()[-600:]}")
    return said
