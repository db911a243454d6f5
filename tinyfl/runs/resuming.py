"""Resuming a run: what may differ from its start, and how the run's directory takes that over."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tinyfl.config import MAY_CHANGE, Config, read_settings, renamed, resolve
from tinyfl.errors import RunError
from tinyfl.errors.words import plain, shell
from tinyfl.networks import is_file
from tinyfl.runs.directory import CONFIG, RunDirectory, data_sha256, network_sha256
from tinyfl.runs.extensions import again
from tinyfl.runs.learner import fitted

FILES = {"data": data_sha256, "network": network_sha256}
"""Settings that may be files, with what hashes one: a resumed run may find the file elsewhere."""


@dataclass(frozen=True)
class Resumption:
    """A run to resume: its config as ``saved``, and as it is ``wanted`` now. ``notes`` describe the difference, for people."""

    saved: Config
    wanted: Config
    notes: tuple[str, ...] = ()

    def take_over(self, directory: RunDirectory) -> None:
        """Writes the paths of moved files into the directory's config."""
        changed = replace(self.saved, **{key: getattr(self.wanted, key) for key in FILES})
        if changed != self.saved:
            directory.change(self.saved, changed)


def resumed(directory: RunDirectory, options: Mapping[str, Any], file: Path | None) -> Resumption:
    """The run in ``directory``, with the changes in ``options`` over those in ``file`` that a resumed run may have.

    Raises RunError if they describe another run, or an older tinyfl scaled the data differently.
    """
    saved = directory.config()
    if saved.older:
        raise RunError(
            "an older tinyfl started this run, and scaled its data differently: it cannot be resumed. "
            "Start a new run with its config: tinyfl simulate CONFIG --out ANOTHER."
        )
    chosen = {key: value for key, value in options.items() if value is not None}
    given = {**(read_settings(file) if file else {}), **renamed(chosen)}
    for each in saved.extensions:
        given[each.kind] = again(each, given.get(each.kind))
    wanted = resolve({**saved.as_options(), **given}, installed=True)
    wanted.demand_code()
    notes = [_moved(directory, key, saved, wanted) for key in FILES]
    wanted = fitted(wanted)[0]
    for key, value in vars(wanted).items():
        before = getattr(saved, key)
        if value != before and key not in MAY_CHANGE and not (_is_path(key, value) and _is_path(key, before)):
            raise RunError(
                f"the run was started with {key} {before!r} and cannot be resumed with {value!r}. "
                "Leave the option out, or start a new run with another --out."
            )
    return Resumption(saved, wanted, tuple(filter(None, notes)))


def _is_path(key: str, value: Any) -> bool:
    """Whether the setting ``key`` with this value is a file."""
    return key in FILES and bool(value) and (key != "network" or is_file(value))


def _moved(directory: RunDirectory, key: str, saved: Config, wanted: Config) -> str:
    """A note if the file ``key`` is at another path than before; empty if not.

    Raises RunError if it is another file.
    """
    before, now = getattr(saved, key), getattr(wanted, key)
    if not (_is_path(key, before) and _is_path(key, now)) or Path(now).resolve() == Path(before) or not Path(now).is_file():
        return ""
    checkpoint = directory.checkpoint()
    if checkpoint is None:
        return f"{key}: {plain(now)} instead of {plain(before)}, from the first round: none is saved yet"
    expected, found = getattr(checkpoint, f"{key}_sha256"), FILES[key](wanted)
    if found != expected:
        devices = ("--devices", "0") if key == "data" else ()  # as many as the other file has
        new = shell("tinyfl", "run", directory.path / CONFIG, *saved.words, f"--{key}", now, *devices, "--out", "ANOTHER")
        raise RunError(
            f"{now} is not the {key} file that the run was started with: its SHA-256 is {found[:16]}…, and that of "
            f"{before} was {expected[:16]}…. Give --{key} a copy of that file, or start a new run with this one: {new}"
        )
    return f"{key}: {plain(now)} has the very bytes of {plain(before)}, which the run was started with"
