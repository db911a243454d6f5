"""Options and settings with a new name. The former name still works, and a line on stderr gives the new one."""

from collections.abc import Sequence
from pathlib import Path

from tinyfl.config.settings import RENAMED

_RUN = {"--robust": "--aggregator", "--superlink": "--federation", "--inner-lr": "--rate"}
_BOARDS = {"--devices": "--inventory"}
OPTIONS: dict[str, dict[str, str]] = {
    "run": _RUN, "simulate": _RUN,
    "devices": _BOARDS, "flash": _BOARDS, "monitor": _BOARDS, "push": _BOARDS,
    "emulate": {"--first": "--first-id"},
    "gateway": {"--first": "--first-device"},
}  # fmt: skip
"""For each verb, its former options and their new names."""


def current(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command line with new names only, and a hint for each former name in it."""
    names = OPTIONS.get(words[0], {}) if words else {}
    end = words.index("--") if "--" in words else len(words)
    renamed, hints = list(words), list[str]()
    for place, word in enumerate(words[:end]):
        old, equals, value = word.partition("=")
        if old in names:
            renamed[place] = names[old] + equals + value
            hints.append(f"tinyfl: {old} is now {names[old]}")
    return renamed, list(dict.fromkeys(hints))


def in_file(config: Path) -> list[str]:
    """A hint for each former name in a user's file."""
    from tinyfl.config import read_toml

    table = read_toml(config)
    return [f"tinyfl: {config}: {old} is now {new}" for old, new in RENAMED.items() if old in table]
