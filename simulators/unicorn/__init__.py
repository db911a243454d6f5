"""Emulated boards in this process: the ELF that is flashed, run by unicorn.

Raises InstallError on import if unicorn is not installed.
"""

from tinyfl.errors import InstallError

try:
    import unicorn as _unicorn  # noqa: F401
except ImportError as error:
    raise InstallError("emulated boards need unicorn: pip install 'tinyfl[firmware]'") from error

from tinyfl.simulators.unicorn.machine import Machine, Snapshot

__all__ = ["Machine", "Snapshot"]
