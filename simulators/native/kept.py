"""What simulated devices keep from round to round: the same blocks, and the same rule, as on a board (firmware/SPEC.md, kept).

A device has a block and a copy of it as of the run's last checkpoint. Each carries its round, counted from 1; 0: none. With a
file the blocks outlive this process. Each also carries a checksum: a block that a kill or a power cut has left half written
counts as none.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinyfl.core import F32, I64, U32
from tinyfl.errors import RunError
from tinyfl.fleet import Context
from tinyfl.system.files import writing

HEADER = np.dtype([("magic", "S8"), ("run", "<u8"), ("layers", "<u8"), ("size", "<u8"), ("count", "<u8")])
MAGIC = b"tinyflkp"


@dataclass(frozen=True)
class Kept:
    """The blocks of the devices ``first``, ``first`` + 1, ... in one run.

    rounds and sums: uint32 (devices, 2), of the block and of its copy; blocks: float32 (devices, 2, floats). Pages of devices
    that never took part take no memory."""

    run: int
    layers: int
    first: int
    rounds: U32
    sums: U32
    blocks: F32

    @property
    def floats(self) -> int:
        """Of a block."""
        return int(self.blocks.shape[2])

    @classmethod
    def opened(cls, context: Context, layers: int, first: int, size: int, floats: int, file: Path | None) -> "Kept":
        """The blocks of run ``context.run`` in ``file``; new ones if the file holds none of this run and shape, or without a
        file.

        Raises RunError if the file cannot be written, or the disk has no room for all blocks.
        """
        numbers, blocks = (size, 2), (size, 2, floats)
        if file is None:
            rounds, sums = np.zeros(numbers, np.uint32), np.zeros(numbers, np.uint32)
            return cls(context.run, layers, first, rounds, sums, np.zeros(blocks, np.float32))
        header = np.array((MAGIC, context.run, layers, size, floats), HEADER).tobytes()
        at = np.cumsum([len(header), 8 * size, 8 * size, 8 * size * floats]).tolist()
        with writing(file):
            if not _holds(file, header, at[3]):
                _create(file, header, at[3])
            rounds, sums = (np.memmap(file, np.uint32, "r+", start, numbers) for start in at[:2])
            return cls(context.run, layers, first, rounds, sums, np.memmap(file, np.float32, "r+", at[2], blocks))

    def load(self, devices: U32, round: int, context: Context) -> tuple[F32, U32]:
        """The blocks before ``round``, float32 (devices, floats), NaN where there is none, and their rounds, uint32
        (devices,)."""
        at = devices.astype(np.int64) - self.first
        block, copy = (self._usable(at, which, round) for which in (0, 1))
        lost = ~block & (self.rounds[at, 0] > 0)
        self._move(at[lost & copy], 1, 0)
        self.rounds[at[lost & ~copy], 0] = 0
        self._move(at[~lost & (self.rounds[at, 0] <= context.saved)], 0, 1)
        own, rounds = np.array(self.blocks[at, 0]), np.array(self.rounds[at, 0])
        own[rounds == 0] = np.nan
        return own, rounds

    def _usable(self, at: I64, which: int, round: int) -> NDArray[np.bool_]:
        """Whether each block, or copy, is complete and from before ``round``, bool (devices,)."""
        rounds = self.rounds[at, which]
        complete = self.sums[at, which] == checksum(rounds, self.blocks[at, which])
        usable: NDArray[np.bool_] = (rounds > 0) & (rounds <= round) & complete
        return usable

    def _move(self, at: I64, source: int, to: int) -> None:
        for array in (self.blocks, self.sums, self.rounds):
            array[at, to] = array[at, source]

    def store(self, devices: U32, round: int, blocks: F32) -> None:
        """Replaces the devices' blocks by those after ``round``."""
        at = devices.astype(np.int64) - self.first
        rounds = np.full(len(at), round + 1, np.uint32)
        self.rounds[at, 0] = rounds
        self.blocks[at, 0] = blocks
        self.sums[at, 0] = checksum(rounds, blocks)


def checksum(rounds: U32, blocks: F32) -> U32:
    """A checksum of each device's round and block (devices, floats): uint32 (devices,)."""
    words = np.ascontiguousarray(blocks).view(np.uint32)
    factors = np.arange(1, 2 * words.shape[1] + 1, 2, dtype=np.uint32) * np.uint32(0x9E3779B1)
    mixed = words ^ (words >> np.uint32(15))
    total: U32 = (mixed * factors).sum(axis=1, dtype=np.uint32) ^ (rounds * np.uint32(0x85EBCA77))
    return total


def _holds(file: Path, header: bytes, total: int) -> bool:
    if not file.is_file() or file.stat().st_size != total:
        return False
    with file.open("rb") as held:
        return held.read(len(header)) == header


def _create(file: Path, header: bytes, total: int) -> None:
    """A sparse file of ``total`` bytes, for this user alone. On a full disk a write through the map would end the process."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    if total > (free := shutil.disk_usage(file.parent).free):
        raise RunError(f"{file} may grow to {total:,} bytes, and its disk has {free:,}. Make room, or give another --out.")
    with os.fdopen(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as new:
        new.truncate(total)
        new.write(header)
