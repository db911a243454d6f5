"""Isolates tinyfl's own defects to the device that triggers them."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from tinyfl.errors import Defect, TinyflError
from tinyfl.errors.words import plain

log = logging.getLogger(__name__)


@contextmanager
def confined() -> Iterator[None]:
    """Confines errors to one device: an unexpected exception is logged with its traceback, and raised as Defect."""
    try:
        yield
    except TinyflError:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {plain(error)}"
        log.error("tinyfl failed to handle a board's behaviour: %s", what, exc_info=True)
        raise Defect(
            f"tinyfl failed to handle the board's behaviour ({what}). Report it, with the traceback on standard error."
        ) from error
