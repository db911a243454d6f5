"""Optional dependencies: imported on demand, and silenced."""

import importlib
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tinyfl.errors import InstallError
from tinyfl.system import cache

_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "KERAS_BACKEND": "tensorflow"}
"""oneDNN is off: it reorders sums, and prints a notice."""

_quieting = threading.RLock()


def tensorflow_part(module: str) -> Any:
    """Imports ``module``: tensorflow, keras, or one installed with them.

    Raises InstallError if it cannot be imported.
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
    """Discards the process's stderr, for the output of C++ code, and TensorFlow's log, which a notebook shows beside it. Python
    exceptions still propagate. One thread at a time, since another's would be restored to nothing."""
    log = logging.getLogger("tensorflow")
    with _quieting:
        level, stderr, devnull = log.level, os.dup(2), os.open(os.devnull, os.O_WRONLY)
        log.setLevel(logging.ERROR)
        os.dup2(devnull, 2)
        try:
            yield
        finally:
            log.setLevel(level)
            os.dup2(stderr, 2)
            os.close(stderr)
            os.close(devnull)
