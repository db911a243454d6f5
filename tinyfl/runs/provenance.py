"""The run of a file of weights: its own, or the one from which they were adapted."""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.config import Config, resolve
from tinyfl.errors import ConfigError, RunError
from tinyfl.runs.directory import RunDirectory
from tinyfl.runs.records import Provenance, checked, values
from tinyfl.system.files import read_arrays

PROVENANCE = ("seed", "config_sha256", "settings")
"""Arrays of adapted weights: the run's seed, the hash of its config, and the config as TOML, uint8 (bytes,)."""


def carried(file: Path) -> dict[str, NDArray[Any]]:
    """The provenance of what is adapted from the weights in ``file``."""
    arrays, directory = read_arrays(file, (), PROVENANCE), RunDirectory(file.parent)
    if directory.holds(file):
        config = replace(directory.config(), fleet=())  # a fleet learns, and is of no use to those who read data
        arrays["settings"] = np.frombuffer(config.to_toml().encode(), np.uint8)
    return arrays


def config_of(file: Path) -> Config | None:
    """The config of the run of the weights in ``file``; None if neither its directory nor the file has one.

    Raises RunError if it is malformed.
    """
    directory = RunDirectory(file.parent)
    if directory.holds(file):
        return directory.config()
    saved = read_arrays(file, (), ("settings",)).get("settings")
    if saved is None:
        return None
    try:
        return resolve(tomllib.loads(saved.tobytes().decode()))
    except (ConfigError, ValueError, RecursionError) as error:
        raise RunError(f"{file} is damaged: its run's settings: {error} Take the file as tinyfl wrote it.") from error


def seed_and_hash(file: Path) -> tuple[int, str]:
    """The seed and the hash of the config of the run of the weights in ``file``.

    Raises RunError if they do not say it.
    """
    arrays = read_arrays(file, (), ("seed", "config_sha256"))
    if not arrays:
        raise RunError(
            f"{file} does not say its run's seed, since an older tinyfl adapted it. Adapt again with this one: "
            "tinyfl adapt RUN --data FILE --out FILE."
        )
    found = checked(Provenance, values(arrays), file, "Take the file as tinyfl wrote it.")
    return found.seed, found.config_sha256
