"""What tinyfl itself gets wrong at what a board does."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from tinyfl.errors import Defect, TinyflError
from tinyfl.errors.words import plain

log = logging.getLogger(__name__)


@contextmanager
def one_device() -> Iterator[None]:
    """What goes wrong within costs one device and no other: an error that tinyfl did not raise on purpose becomes a Defect, and
    is logged with its traceback."""
    try:
        yield
    except TinyflError:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {plain(error)}"
        log.error("tinyfl failed at what a board did: %s", what, exc_info=True)
        raise Defect(
            f"tinyfl failed at what the board did ({what}). Report it, with the traceback on standard error."
        ) from error
