"""Words from outside, made fit to show.

A board, a probe, a drive, a file, a gateway, a run directory and another library's exception may all say anything. What they
say passes ``plain`` before it reaches a terminal, a log or a message. In a file's name, a shell, Tcl and Markdown it is quoted
by their own rules, which stand here too; HTML's are in tinyfl.report.html, the terminal's in tinyfl.cli.show.terminal.
"""

import re
import shlex
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

MOST = 300
"""Characters of one word from outside that are shown."""

MAX_MESSAGE_CHARS = 8000

MAX_NAME_CHARS = 80
"""Characters of a file's name that are made of words from outside: a file system takes 255 bytes."""

MAX_USB_CHARS = 126
"""Characters of a text that a USB device can give."""

REPLACEMENT = "\ufffd"

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode's categories of characters that steer a terminal, turn the direction of text, or cannot be seen."""


def plain(words: object, most: int = MOST) -> str:
    """``words`` on one line of at most ``most`` characters: white space becomes spaces, and characters that steer a terminal
    or hide are replaced."""
    text = _text(words)
    shown = "".join(map(_plain, text[: most + 1])).strip()
    return shown[: most - 1] + "…" if len(text) > most else shown


def serial_number(words: object) -> str:
    """What a USB device says its serial number is; nothing where that is no text that a person could give with --probe."""
    text = words.strip() if isinstance(words, str) else ""
    return text if plain(text, MAX_USB_CHARS) == text else ""


def visible(text: str) -> str:
    """``text`` with its line breaks and tabs, and what else steers a terminal or hides replaced."""
    return re.sub(r"[^\n\t]+", lambda hit: hit[0] if hit[0].isprintable() else "".join(map(_plain, hit[0])), text)


def message(words: object, most: int = MAX_MESSAGE_CHARS) -> str:
    """An error's message, which may have several lines. Where it is too long, its middle is left out: the cure stands last."""
    text = _text(words)
    half = most // 2
    return visible(f"{text[:half]} […] {text[-half:]}" if len(text) > most else text)


def file_name(words: object, most: int = MAX_NAME_CHARS) -> str:
    """``words`` as a part of a file's name: ASCII letters and digits, dots inside, hyphens for all else; perhaps nothing."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", _text(words)[:most]).strip("-.")


def shell(*words: object) -> str:
    """A command as a line for a shell."""
    return shlex.join(map(str, words))


def tcl(word: object) -> str:
    """``word`` as one word of a Tcl command, in which nothing is substituted."""
    quoted = re.sub(r"[^A-Za-z0-9_./:,@%+=-]", lambda hit: _TCL.get(hit[0], f"\\{hit[0]}"), str(word))
    return quoted or "{}"


_TCL = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
"""A backslash before a line's end does not stand for that line's end."""


def markdown(words: object) -> str:
    """``words`` as text inside a line of Markdown."""
    return re.sub(r"([\\`*_\[\]<>&|~])", r"\\\1", plain(words))


def problem(found: Mapping[str, Any]) -> str:
    """One of pydantic's problems with a file: where, what, and what stands there."""
    where = plain(".".join(map(str, found["loc"])) or "the file", MAX_NAME_CHARS)
    if found["type"] == "missing":
        return f"{where}: is missing"
    if found["type"] == "extra_forbidden":
        return f"{where}: is a key that tinyfl does not know. Leave it out."
    said, given = plain(found["msg"].removeprefix("Value error, ")), found["input"]
    return f"{where}: {said}" + ("" if isinstance(given, Mapping) else f" (is {plain(_text(given, repr), MAX_NAME_CHARS)})")


def _text(words: object, form: Callable[[object], str] = str) -> str:
    try:
        return form(words)
    except Exception as error:  # a foreign object may fail at this too, as an integer of 5,000 digits does
        return f"{type(words).__name__} that cannot be shown ({type(error).__name__})"


def _plain(character: str) -> str:
    if character.isspace():
        return " "
    return REPLACEMENT if unicodedata.category(character) in _HIDDEN else character
