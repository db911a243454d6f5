"""Classes on a board: class means whose samples come and go while it runs (firmware/SPEC.md, classes)."""

import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tinyfl.core import F32
from tinyfl.errors import Corrupt, Refused
from tinyfl.errors.words import plain
from tinyfl.link.board import ANSWER_SECONDS, WORK_SECONDS, LinkedBoard, floats
from tinyfl.link.messages import classes as messages

Stage = Literal["learner", "program"]
STAGES: tuple[Stage, ...] = ("learner", "program")

MAX_CLASSES = 64
MAX_NAME = 16
"""Bytes of a class's name in UTF-8."""


@dataclass(frozen=True)
class ClassSet:
    """What a board's class means are of. ``stage`` gives the embedding: the learner's network, or the int8 program, whose
    weights or content have the SHA-256 ``sha``. There are up to ``places`` classes, 1 to 64. ``centre``, float32 (size,), is
    subtracted from each embedding, which is then scaled to norm 1 if ``normalised``. A sample is of no class if the squared
    distance to the nearest is above ``threshold``."""

    stage: Stage
    sha: bytes
    places: int
    threshold: float = float("inf")
    centre: F32 | None = None
    normalised: bool = False

    @property
    def record(self) -> bytes:
        """Its bytes on the wire and in the store."""
        flags = (self.centre is not None) | self.normalised << 1
        head = struct.pack("<3If32s", STAGES.index(self.stage), flags, self.places, self.threshold, self.sha)
        return head + (b"" if self.centre is None else floats(self.centre))


@dataclass(frozen=True)
class Enrolled:
    """A class on a board, with the ``count`` of its samples and its name, which may be empty."""

    number: int
    count: int
    name: str


@dataclass(frozen=True)
class Nearest:
    """The class nearest to a sample, None if it is unknown or there is none, and the squared distance to its mean."""

    number: int | None
    distance: float
    name: str


class Classes:
    """The class means of ``board``. A sample is ``x``, float32 (inputs,), for a network, and the raw input for a program. All
    methods may raise LinkError; Stale if the board's weights or program are no longer those of the set."""

    def __init__(self, board: LinkedBoard) -> None:
        self._board = board

    async def start(self, of: ClassSet) -> None:
        """Starts a set without classes, unless the board has just this set; any other is dropped.

        Raises Refused if the board has no such embedding, or no room for the set.
        """
        described = self._board.description
        if of.stage not in described.classes:
            raise Refused(f"board {described.id.hex()} has no classes. Flash it with the firmware of this version.")
        await self._board.put(messages.ClassesWrite, of.record, WORK_SECONDS)

    async def held(self) -> list[Enrolled]:
        """The classes that have samples, by number."""
        return [each async for each in self._parts()]

    async def _parts(self) -> AsyncIterator[Enrolled]:
        first, places = 0, 1
        while first < places:
            request = messages.ClassesRead(sequence=self._board.next(), first=first)
            part = await self._board.request(request, ANSWER_SECONDS)
            lengths = {len(part.numbers), len(part.counts), len(part.names)}
            if len(lengths) != 1 or (part.next <= first and part.next < part.places):
                raise Corrupt("the board's list of classes cannot be read.")
            for number, count, name in zip(part.numbers, part.counts, part.names, strict=True):
                yield Enrolled(number, count, plain(name))
            first, places = part.next, part.places

    async def enrol(self, number: int, x: F32 | bytes, name: str | None = None, count: int | None = None) -> int:
        """Adds a sample to class ``number``, which a ``name`` renames; the class's samples then. ``count`` are those before,
        where the caller knows them."""
        if name is not None and len(name.encode()) > MAX_NAME:
            raise Refused(f"the name {plain(name)!r} has more than {MAX_NAME} bytes. Give a shorter one.")
        if count is None:
            count = next((each.count for each in await self.held() if each.number == number), 0)
        reply = await self._board.blocks(
            lambda **at: messages.Enrol(number=number, count=count, name=name, **at), _bytes(x), WORK_SECONDS
        )
        if reply.count is None:
            raise Refused(f"{len(_bytes(x)):,} bytes are not one sample of the board's embedding. Give exactly one x.")
        return int(reply.count)

    async def classify(self, x: F32 | bytes) -> Nearest:
        """The class nearest to a sample."""
        reply = await self._board.blocks(messages.Classify, _bytes(x), WORK_SECONDS)
        if reply.number is None or reply.distance is None:
            raise Refused(f"{len(_bytes(x)):,} bytes are not one sample of the board's embedding. Give exactly one x.")
        return Nearest(None if reply.number < 0 else reply.number, reply.distance, plain(reply.name or ""))

    async def forget(self, number: int | None = None) -> int:
        """Forgets class ``number``, or all classes and the set; the number of classes left."""
        request = messages.Forget(sequence=self._board.next(), number=number)
        return (await self._board.request(request, ANSWER_SECONDS)).left

    async def commit(self) -> int:
        """Keeps the classes over power loss; the number of the store's commit.

        Raises Refused for a board without a store, or if its flash could not be written.
        """
        self._board.description.demand_store("classes: they last")
        request = messages.ClassesCommit(sequence=self._board.next())
        return (await self._board.request(request, WORK_SECONDS)).commits


def _bytes(x: F32 | bytes) -> bytes:
    return floats(x) if isinstance(x, np.ndarray) else x
