"""The command line: one thin function a verb. Results go to stdout, progress and errors to stderr."""

import errno
import sys

from tinyfl.cli import federation, firmware, flashing, fleet, learning, models  # noqa: F401  each adds its verbs
from tinyfl.cli.app import app, tell
from tinyfl.errors import RunError, TinyflError
from tinyfl.words import message, plain

__all__ = ["app", "main"]

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""A disk that takes no more."""


def main() -> None:
    """Runs the command line; a TinyflError becomes its message on stderr and its exit code."""
    try:
        app(prog_name="tinyfl")
    except TinyflError as error:
        tell(f"tinyfl: {message(error)}")
        sys.exit(error.exit_code)
    except MemoryError as error:
        tell(f"tinyfl: out of memory ({plain(error)}). Give a smaller --cohort, --samples, --tasks or --network.")
        sys.exit(TinyflError.exit_code)
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        where = plain(error.filename or "what this command writes to")
        tell(f"tinyfl: {where} cannot be written ({error.strerror}). See that it has room, and that you may write there.")
        sys.exit(RunError.exit_code)
