"""Everything tinyfl raises on purpose: one tree, one exit code for each kind (docs/exit-codes.md); and Ctrl-C, apart.

A message says what is wrong with the numbers in it, then what to do.
"""


class TinyflError(Exception):
    """Base of all. The command line prints the message and leaves with ``exit_code``."""

    exit_code = 1


class ConfigError(TinyflError):
    """An option or a config file asks for what cannot be done."""

    exit_code = 2


class DataError(TinyflError):
    """A data set is missing, malformed or too small for what is asked."""

    exit_code = 3


class RunError(TinyflError):
    """A run directory is in use, already taken, damaged, or not of this config."""

    exit_code = 4


class TrainingError(TinyflError):
    """Training went wrong: no device of the cohort sent a usable update."""

    exit_code = 5


class InstallError(TinyflError):
    """The installation lacks a part, such as the compiled core."""

    exit_code = 6


class BuildError(TinyflError):
    """The firmware does not compile or link."""

    exit_code = 7


class LinkError(TinyflError):
    """A board cannot be reached, or does not do what it was asked. ``reason`` is what a round counts it under."""

    exit_code = 8
    reason = "link"


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


class FlashError(TinyflError):
    """A board could not be flashed, or does not run what was written."""

    exit_code = 9


class DoesNotFit(TinyflError):
    """A board has too little flash or RAM for what is asked."""

    exit_code = 12


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with how far the work came and the command that goes on. No TinyflError and no Exception, so that nobody who
    passes over errors passes over this."""

    exit_code = 130
