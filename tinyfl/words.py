"""Words from outside, made fit to show.

A board, a probe, a drive, a file, a gateway, a run directory and another library's exception may all say anything. What they
say passes ``plain`` before it reaches a terminal, a log or a message. HTML, a shell and Tcl also quote it by their own rules.
"""

import unicodedata

MOST = 300
"""Characters of one word from outside that are shown."""

REPLACEMENT = "\ufffd"

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode's categories of characters that steer a terminal, turn the direction of text, or cannot be seen."""


def plain(words: object, most: int = MOST) -> str:
    """``words`` on one line of at most ``most`` characters: white space becomes spaces, and characters that steer a terminal
    or hide are replaced."""
    text = _text(words)
    shown = "".join(map(_plain, text[: most + 1])).strip()
    return shown[: most - 1] + "…" if len(text) > most else shown


def _text(words: object) -> str:
    try:
        return str(words)
    except Exception as error:  # a foreign object may fail at this too, as an integer of 5,000 digits does
        return f"{type(words).__name__} that cannot be shown ({type(error).__name__})"


def _plain(character: str) -> str:
    if character.isspace():
        return " "
    return REPLACEMENT if unicodedata.category(character) in _HIDDEN else character
