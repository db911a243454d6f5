"""Who is measured in a run of the task ``sensor``: never those whose readings the fleet's devices learn from."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.config.roster import Part
from tinyfl.data import Table
from tinyfl.data.arrays import labels_in
from tinyfl.data.devices import listed, members, owners
from tinyfl.data.reading import read_table
from tinyfl.data.words import named
from tinyfl.errors import ConfigError, SensorFault
from tinyfl.errors.words import plain
from tinyfl.sensors.recording import read_recording, shares
from tinyfl.sensors.source import HostSource
from tinyfl.tasks.npz import Npz


@dataclass(frozen=True)
class Learners:
    """Whose readings the fleet has: the names in its recordings, and the digests of the samples that the C file makes of each
    one's readings, by which a person is known under another name too."""

    names: frozenset[str]
    digests: frozenset[bytes]

    def has(self, name: str, x: NDArray[Any]) -> bool:
        """Whether the device ``name``, with the samples ``x``, is among them."""
        return name in self.names or _digest(x) in self.digests


def learners(parts: Sequence[Part], sources: Sequence[Path], sensor: str) -> Learners:
    """Those of the ``parts`` with recorded readings, whose sensor, if they name none, is ``sensor`` of ``sources``.

    Raises DataError for readings that are not the sensor's, or of too few devices.
    """
    names, digests = set[str](), set[bytes]()
    for part in parts:
        if not part.readings:
            continue
        source = HostSource(sources, part.sensor or sensor)
        try:
            recording = read_recording(Path(part.readings), source.sensor)
            held = shares(recording, source.sensor, part.size)
            with suppress(SensorFault):  # the round says what is wrong with it
                digests |= {_digest(source.recorded(readings)[0]) for readings in held}
            names |= {str(name) for name in recording.devices[: part.size]}
        finally:
            source.close()
    return Learners(frozenset(names), frozenset(digests))


def held_apart(table: Table, known: Learners, seed: int) -> tuple[Table, tuple[str, ...]]:
    """``table``, whose held-out devices are none of ``known``, and a note if that took a choice.

    Raises ConfigError if the table holds some of them out itself, or has nobody else.
    """
    if not known.names:
        return table, ()
    names, owner = owners(table)
    busy = [i for i, name in enumerate(names.tolist()) if known.has(str(name), table.x[owner == i])]
    if not busy:
        return table, ()
    test = listed(table, "split", names)
    if test is not None:
        if both := np.intersect1d(test, busy).tolist():
            raise ConfigError(
                f"{table.source}: the array split holds out {plain(names[both[0]], 40)}, and the fleet learns from that one's "
                "readings. Take others into split, or leave it out: then those are held out whom no device of the fleet has. "
                "A fleet of N takes the readings of the first N names."
            )
        return table, ()
    if len(busy) == len(names):
        raise ConfigError(
            f"{table.source}: the fleet learns from the readings of all {len(names)} devices, and nobody is left to measure "
            "on. Record further people, or take fewer boards."
        )
    chosen = members(table, names, owner, seed, labels_in(table.source, table.y, "")[0], busy=busy)
    test, validation = names[chosen["test"]], names[chosen["validation"]]
    who = named([plain(name, 40) for name in test.tolist()])
    note = f"held out: {who}, of the {len(names) - len(busy)} devices whose readings no device of the fleet has"
    return replace(table, split=test, validation=validation), (note,)


def demand_apart(parts: Sequence[Part], task: object) -> None:
    """Raises ConfigError if a device that the ``task`` of the user's own data holds out has the name of one whose readings the
    fleet has."""
    if not isinstance(task, Npz):
        return
    test = set(task.device_names("test"))
    for part in parts:
        if not part.readings:
            continue
        known = np.unique(read_table(Path(part.readings)).device)[: part.size]
        if both := sorted(test & {str(name) for name in known}):
            raise ConfigError(
                f"{task.source}: {plain(both[0], 40)} is held out, and the fleet learns from that one's readings. Hold others "
                "out with the array split, or take --task sensor, which does it."
            )


def _digest(x: NDArray[Any]) -> bytes:
    rows = np.ascontiguousarray(x, np.float32)
    return hashlib.sha256(f"{len(rows)} ".encode() + rows.tobytes()).digest()
