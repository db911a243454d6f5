"""What simulated devices keep from round to round: the same blocks, and the same rule, as on a board (firmware/SPEC.md, kept).

A device has a block and a copy of it as of the run's last checkpoint. Each carries its round, counted from 1; 0: none. With a
file the blocks outlive this process, killed at any moment: while a block is written its number is UNFINISHED, later than any
round, and so its copy takes its place; a copy is written before its number.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyfl.core import F32, U32
from tinyfl.fleet import Saved

HEADER = np.dtype([("magic", "S8"), ("run", "<u8"), ("layers", "<u8"), ("size", "<u8"), ("count", "<u8")])
MAGIC = b"tinyflkp"
UNFINISHED = (1 << 32) - 1


@dataclass(frozen=True)
class Kept:
    """The blocks of the devices ``first``, ``first`` + 1, ... in one run.

    rounds: uint32 (devices, 2), of the block and of its copy; blocks: float32 (devices, 2, floats). Pages of devices that never
    took part take no memory."""

    run: int
    layers: int
    first: int
    rounds: U32
    blocks: F32

    @classmethod
    def opened(cls, saved: Saved, layers: int, first: int, size: int, floats: int, file: Path | None) -> "Kept":
        """The blocks of run ``saved.run`` in ``file``; new ones if the file holds none of this run and shape, or without a
        file."""
        if file is None:
            return cls(saved.run, layers, first, np.zeros((size, 2), np.uint32), np.zeros((size, 2, floats), np.float32))
        header = np.array((MAGIC, saved.run, layers, size, floats), HEADER)
        at_blocks = HEADER.itemsize + 8 * size
        total = at_blocks + 8 * size * floats
        held = file.is_file() and file.stat().st_size == total and file.read_bytes()[: HEADER.itemsize] == header.tobytes()
        if not held:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.unlink(missing_ok=True)
            with file.open("wb") as new:
                new.truncate(total)
                new.write(header.tobytes())
        rounds = np.memmap(file, np.uint32, "r+", HEADER.itemsize, (size, 2))
        return cls(saved.run, layers, first, rounds, np.memmap(file, np.float32, "r+", at_blocks, (size, 2, floats)))

    def load(self, devices: U32, round: int, saved: Saved) -> tuple[F32, U32]:
        """The blocks before ``round``, float32 (devices, floats), NaN where there is none, and their rounds, uint32
        (devices,)."""
        at = devices.astype(np.int64) - self.first
        block, copy = self.rounds[at, 0], self.rounds[at, 1]
        later = block > round  # of a round that an interrupted run repeats
        back = at[later & (copy <= round)]
        self.blocks[back, 0] = self.blocks[back, 1]
        self.rounds[back, 0] = self.rounds[back, 1]
        self.rounds[at[later & (copy > round)], 0] = 0
        safe = at[~later & (block <= saved.rounds)]
        self.blocks[safe, 1] = self.blocks[safe, 0]
        self.rounds[safe, 1] = self.rounds[safe, 0]
        own, rounds = np.array(self.blocks[at, 0]), np.array(self.rounds[at, 0])
        own[rounds == 0] = np.nan
        return own, rounds

    def store(self, devices: U32, round: int, blocks: F32) -> None:
        """Replaces the devices' blocks by those after ``round``."""
        at = devices.astype(np.int64) - self.first
        self.rounds[at, 0] = UNFINISHED
        self.blocks[at, 0] = blocks
        self.rounds[at, 0] = round + 1
