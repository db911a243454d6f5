"""How stale the updates of an asynchronous run were, from its log of arrivals."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tinyfl.config import Config
from tinyfl.config.settings import slow_devices
from tinyfl.fleet import ends_of
from tinyfl.late import WHOLE, weight
from tinyfl.late.course import seconds_of
from tinyfl.runs.directory import ROUNDS, RunDirectory
from tinyfl.runs.records import ArrivalsRecord


def late_figures(directory: RunDirectory, config: Config, boards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of the log of arrivals: ``staleness``, and the ``virtual_time`` of the last round, None on real clocks."""
    records = [record for _, record in directory.records(ROUNDS, ArrivalsRecord)]
    return {"staleness": staleness(records, config, boards), "virtual_time": records[-1].time if records else None}


def staleness(records: Sequence[ArrivalsRecord], config: Config, boards: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each kind of device, the most numerous first: its name, the number of its ``devices``, of their ``arrivals`` and of
    those ``left_out``, the sum of the weights of the others, and how many of these had each ``staleness``, in rounds."""
    kinds = _kinds(config, boards)
    names = Counter(kinds)
    counts = {kind: Counter[int]() for kind in names}
    left_out = Counter[str]()
    for record in records:
        absent = [ends for spans in record.absent.values() for ends in ends_of(spans)]
        for device, version in record.arrivals if record.counts else ():
            if any(first <= device <= last for first, last in absent):
                left_out[kinds[device]] += 1
            else:
                counts[kinds[device]][record.round - 1 - version] += 1
    return [
        {
            "kind": kind,
            "devices": number,
            "arrivals": counts[kind].total() + left_out[kind],
            "left_out": left_out[kind],
            "weight": sum(weight(age) * count for age, count in counts[kind].items()) / WHOLE,
            "staleness": {str(age): count for age, count in sorted(counts[kind].items())},
        }
        for kind, number in names.most_common()
    ]


def _kinds(config: Config, boards: Sequence[Mapping[str, Any]]) -> list[str]:
    """The kind of each device: how slow it is simulated to be, or its board."""
    share, factor = slow_devices(config.slow)
    if config.slow:
        slow = f"{factor:g} times as slow"
        return [slow if seconds != 1 else "usual" for seconds in seconds_of(config.seed, config.devices, share, factor)]
    kinds = ["simulated"] * config.devices
    for board in boards:
        kinds[board["device"]] = str(board.get("board", "at a port"))
    return kinds
