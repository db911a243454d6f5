"""Online learning on a board: a head that learns from one sample after another (firmware/SPEC.md, online)."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tinyfl.core import F32
from tinyfl.errors import Corrupt, Refused, Stale
from tinyfl.errors.words import plain
from tinyfl.link.board import ANSWER_SECONDS, WORK_SECONDS, LinkedBoard, floats
from tinyfl.link.messages import online as messages

OnlineStage = Literal["learner", "program", "inputs"]
STAGES: tuple[OnlineStage, ...] = ("learner", "program", "inputs")

HEADER, SET_BYTES = "<3I32s", 48
"""Of a set's record: what is before the set, and the set (firmware/SPEC.md, online)."""

MAX_NAME = 16
"""Bytes of a class's name in UTF-8."""


def cut(name: str) -> str:
    """A class's name, as a board has it."""
    return name.encode()[:MAX_NAME].decode(errors="ignore")


def _names(data: bytes, count: int) -> list[str]:
    parts = (data[MAX_NAME * place : MAX_NAME * (place + 1)] for place in range(count))
    return [part.rstrip(b"\0").decode(errors="replace") for part in parts]


@dataclass(frozen=True)
class OnlineRecord:
    """What a board is to do: the record of a ``set`` (tinyfl.online.OnlineSet), over the ``stage``, whose weights or content
    have the SHA-256 ``sha``, none for inputs, from ``outputs`` outputs. ``every`` samples it commits by itself; 0: on
    request."""

    stage: OnlineStage
    sha: bytes
    set: bytes
    outputs: int
    every: int = 0

    @property
    def record(self) -> bytes:
        """Its bytes on the wire and in the store."""
        return struct.pack(HEADER, STAGES.index(self.stage), self.outputs, self.every, self.sha) + self.set

    @classmethod
    def read(cls, record: bytes) -> "OnlineRecord":
        """The same from its bytes. Raises Corrupt for others."""
        size = struct.calcsize(HEADER)
        if len(record) != size + SET_BYTES or record[0] >= len(STAGES) or any(record[1:4]):
            raise Corrupt("the record of the board's set cannot be read.")
        stage, outputs, every, sha = struct.unpack(HEADER, record[:size])
        return cls(STAGES[stage], sha, record[size:], outputs, every)


@dataclass(frozen=True)
class Said:
    """What a board says of a sample at once: its ``number``, which a label gives again; the number and name of its class; how
    sure it is; and an anomaly score, with whether the board learnt from it."""

    number: int
    label: int
    name: str
    confidence: float
    score: float
    learnt: bool


@dataclass(frozen=True)
class Watched:
    """The monitor: the number of the last sample, of labels that came, the running confidence and error, the alarms and the
    number of the sample at the last one; a sample whose label is ``wanted``, since the board was unsure (0: none); the
    ``source`` from which the board learns by itself, empty without one, and what became of its last sample, ``code``; and the
    outputs of at most ``places``, with the labels and the name of each."""

    samples: int
    labels: int
    confidence: float
    error: float
    drifts: int
    drifted: int
    wanted: int
    source: str
    code: int
    outputs: int
    places: int
    counts: tuple[int, ...]
    names: tuple[str, ...]


class OnlineBoard:
    """The online learning of ``board``. All methods may raise LinkError: Stale if the board's weights or program are no longer
    those of the set, and for a label of a sample that the board no longer has."""

    def __init__(self, board: LinkedBoard) -> None:
        self._board, self._number = board, 0

    async def start(self, of: OnlineRecord) -> None:
        """Starts a set that has learnt nothing, unless the board has just this one; any other, and class means, are dropped.

        Raises Refused if the board has no such stage, or no room for the set.
        """
        described = self._board.description
        if of.stage not in described.online:
            raise Refused(f"board {described.id.hex()} does not learn online. Flash it with the firmware of this version.")
        await self._board.put(messages.OnlineWrite, of.record, WORK_SECONDS)
        self._number = (await self.watched()).samples

    async def record(self) -> OnlineRecord | None:
        """What it is to do; None without a set. Raises Refused if its firmware is too old to say so."""
        state = await self._board.request(messages.OnlineRead(sequence=self._board.next(), first=0), ANSWER_SECONDS)
        if state.set and not state.record:
            raise Refused("the board's firmware does not say how it learns. Flash it with the firmware of this version.")
        return OnlineRecord.read(state.record) if state.record else None

    async def watched(self) -> Watched:
        """What the monitor says."""
        counts, names, first = list[int](), list[str](), 0
        while True:
            part = await self._board.request(messages.OnlineRead(sequence=self._board.next(), first=first), ANSWER_SECONDS)
            if len(part.counts) != len(part.names) or (part.next <= first and part.next < part.outputs):
                raise Corrupt("the board's list of outputs cannot be read.")
            counts, names, first = [*counts, *part.counts], [*names, *map(plain, part.names)], part.next
            if first >= part.outputs:
                return Watched(
                    part.samples, part.labels, part.confidence, part.error, part.drifts, part.drifted, part.wanted,
                    plain(part.source), part.code, part.outputs, part.places, tuple(counts), tuple(names),
                )  # fmt: skip

    async def sample(self, x: F32 | bytes) -> Said:
        """One sample: ``x`` float32 (inputs,), or a program's raw input."""
        data, number = floats(x) if isinstance(x, np.ndarray) else x, self._number
        reply = await self._board.blocks(lambda **at: messages.Sample(number=number, **at), data, WORK_SECONDS)
        if reply.number is None or reply.confidence is None or reply.score is None:
            raise Refused(f"{len(data):,} bytes are not one sample of the board's set. Give exactly one x.")
        self._number = reply.number
        return Said(reply.number, reply.label or 0, plain(reply.name or ""), reply.confidence, reply.score, bool(reply.learnt))

    async def label(self, sample: int, label: int | F32, name: str | None = None) -> float:
        """The label of a sample, by its number: a class, which a ``name`` names, or numbers (outputs,). The loss before the
        step."""
        if name is not None and len(name.encode()) > MAX_NAME:
            raise Refused(f"the name {plain(name)!r} has more than {MAX_NAME} bytes. Give a shorter one.")
        answer = {"label": label} if isinstance(label, int) else {"data": floats(label)}
        request = messages.Label(sequence=self._board.next(), sample=sample, name=name, **answer)
        return float((await self._board.request(request, WORK_SECONDS)).loss)

    async def forget(self, number: int | None = None) -> int:
        """Removes output ``number``, or drops the set; the outputs left."""
        outputs = None if number is None else (await self.watched()).outputs
        request = messages.ForgetOutput(sequence=self._board.next(), number=number, outputs=outputs)
        return (await self._board.request(request, ANSWER_SECONDS)).outputs

    async def learnt(self) -> bytes:
        """What the board has learnt, in SPEC.md's bytes."""
        first = await self._board.request(messages.LearntRead(sequence=self._board.next(), off=0), ANSWER_SECONDS)
        return await self._board.read(messages.LearntRead, first.data, first.len, WORK_SECONDS)

    async def put_back(self, learnt: bytes) -> None:
        """Makes it what the board has learnt."""
        await self._board.put(messages.LearntWrite, learnt, WORK_SECONDS)
        self._number = (await self.watched()).samples

    async def head(self) -> tuple[tuple[str, ...], F32]:
        """The names of its outputs, empty where it has none, and the weights, float32 (size + 1, outputs): all that leaves a
        board for an average.

        Raises Stale if a class came or went meanwhile.
        """
        watched = await self.watched()
        first = await self._board.request(messages.HeadRead(sequence=self._board.next(), off=0), ANSWER_SECONDS)
        data = await self._board.read(messages.HeadRead, first.data, first.len, WORK_SECONDS)
        names = tuple(plain(name) for name in _names(data, len(watched.names)))
        if names != watched.names or not watched.outputs or len(data) % (4 * watched.outputs):
            raise Stale("the board's classes changed while its head was read. Try again.")
        weights = np.frombuffer(data[MAX_NAME * len(names) :], "<f4").astype(np.float32)
        return names or ("",) * watched.outputs, weights.reshape(-1, watched.outputs)

    async def put_head(self, names: Sequence[str], weights: F32) -> None:
        """Makes these its head; statistics and counts stay. The first ``names`` are those that it has; they are cut to 16
        bytes, and empty for outputs without any.

        Raises Stale if the board has other classes by now.
        """
        blocks = [cut(name).encode().ljust(MAX_NAME, b"\0") for name in names] if (await self.watched()).names else []
        await self._board.put(messages.HeadWrite, b"".join(blocks) + floats(weights), WORK_SECONDS)

    async def listen(self, source: str, samples: int = 0, labels: bool = False) -> int:
        """Lets it learn from its own ``source`` by itself, from now on or for so many ``samples``, and from the source's
        ``labels`` too; empty: from none. A commit keeps the first kind over power loss. The number of the last sample.

        Raises Refused for a source that it does not have, or whose samples do not fit the set.
        """
        request = messages.Listen(sequence=self._board.next(), source=source, samples=samples, labels=int(labels))
        return (await self._board.request(request, WORK_SECONDS)).samples

    async def commit(self) -> int:
        """Keeps what is learnt over power loss; the number of the store's commit.

        Raises Refused for a board without a store, or if its flash could not be written.
        """
        self._board.description.demand_store("what it learns: that lasts")
        return (await self._board.request(messages.OnlineCommit(sequence=self._board.next()), WORK_SECONDS)).commits

    async def roll_back(self) -> int:
        """Returns to the last commit; the number of the last sample then."""
        self._number = (
            await self._board.request(messages.RollBack(sequence=self._board.next()), WORK_SECONDS)
        ).samples  # fmt: skip
        return self._number
