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
