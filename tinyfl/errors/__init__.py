"""The exceptions of tinyfl: one tree with an exit code for each kind (docs/exit-codes.md); and, separately, Ctrl-C.

A message states the problem with its numbers, then the cure.
"""


class TinyflError(Exception):
    """Base class. The command line prints the message and exits with ``exit_code``."""

    exit_code = 1


class ConfigError(TinyflError):
    """An option or a config file is invalid."""

    exit_code = 2


class DataError(TinyflError):
    """A data set is missing, malformed or too small for the settings."""

    exit_code = 3


class RunError(TinyflError):
    """A run directory is in use, taken, damaged, or from another config."""

    exit_code = 4


class TrainingError(TinyflError):
    """Training failed: no device of the cohort sent a usable update."""

    exit_code = 5


class InstallError(TinyflError):
    """A part of the installation is missing, such as the compiled core."""

    exit_code = 6


class BuildError(TinyflError):
    """The firmware does not compile or link."""

    exit_code = 7


class LinkError(TinyflError):
    """A board cannot be reached, or does not carry out a request. ``reason`` is its key in a round's counts."""

    exit_code = 8
    reason = "link"


class Dead(LinkError):
    """The port is gone, or does not answer."""

    reason = "dead"


class NoLink(Dead):
    """The address can never be opened; a retry does not help."""

    exit_code = 2
    reason = "no-link"


class Late(LinkError):
    """The deadline passed."""

    reason = "late"


class Corrupt(LinkError):
    """Received data have a wrong hash, or cannot be read."""

    reason = "corrupt"


class Stale(LinkError):
    """The board learnt from other weights, or in another round."""

    reason = "stale"


class Numeric(LinkError):
    """The core's guard ended the round: a value was not finite or too large."""

    reason = "numeric"


class Refused(LinkError):
    """The board refused a request, or speaks a protocol that this version does not support."""

    reason = "refused"


class SensorFault(LinkError):
    """A source on a board gives no samples that a round can learn from."""

    reason = "sensor"


class Oversized(LinkError):
    """An impossible update: a change, or a sum of changes, beyond the core's bound."""

    reason = "oversized"


class TooSmall(LinkError):
    """The board has too little memory for the network."""

    reason = "too-small"


class Defect(LinkError):
    """A defect of tinyfl, triggered by this board."""

    reason = "defect"


class FlashError(TinyflError):
    """A board could not be flashed, or does not run the written firmware."""

    exit_code = 9


class DoesNotFit(TinyflError):
    """A board has too little flash or RAM for the request."""

    exit_code = 12


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with the progress so far and the command to resume. Not a TinyflError and not an Exception, so that no handler of
    errors swallows it."""

    exit_code = 130


def diverged(why: object) -> TrainingError:
    """The error for a theta with values that cannot go down to devices: ``why``."""
    return TrainingError(f"theta has diverged: {why}. Start a new run with a smaller --rate and another --out.")
