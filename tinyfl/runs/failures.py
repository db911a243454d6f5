"""The parts of a fleet that sent no update in a whole run, and the reasons.

Both are read from the run's rounds.jsonl and events.jsonl, which also cover the time before a resume.
"""

import json
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinyfl.config import Config
from tinyfl.core import Code
from tinyfl.errors.words import plain
from tinyfl.fleet import Devices, ends_of, words_for
from tinyfl.runs.directory import EVENTS, ROUNDS

MAX_BYTES = 1 << 22
"""Size of the end of events.jsonl that is searched for a part's last event, in bytes."""


def failed(folder: Path, parts: Mapping[str, Devices]) -> dict[str, str]:
    """The ``parts`` of a fleet (name to devices) that had devices in the cohorts of the run in ``folder`` but sent no update;
    each with a message for people."""
    rounds_of = dict.fromkeys(parts, 0)
    for record in _records(folder / ROUNDS) if parts else ():
        if not rounds_of:
            break  # each has sent one
        for name in list(rounds_of):
            count = _common(record["cohort"], parts[name])
            if count > sum(_common(absent, parts[name]) for absent in record["absent"].values()):
                del rounds_of[name]
            else:
                rounds_of[name] += count > 0
    return {name: _message(folder, parts[name], rounds) for name, rounds in rounds_of.items() if rounds}


def _message(folder: Path, devices: Devices, rounds: int) -> str:
    which = f"device{'s' * (len(devices) > 1)} {words_for(devices)}"
    when = "the one round that asked for it" if rounds == 1 else f"any of the {rounds:,} rounds that asked for one"
    why = last_words(folder, devices)
    return f"{which}, no update in {when}{why and f' ({why})'}"


def last_words(folder: Path, devices: Container[int]) -> str:
    """The last reason in events.jsonl for leaving out one of ``devices``; empty if there is none."""
    found = [record for record in _records(folder / EVENTS) if record["what"] == "left out" and record["device"] in devices]
    return plain(found[-1]["detail"]) if found else ""


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a file; of a large file, those at its end."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        if path.name == EVENTS:
            file.seek(max(0, path.stat().st_size - MAX_BYTES))
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                continue  # truncated at its start or end


def _common(spans: str, devices: Devices) -> int:
    """The number of ``devices`` within ``spans``, such as 0-7,9."""
    ends = ends_of(spans)
    if isinstance(devices, range):
        return sum(max(0, min(last + 1, devices.stop) - max(first, devices.start)) for first, last in ends)
    before, upto = (np.searchsorted(devices, edges) for edges in ([a for a, _ in ends], [b + 1 for _, b in ends]))
    return int((upto - before).sum())


def diverged(left_out: Mapping[str, int], config: Config) -> str:
    """The cure if devices are left out only because they diverge; empty if there is any other reason."""
    if left_out and set(left_out) <= {Code.numeric.name, Code.oversized.name}:
        return f"the inner loop diverges. {config.calmer}"
    return ""
