"""Sizes in bytes as people write them: 300K, 200M, 2G."""

import re

from tinyfl.errors import ConfigError

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def read_size(text: str) -> int:
    """The bytes of ``text``: a whole number, alone or with K, M or G (2^10, 2^20, 2^30).

    Raises ConfigError for other text.
    """
    match = re.fullmatch(r"([0-9]{1,12})([KMG]?)", text, re.IGNORECASE)
    if not match or int(match[1]) == 0:
        raise ConfigError(f"{text!r} is no size. Give a number with K, M or G, such as 200M or 2G.")
    return int(match[1]) * UNITS[match[2].upper()]


def shown_size(size: int) -> str:
    """``size`` bytes in M, rounded up, for ``read_size``."""
    return f"{-(-size // UNITS['M'])}M"
