"""A scenario: the faults of each board, read from a TOML file.

[[fault]]
board = 2                 # counted from 0 within its part of the fleet
direction = "to-board"    # or to-host
frame = 5                 # from 0, since the start
kind = "flip"             # drop, duplicate, flip, truncate, delay, silence, reset
at = 17                   # for flip (the bit) and truncate (bytes kept)
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyfl.errors import ConfigError
from tinyfl.simulators.faults import DIRECTIONS, KINDS, Fault

KEYS = {"board", "direction", "frame", "kind", "at"}
DAMAGES = ("flip", "truncate")


@dataclass(frozen=True)
class Scenario:
    """The faults of each board; other boards have none."""

    faults: dict[int, tuple[Fault, ...]]

    def of(self, board: int) -> tuple[Fault, ...]:
        """The faults of one board."""
        return self.faults.get(board, ())


def load_scenario(path: Path, boards: int) -> Scenario:
    """Reads the scenario in ``path``, for a fleet of ``boards``.

    Raises ConfigError for a missing or malformed file.
    """
    try:
        tables = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from error
    entries = tables.get("fault")
    if set(tables) != {"fault"} or not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(f"{path} is not a scenario. Give only [[fault]] tables, each with board, direction, frame and kind.")
    faults: dict[int, tuple[Fault, ...]] = {}
    for number, entry in enumerate(entries, 1):
        board, fault = _read(f"{path}, fault {number}", entry, boards)
        for other in faults.get(board, ()):
            if (other.direction, other.frame) == (fault.direction, fault.frame):
                raise ConfigError(
                    f"{path}, fault {number}: board {board} already has a fault at frame {fault.frame}. Keep one of them."
                )
        faults[board] = (*faults.get(board, ()), fault)
    return Scenario(faults)


def _read(where: str, entry: dict[str, Any], boards: int) -> tuple[int, Fault]:
    if unknown := sorted(set(entry) - KEYS):
        raise ConfigError(f"{where}: there is no {unknown[0]!r}. A fault has {', '.join(sorted(KEYS))}.")
    for key, choices in (("direction", DIRECTIONS), ("kind", KINDS)):
        if entry.get(key) not in choices:
            raise ConfigError(f"{where}: {key} is {entry.get(key)!r}. Give one of {', '.join(choices)}.")
    if "at" in entry and entry["kind"] not in DAMAGES:
        raise ConfigError(f"{where}: {entry['kind']} has no 'at'. Leave it out; {' and '.join(DAMAGES)} have one.")
    for key in ("board", "frame", "at"):
        value = entry.get(key, 0 if key == "at" else None)
        if type(value) is not int or value < 0:
            raise ConfigError(f"{where}: {key} is {value!r}. Give a whole number from 0.")
    if entry["board"] >= boards:
        raise ConfigError(f"{where}: there is no board {entry['board']}. The fleet has 0 to {boards - 1}.")
    return entry["board"], Fault(entry["direction"], entry["frame"], entry["kind"], entry.get("at", 0))
