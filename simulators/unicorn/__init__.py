"""Emulated boards in this process: unicorn runs the same ELF as a real board.

Raises InstallError on import if unicorn is not installed.
"""

from tinyfl.errors import InstallError

try:
    import unicorn as _unicorn  # noqa: F401
except ImportError as error:
    raise InstallError("emulated boards need unicorn: pip install 'tinyfl[firmware]'") from error

from tinyfl.simulators.unicorn.machine import Machine, Snapshot

__all__ = ["Machine", "Snapshot"]
