"""The hashes that identify a theta, and the files that a config names."""

import hashlib
from pathlib import Path

from tinyfl.config import Config
from tinyfl.core import F32
from tinyfl.data.reading import files_in
from tinyfl.networks import is_file


def theta_sha256(theta: F32) -> str:
    """The SHA-256 that identifies a theta."""
    return hashlib.sha256(theta.tobytes()).hexdigest()


def data_sha256(config: Config) -> str:
    """Hash of the user's data file; empty for built-in tasks."""
    return _sha256(config.data)


def network_sha256(config: Config) -> str:
    """Hash of the network's file; empty for a built-in network."""
    return _sha256(config.network if is_file(config.network) else "")


def _sha256(path: str) -> str:
    if not path:
        return ""
    if (folder := Path(path)).is_dir():
        digests = [f"{each.relative_to(folder)}\n{_sha256(str(each))}\n" for each in files_in(folder)]
        return hashlib.sha256("".join(digests).encode("utf-8", "surrogateescape")).hexdigest()
    with folder.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


FILES = {"data": data_sha256, "network": network_sha256}
"""Settings that may be files, with what hashes one."""
