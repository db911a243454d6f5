"""Access to Flower's private modules, needed for the SuperLink, the SuperNode and the SuperExec."""

from importlib import import_module
from importlib.metadata import version
from typing import Any

from tinyfl.errors import InstallError

FLWR = "1.41.0"
"""The version of flwr whose private modules are used."""


def inner(module: str, *names: str) -> Any:
    """Imports a private module of Flower's and checks that it has ``names``.

    Raises InstallError for another version of flwr, or a missing name.
    """
    if version("flwr") != FLWR:
        raise InstallError(f"tinyfl needs flwr {FLWR} exactly, not {version('flwr')}: pip install flwr=={FLWR}")
    try:
        found = import_module(module)
        for name in names:
            getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise InstallError(f"flwr lacks a private module or name ({error}): pip install flwr=={FLWR}") from error
    return found
