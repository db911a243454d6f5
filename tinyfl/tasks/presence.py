"""Is somebody there? Sensors in rooms: a device is a node, and all is in the order of time.

Four desks of one room (Singh et al. 2018; UCI 864), each with temperature, light and sound; or one office (Candanedo and
Feldheim, Energy and Buildings 112, 2016; UCI 357). The first days are the past, from which the training nodes learn. The
validation node adapts on the first half of the past and is measured on the second; a single node learns from the first half
alone. The test node is measured on each later day, and adapts on samples from before that day. So a query set comes after its
support set, and that for testing also after all that trains.
"""

import csv
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl import core
from tinyfl.core import I64, Stream
from tinyfl.data import Reading, Table
from tinyfl.data.archives import arrays_of, contents
from tinyfl.data.devices import Seats
from tinyfl.errors import DataError
from tinyfl.errors.words import plain
from tinyfl.tasks import Episodes, Split
from tinyfl.tasks.npz import MAX_QUERIES
from tinyfl.tasks.published import Published
from tinyfl.tasks.standard import Standardisation

DAY = 86_400
PAST = {"count": 1, "y": 7}
"""The number of days that are the past, by the array of answers: of UCI 864, half of whose days are empty, and of UCI 357."""

SENSORS = ("Temp", "Light", "Sound")
"""What each node of UCI 864 measures: columns such as S1_Temp."""

OFFICE = ("Temperature", "Humidity", "Light", "CO2", "HumidityRatio")
"""The columns of UCI 357."""


class Presence(Published):
    """The task of the file ``data``: a set's archive or file as it is downloaded, or the arrays of ``arrays``. The seed says
    which node is tested, and which one is for validation; a single node has all roles.

    Raises DataError for another file.
    """

    name = "presence"

    def __init__(self, data: Path, seed: int, standard: Standardisation | None = None, balance: bool = False) -> None:
        held = arrays_of(data, ("X", "time"), ("y", "count"), arrays)
        nodes, present, time = _nodes(data, held)
        starts = _blocks(data, time, PAST["count" if "count" in held else "y"])
        tested, validates = seed % len(nodes), (seed + 1) % len(nodes)
        trains = sorted(set(range(len(nodes))) - {tested, validates}) or [tested]
        block = np.searchsorted(starts, time, side="right") - 1
        learnt = range(1 if validates in trains else 2)
        used = dict.fromkeys(trains, len(learnt)) | {validates: 2} | {tested: len(starts)}
        rows = {node: np.flatnonzero(block < blocks) for node, blocks in used.items()}
        # A device is a node in a block of time, so that its rows stand after those of the node's earlier blocks.
        device = np.concatenate([node * len(starts) + block[each] for node, each in rows.items()])
        x = np.concatenate([nodes[node][each] for node, each in rows.items()])
        y = np.concatenate([present[each] for each in rows.values()])
        numbers = np.unique(device)

        def seats(node: int, blocks: Sequence[int]) -> I64:
            return np.searchsorted(numbers, [node * len(starts) + each for each in blocks])

        members = {
            "train": np.concatenate([seats(node, learnt) for node in trains]),
            "validation": seats(validates, [1]),
            "test": seats(tested, range(2, len(starts))),
        }
        if len(np.unique(y[np.isin(device, numbers[members["train"]])])) < 2:
            raise DataError(
                f"{data}: what trains, until {_when(starts[len(learnt)])}, has somebody always or never. Give more."
            )
        super().__init__(Table(str(data), x, y, device), seed, standard, Reading(balance=balance), Seats.alone(members))
        self._own = np.searchsorted(numbers // len(starts), numbers // len(starts))
        self._names = np.array([f"node {n // len(starts) + 1} from {_when(starts[n % len(starts)])}" for n in numbers])

    def episodes(self, split: Split, count: int, shots: int) -> Episodes:
        """Several draws for each block of time: the support set from all earlier rows of its node, the query set from it."""
        blocks = self._members[split][:count]
        draws = max(1, count // len(blocks))
        queries = min(MAX_QUERIES, int(self._count[blocks].min()))
        support, query = list[I64](), list[I64]()
        for number, block in enumerate(blocks.tolist()):
            first = int(self._first[self._own[block]])
            before, here = int(self._first[block]) - first, int(self._count[block])
            if before < shots:
                raise DataError(
                    f"{self.source}: {self._names[block]} has {before} samples before it. Give --shots {before} or fewer."
                )
            episode = np.arange(number * draws, (number + 1) * draws, dtype=np.uint32)
            drawn = core.distinct(self.seed, Stream.support, episode, skip=0, available=before, picks=shots)
            asked = core.distinct(self.seed, Stream.support, episode, skip=before, available=here, picks=queries)
            support.append(first + drawn.astype(np.int64))
            query.append(self._first[block] + asked.astype(np.int64))
        owner = np.repeat(np.arange(len(blocks), dtype=np.int32), draws)
        return Episodes(self._source(np.concatenate(support)), self._source(np.concatenate(query)), owner)


def _nodes(data: Path, held: Mapping[str, NDArray[Any]]) -> tuple[list[NDArray[Any]], NDArray[Any], I64]:
    """The inputs of each node, (rows, inputs), whether somebody is there, (rows,) 0 or 1, and the time in seconds, (rows,), in
    its order."""
    x, time = held["X"], held["time"]
    answer = held.get("count", held.get("y"))
    if x.ndim != 2 or answer is None or time.shape != (len(x),) or answer.shape != time.shape or not len(x):
        raise DataError(f"{data}: array X is {x.shape}, time {time.shape}; give X (rows, inputs), time and y or count (rows,).")
    if any(each.dtype.kind not in "iu" for each in (time, answer)):
        raise DataError(f"{data}: array time is {time.dtype}, and the answers {answer.dtype}: give both as whole numbers.")
    order = np.argsort(time, kind="stable")
    x, present, time = x[order], (answer[order] > 0).astype(np.int64), time[order].astype(np.int64)
    if "count" not in held:
        return [x], present, time
    if x.shape[1] < 12:
        raise DataError(f"{data}: array X has {x.shape[1]} columns, and four nodes have 12: temperatures, lights, sounds.")
    return [np.ascontiguousarray(x[:, node:12:4]) for node in range(4)], present, time


def _blocks(data: Path, time: I64, past: int) -> I64:
    """The start of each block of time: the two halves of the first ``past`` days, or fewer, then each later day with rows."""
    days = np.unique(time // DAY)
    if len(days) < 2:
        raise DataError(f"{data} is of one day. At least 2 are needed: one to learn from.")
    past = min(past, len(days) - 1)
    early = time[time < (days[past - 1] + 1) * DAY]
    half = early[len(early) // 2]
    if half == time[0]:
        raise DataError(f"{data}: the first {past} days have {len(early)} rows only. Give more.")
    return np.concatenate([[time[0], half], days[past:] * DAY])


def _when(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):  # no date of our calendar
        return str(seconds)


def arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The rows of a set as it is downloaded, or a folder of it. UCI 864, Occupancy_Estimation.csv: ``X`` float32 (rows, 12),
    four temperatures, lights and sounds, and ``count`` (rows,) of people. UCI 357, datatraining.txt, datatest.txt and
    datatest2.txt: ``X`` (rows, 5), and ``y`` (rows,), whether somebody is there. ``time`` (rows,) are seconds since 1970 on the
    room's clock.

    Raises DataError for anything else.
    """
    rows = [row for name, text in contents(path, "Estimation.csv", "training.txt", "test.txt", "test2.txt")
            for row in _rows(f"{path}: {name}", text.decode("utf-8", "replace"))]  # fmt: skip
    if not rows:
        raise DataError(f"{path} has neither Occupancy_Estimation.csv nor datatraining.txt. Give the set as it is downloaded.")
    room = "Room_Occupancy_Count" in rows[0]
    columns = [f"S{node}_{what}" for what in SENSORS for node in range(1, 5)] if room else OFFICE
    answer = "Room_Occupancy_Count" if room else "Occupancy"
    try:
        times = [f"{row['Date'].replace('/', '-')} {row['Time']}" if room else row["date"] for row in rows]
        stamps = [int(datetime.strptime(each, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp()) for each in times]
        x = np.array([[float(row[name]) for name in columns] for row in rows], np.float32)
        answers = np.array([int(row[answer]) for row in rows], np.uint8)
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{path} has other columns or values than the set has ({plain(repr(error))}).") from error
    return {"X": x, "count" if room else "y": answers, "time": np.array(stamps, np.int64)}


def _rows(source: str, text: str) -> list[dict[str, str]]:
    """The rows by column; rows of UCI 357 begin with their number, which its header leaves out."""
    head, *rows = [row for row in csv.reader(text.splitlines()) if row] or [[]]
    if any(len(row) not in (len(head), len(head) + 1) for row in rows):
        raise DataError(f"{source} has rows with more or fewer values than the header has names.")
    return [dict(zip(head, row[len(row) - len(head) :], strict=True)) for row in rows]
