"""Lists of names in notes and messages."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from tinyfl.errors.words import plain

NAMED = 8
"""Maximum number of classes, inputs or arrays in a list; more are counted."""


def named(words: Sequence[Any] | NDArray[Any], most: int = NAMED) -> str:
    """``words``, the first ``most`` of them by name."""
    more = f" and {len(words) - most:,} more" if len(words) > most else ""
    return ", ".join(plain(word, 40) for word in words[:most]) + more
