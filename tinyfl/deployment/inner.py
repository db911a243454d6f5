"""Flower's inner parts, which have no public name: the SuperLink, the SuperNode and the SuperExec need some of them."""

from importlib import import_module
from importlib.metadata import version
from typing import Any

from tinyfl.errors import InstallError

FLWR = "1.41.0"
"""The flwr whose inner parts these are."""


def inner(module: str, *names: str) -> Any:
    """The module of Flower's, which has ``names``.

    Raises InstallError where it is of another version, or lacks one.
    """
    if version("flwr") != FLWR:
        raise InstallError(f"tinyfl knows the inner parts of flwr {FLWR}, not of {version('flwr')}: pip install flwr=={FLWR}")
    try:
        found = import_module(module)
        for name in names:
            getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise InstallError(f"flwr lacks an inner part that it should have ({error}): pip install flwr=={FLWR}") from error
    return found
