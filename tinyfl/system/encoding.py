"""Output whose encoding lacks characters, as in a Latin-1 locale or with PYTHONIOENCODING=ascii."""

import codecs
import io
from typing import TextIO

ALIKE = {"·": "-", "–": "-", "…": "...", "µ": "u", "±": "+-", "×": "x", "²": "^2", "→": "->", "✓": "ok", "✗": "X"}
"""What stands for characters of our own output; any other becomes a question mark."""


def write_what_can_be(*streams: TextIO) -> None:
    """From now on the streams write something alike in place of characters that they cannot encode."""
    codecs.register_error("tinyfl", _alike)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="tinyfl")


def _alike(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(ALIKE.get(each, "?") for each in error.object[error.start : error.end]), error.end
