"""What comes with extras: imported where it is needed, and kept from chatting."""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tinyfl.errors import InstallError
from tinyfl.system import cache

_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "KERAS_BACKEND": "tensorflow"}
"""oneDNN reorders sums, and says so."""


def tensorflow_part(module: str) -> Any:
    """``module``: tensorflow, keras, or what is installed with them.

    Raises InstallError where it cannot be imported.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    cache.lend()
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InstallError(f"this needs {module.partition('.')[0]} ({error}). Run: pip install 'tinyfl[tf]'") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps what C++ code prints off the process's stderr. Python exceptions come through."""
    shown, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(shown, 2)
        os.close(shown)
        os.close(nowhere)
