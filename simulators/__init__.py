"""Simulated and emulated fleets."""

from tinyfl.errors import RunError


class BoardFault(RunError):
    """An emulated board crashed, locked up, ran away, or did not start."""
