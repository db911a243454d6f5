"""Options and settings that have another name now. The former one still works, and a line says the new one."""

from collections.abc import Sequence
from pathlib import Path

from tinyfl.config.settings import RENAMED

_RUN = {"--robust": "--aggregator", "--superlink": "--federation"}
_BOARDS = {"--devices": "--inventory"}
OPTIONS: dict[str, dict[str, str]] = {
    "run": _RUN, "simulate": _RUN,
    "devices": _BOARDS, "flash": _BOARDS, "monitor": _BOARDS, "push": _BOARDS,
    "emulate": {"--first": "--first-id"},
    "gateway": {"--first": "--first-device"},
}  # fmt: skip
"""For each verb, its former options and what they are called now."""


def current(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of a command line by the names of today, and a line for each former name in them."""
    now = OPTIONS.get(words[0], {}) if words else {}
    end = words.index("--") if "--" in words else len(words)
    said, hints = list(words), list[str]()
    for place, word in enumerate(words[:end]):
        old, equals, value = word.partition("=")
        if old in now:
            said[place] = now[old] + equals + value
            hints.append(f"tinyfl: {old} is now {now[old]}")
    return said, list(dict.fromkeys(hints))


def in_file(config: Path) -> list[str]:
    """A line for each setting in a user's file that stands there by its former name."""
    from tinyfl.config import read_toml

    there = read_toml(config)
    return [f"tinyfl: {config}: {old} is now {new}" for old, new in RENAMED.items() if old in there]
