"""Which parts of a fleet sent nothing in a whole run, and why.

Both are read from the run's own rounds.jsonl and events.jsonl, so that a run that was resumed knows too.
"""

import json
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from tinyfl.config import Config
from tinyfl.core import Code
from tinyfl.errors.words import plain
from tinyfl.runs.directory import EVENTS, ROUNDS

MAX_BYTES = 1 << 22
"""Of the end of events.jsonl, in which a part's last words are looked for."""


def failed(folder: Path, parts: Mapping[str, range]) -> dict[str, str]:
    """The ``parts`` of a fleet, name to devices, that were asked in rounds of the run in ``folder`` and sent no update in any;
    each with what people are told of it."""
    asked = dict.fromkeys(parts, 0)
    for record in _records(folder / ROUNDS) if parts else ():
        if not asked:
            break  # each has sent one
        for name in list(asked):
            of = _common(record["cohort"], parts[name])
            if of > sum(_common(absent, parts[name]) for absent in record["absent"].values()):
                del asked[name]
            else:
                asked[name] += of > 0
    return {name: _told(folder, parts[name], rounds) for name, rounds in asked.items() if rounds}


def _told(folder: Path, devices: range, rounds: int) -> str:
    whose = f"device {devices.start}" if len(devices) == 1 else f"devices {devices.start} to {devices.stop - 1}"
    when = "the one round that asked for it" if rounds == 1 else f"any of the {rounds:,} rounds that asked for one"
    why = last_words(folder, devices)
    return f"{whose}, no update in {when}{why and f' ({why})'}"


def last_words(folder: Path, devices: Container[int]) -> str:
    """Why one of ``devices`` was last left out, as events.jsonl has it; empty where it says nothing."""
    found = [record for record in _records(folder / EVENTS) if record["what"] == "left out" and record["device"] in devices]
    return plain(found[-1]["detail"]) if found else ""


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a file, or of its end where it is large."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        if path.name == EVENTS:
            file.seek(max(0, path.stat().st_size - MAX_BYTES))
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                continue  # cut at its beginning or end


def _common(spans: str, devices: range) -> int:
    """How many of ``devices`` are among those of ``spans``, as in 0-7,9 (tinyfl.fleet.spans)."""
    ends = [[int(end) for end in span.split("-")] for span in spans.split(",") if span]
    return sum(max(0, min(pair[-1] + 1, devices.stop) - max(pair[0], devices.start)) for pair in ends)


def diverged(left_out: Mapping[str, int], config: Config) -> str:
    """What helps where devices are left out because they diverge, and for no other reason; empty where it is something else."""
    if left_out and set(left_out) <= {Code.numeric.name, Code.oversized.name}:
        return f"the inner loop diverges. {config.calmer}"
    return ""
