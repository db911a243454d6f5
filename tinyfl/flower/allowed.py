"""The allow list of a machine's operator, read by a SuperLink and a gateway alike:

    apps = ["9f86d081884c7d65…"]      # Flower apps with their own code that may run: the SHA-256 of each bundle
    folders = ["runs", "/srv/data"]   # folders for the paths in a run's settings
    extensions = ["sensors"]          # entry points of installed packages that a run may name: algorithms, tasks, aggregators

An app without code needs no entry. It is recognised by its content: a pyproject.toml with tinyfl's two components, and no other
file.
"""

import hashlib
import io
import os
import re
import stat
import tomllib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from tinyfl.config import read_toml
from tinyfl.errors import ConfigError
from tinyfl.errors.words import plain
from tinyfl.networks import is_file, located
from tinyfl.registry import ENTRIES, KINDS
from tinyfl.registry.chosen import Chosen
from tinyfl.registry.installed import installed, is_name

VARIABLE = "TINYFL_ALLOWED"
"""The environment variable with the file's path, for Flower's programs, which have no option for it."""

DEFAULT_FOLDERS = ("runs",)
"""The default folders, relative to the working directory."""

PATHS = ("out", "resume", "data", "network")
"""Settings of a run that may be paths; a network is a path only if it is a file."""

COMPONENTS = {"serverapp": "tinyfl.flower.server_app:app", "clientapp": "tinyfl.flower.client_app:app"}

PYPROJECT, CONTENT = "pyproject.toml", ".info/CONTENT"

KEYS = {
    "": {"project", "tool"},
    "project": {"name", "version", "description", "license", "authors", "dependencies"},
    "tool": {"flwr"},
    "tool.flwr": {"app"},
    "tool.flwr.app": {"publisher", "components", "config", "fab-exclude"},
}
"""Keys allowed in a known app's pyproject.toml, by table. Other keys could control Flower or its installer."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
"""Publisher, name and version: Flower builds the app's folder name from them."""

MAX_BYTES = 1 << 16
"""Maximum size of a known app's file, unpacked, in bytes."""


@dataclass(frozen=True)
class Allowed:
    """``apps`` are the SHA-256 sums of bundles, in lower-case hexadecimal; ``folders`` are absolute paths; ``extensions`` are
    names of entry points."""

    apps: frozenset[str]
    folders: tuple[Path, ...]
    extensions: frozenset[str] = frozenset()


def read_allowed(file: Path | None = None) -> Allowed:
    """Reads the allow list ``file``, in TOML; its folders are relative to its own. Without a file: no apps, no extensions, and
    DEFAULT_FOLDERS.

    Raises ConfigError for an invalid file.
    """
    table = read_toml(file) if file else {}
    if unknown := sorted(set(table) - {"apps", "folders", "extensions"}):
        raise ConfigError(f"{file} has {unknown[0]!r}. An allow list has apps, folders and extensions (docs/federation.md).")
    apps, folders, extensions = table.get("apps", []), table.get("folders"), table.get("extensions", [])
    if not _texts(apps) or not all(re.fullmatch("[0-9a-fA-F]{64}", app) for app in apps):
        raise ConfigError(f"{file}: apps is a list of SHA-256 sums, each of 64 hexadecimal digits in quotation marks.")
    if folders is not None and (not _texts(folders) or "" in folders):
        raise ConfigError(f'{file}: folders is a list of paths, such as folders = ["runs", "/srv/data"].')
    if not _texts(extensions):
        raise ConfigError(f'{file}: extensions is a list of names, such as extensions = ["sensors"].')
    start = Path.cwd() if file is None or folders is None else file.resolve().parent
    named = DEFAULT_FOLDERS if folders is None else folders
    return Allowed(
        frozenset(app.lower() for app in apps), tuple((start / folder).resolve() for folder in named), frozenset(extensions)
    )


def allowed_here() -> Allowed:
    """Reads the allow list named by VARIABLE, in a process started by Flower."""
    file = os.environ.get(VARIABLE)
    return read_allowed(Path(file) if file else None)


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def why_refused(app: bytes, allowed: Allowed) -> str:
    """The reason why the Flower app in the bundle ``app`` may not run here, with the operator's cure; empty if it may.

    Nothing is executed, unpacked or written.
    """
    name = hashlib.sha256(app).hexdigest()
    if name in allowed.apps:
        return ""
    try:
        why = _why_unknown(app)
    except Exception as error:  # zipfile and tomllib raise many kinds for damaged input; an unreadable app is unknown
        why = f"it cannot be read ({plain(error, 100) or type(error).__name__})"
    return why and (
        f"this app may not run here: {why}. An app runs if it names tinyfl's components and has no files of its own, or "
        f'if the operator adds apps = ["{name}"] to the allow list.'
    )


def refuse_paths(options: Mapping[str, Any], allowed: Allowed) -> None:
    """Raises ConfigError if ``options`` of a run have a path outside the allowed folders, after resolving symbolic links."""
    paths = {key: str(options[key]) for key in PATHS if options.get(key)}
    if "network" in paths:
        paths["network"] = located(paths["network"])
        if not is_file(paths["network"]):
            del paths["network"]
    for key, value in paths.items():
        try:
            path = Path(value).resolve()
        except (OSError, RuntimeError, ValueError) as error:  # a loop of links, or an invalid character
            raise ConfigError(f"{key} is {plain(value)!r}, which is no path ({plain(error)}). Give another.") from error
        if not any(path.is_relative_to(folder) for folder in allowed.folders):
            named = ", ".join(map(str, allowed.folders)) or "none"
            raise ConfigError(
                f"{key} is {plain(value)}, which is outside the folders that a run may use on that machine ({named}). Give a "
                f'path inside one of them, or ask its operator to add folders = ["{plain(path.parent)}"] to the allow list.'
            )


def refuse_extensions(options: Mapping[str, Any], allowed: Allowed) -> None:
    """Raises ConfigError if ``options`` of a run name an algorithm, a task or an aggregator that is neither tinyfl's own nor
    an installed package's that is allowed. Nothing is imported."""
    for kind in KINDS:
        value = options.get(kind)
        name = value.get("name") if isinstance(value, Mapping) else value.name if isinstance(value, Chosen) else value
        if not name or (isinstance(name, str) and name in ENTRIES[kind]):
            continue
        called = f"{kind} {plain(name, 80)!r}"
        if not isinstance(name, str) or not is_name(name):
            raise ConfigError(
                f"{called} is no name of an installed package's {kind}, and a federation's machines load no other code. Make "
                "it a package (docs/your-own.md), and give the name of its entry point."
            )
        there = name in installed(kind)
        if not there or name not in allowed.extensions:
            what = f"{called} is not allowed on this machine" if there else f"no {kind} is called {name!r} on this machine"
            cures = [] if there else ["install the package that has it"]
            cures += [] if name in allowed.extensions else [f'add extensions = ["{name}"] to the allow list']
            raise ConfigError(f"{what}. Its operator can {' and '.join(cures)} (docs/federation.md).")


def _why_unknown(app: bytes) -> str:
    with zipfile.ZipFile(io.BytesIO(app)) as bundle:
        if why := _why_not_alone(bundle.infolist()):
            return why
        pyproject, content = bundle.read(PYPROJECT), bundle.read(CONTENT)
    if content.decode() != f"{PYPROJECT},{hashlib.sha256(pyproject).hexdigest()},{8 * len(pyproject)}":
        return f"its {CONTENT} does not describe its {PYPROJECT} alone"
    table = tomllib.loads(pyproject.decode())
    return _why_other_tables(table) or _why_other_values(table["project"], table["tool"]["flwr"]["app"])


def _why_not_alone(entries: list[zipfile.ZipInfo]) -> str:
    if others := sorted({entry.orig_filename for entry in entries} - {PYPROJECT, CONTENT}):
        return f"it has files of its own ({plain(', '.join(others), 200)})"
    if len(entries) != 2 or len({entry.filename for entry in entries}) != 2:
        return f"it has {len(entries)} entries instead of one {PYPROJECT} and one {CONTENT}"
    if not all(stat.S_IFMT(entry.external_attr >> 16) in (0, stat.S_IFREG) for entry in entries):
        return "it has an entry that is not a regular file"
    most = max(entry.file_size for entry in entries)
    return f"it has a file of {most:,} bytes; the maximum is {MAX_BYTES:,}" if most > MAX_BYTES else ""


def _why_other_tables(table: Mapping[str, Any]) -> str:
    """The difference from a known app's tables and keys; empty if there is none."""
    for place, keys in KEYS.items():
        inner: Any = table
        for key in filter(None, place.split(".")):
            inner = inner.get(key)
        if not isinstance(inner, dict):
            return f"its {PYPROJECT} has no table [{place}]"
        if others := sorted(set(inner) - keys):
            where = f" in [{place}]" if place else ""
            return f"its {PYPROJECT} has {plain(others[0], 60)!r}{where}, which a known app does not have"
    return ""


def _why_other_values(project: Mapping[str, Any], app: Mapping[str, Any]) -> str:
    """The difference from a known app's values; empty if there is none."""
    if app.get("components") != COMPONENTS:
        return f"it names other components than tinyfl's ({plain(app.get('components'), 200)})"
    if others := [each for each in project.get("dependencies", []) if not _is_tinyfl(each)]:
        return f"it has dependencies of its own ({plain(', '.join(map(str, others)), 200)})"
    for key, value in {"publisher": app.get("publisher"), **{key: project.get(key) for key in ("name", "version")}}.items():
        if not isinstance(value, str) or not NAME.fullmatch(value):
            return f"its {key} is {plain(value, 60)!r}: letters, digits and . _ + - make one"
    return ""


def _is_tinyfl(dependency: str) -> bool:
    """Whether a dependency is tinyfl, from this machine's package source."""
    try:
        requirement = Requirement(dependency)
    except InvalidRequirement:
        return False
    return requirement.name == "tinyfl" and requirement.url is None
