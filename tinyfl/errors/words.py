"""Makes untrusted text safe to show.

A board, a probe, a drive, a file, a gateway, a run directory or another library's exception may contain any text. It passes
``plain`` before it reaches a terminal, a log or a message. The quoting rules for file names, shells, Tcl and Markdown are here
too; those for HTML are in tinyfl.report.html, those for the terminal in tinyfl.cli.show.terminal.
"""

import re
import shlex
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

MAX_LINE_CHARS = 300
"""Maximum length of an untrusted text on one line, in characters."""

MAX_MESSAGE_CHARS = 8000

MAX_NAME_CHARS = 80
"""Maximum length of untrusted text in a file's name, in characters: a file system takes 255 bytes."""

MAX_USB_CHARS = 126
"""Maximum length of a USB device's text, in characters."""

REPLACEMENT = "\ufffd"

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories of characters that control a terminal, reverse the direction of text, or are invisible."""


def plain(words: object, most: int = MAX_LINE_CHARS) -> str:
    """``words`` on one line of at most ``most`` characters: white space becomes spaces, and control and invisible characters
    are replaced."""
    text = _text(words)
    shown = "".join(map(_plain, text[: most + 1])).strip()
    return shown[: most - 1] + "…" if len(text) > most else shown


def serial_number(words: object) -> str:
    """A USB device's serial number; empty if it cannot be typed as a value of --probe."""
    text = words.strip() if isinstance(words, str) else ""
    return text if plain(text, MAX_USB_CHARS) == text else ""


def visible(text: str) -> str:
    """``text`` with other control and invisible characters than line breaks and tabs replaced."""
    return re.sub(r"[^\n\t]+", lambda hit: hit[0] if hit[0].isprintable() else "".join(map(_plain, hit[0])), text)


def message(words: object, most: int = MAX_MESSAGE_CHARS) -> str:
    """An error's message, possibly of several lines. If it is too long, its middle is cut: the cure is at the end."""
    text = _text(words)
    half = most // 2
    return visible(f"{text[:half]} […] {text[-half:]}" if len(text) > most else text)


def file_name(words: object, most: int = MAX_NAME_CHARS) -> str:
    """``words`` as a part of a file's name: ASCII letters, digits and inner dots, hyphens for all else; possibly empty."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", _text(words)[:most]).strip("-.")


def shell(*words: object) -> str:
    """A command as a line for a shell."""
    return shlex.join(map(str, words))


def tcl(word: object) -> str:
    """``word`` as one word of a Tcl command, without substitution."""
    quoted = re.sub(r"[^A-Za-z0-9_./:,@%+=-]", lambda hit: _TCL.get(hit[0], f"\\{hit[0]}"), str(word))
    return quoted or "{}"


_TCL = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
"""Escapes of characters that a backslash alone does not quote."""


def markdown(words: object) -> str:
    """``words`` as inline text of Markdown."""
    return re.sub(r"([\\`*_\[\]<>&|~])", r"\\\1", plain(words))


def problem(error: Mapping[str, Any]) -> str:
    """One of pydantic's errors in a file as text: the key, the problem and the value."""
    where = plain(".".join(map(str, error["loc"])) or "the file", MAX_NAME_CHARS)
    if error["type"] == "missing":
        return f"{where}: is missing"
    if error["type"] == "extra_forbidden":
        return f"{where}: is a key that tinyfl does not know. Leave it out."
    text, given = plain(error["msg"].removeprefix("Value error, ")), error["input"]
    return f"{where}: {text}" + ("" if isinstance(given, Mapping) else f" (is {plain(_text(given, repr), MAX_NAME_CHARS)})")


def _text(words: object, form: Callable[[object], str] = str) -> str:
    try:
        return form(words)
    except Exception as error:  # str() may fail, as for an integer of 5,000 digits
        return f"{type(words).__name__} that cannot be shown ({type(error).__name__})"


def _plain(character: str) -> str:
    if character.isspace():
        return " "
    return REPLACEMENT if unicodedata.category(character) in _HIDDEN else character


def guess(name: object, names: Iterable[str]) -> str:
    """A question after the one of ``names`` that ``name`` may have meant, to begin a cure with; empty if none is like it."""
    close = get_close_matches(str(name), list(names), 1)
    return f"Did you mean {close[0]}? " if close else ""
