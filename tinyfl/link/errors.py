"""What goes wrong on a link, by the reason under which a round counts it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from tinyfl.errors import LinkError, TinyflError
from tinyfl.words import plain

log = logging.getLogger(__name__)


class Dead(LinkError):
    """The port is gone, or nothing on it answers."""

    reason = "dead"


class NoLink(Dead):
    """The address is none that can be opened, however often it is tried."""

    exit_code = 2
    reason = "no-link"


class Late(LinkError):
    """The deadline passed."""

    reason = "late"


class Corrupt(LinkError):
    """What arrived does not have its hash, or cannot be read."""

    reason = "corrupt"


class Stale(LinkError):
    """The board learnt from other weights, or in another round."""

    reason = "stale"


class Numeric(LinkError):
    """The core's guard ended the round: a value was not finite or too large."""

    reason = "numeric"


class Refused(LinkError):
    """The board refused a request, or is of a kind that this version cannot speak to."""

    reason = "refused"


class Oversized(LinkError):
    """An update that no device can have made: a change, or a sum of changes, beyond the core's bound."""

    reason = "oversized"


class TooSmall(LinkError):
    """The board has too little memory for the network."""

    reason = "too-small"


class Defect(LinkError):
    """tinyfl itself failed at what this board did."""

    reason = "defect"


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
