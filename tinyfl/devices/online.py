"""A stream through a board that learns online, over one link."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.core import F32, I32
from tinyfl.errors import ConfigError, DoesNotFit
from tinyfl.link.board import LinkedBoard, floats
from tinyfl.link.online import OnlineBoard, OnlineRecord, cut
from tinyfl.link.wire import Opener
from tinyfl.networks import Network
from tinyfl.online.averages import NamedHead
from tinyfl.online.device import Device
from tinyfl.online.prequential import Course
from tinyfl.online.sets import Head
from tinyfl.online.starts import Start
from tinyfl.system.loop import in_loop

MAX_NAMED = 64
"""Classes or labels of a set on a board."""


@dataclass(frozen=True)
class OnBoard:
    """The number of each sample's class, int32 (samples,), what the board has learnt in the end, and whether it keeps that."""

    numbers: I32
    learnt: bytes
    kept: bool


@dataclass(frozen=True, eq=False)  # arrays do not compare as a whole
class Lesson:
    """What a board is to go through: a set's ``record`` (tinyfl.online.OnlineSet) over the frozen ``network`` with ``theta``,
    None for the inputs themselves, from what is ``learnt`` so far, of ``outputs`` outputs; then samples ``x`` (samples,
    inputs), after each of which the label in its row of ``answers`` comes, a class with one of ``names`` or numbers, for the
    sample ``labelled``, 0 for none. ``heads`` come from averages, after as many samples."""

    record: bytes
    network: Network | None
    theta: F32
    learnt: bytes
    outputs: int
    x: F32
    labelled: NDArray[np.uint32]
    answers: NDArray[Any]
    names: Sequence[str]
    heads: Mapping[int, NamedHead]


def lesson(course: Course) -> Lesson:
    """What the device of ``course`` has gone through, from its beginning."""
    world, device = course.world, course.device
    wanted, due = course.labelled.copy(), world.y[np.maximum(np.arange(len(world)) - course.delay, 0)]
    twin, classifies = Device(device.set, device.start), device.set.head is Head.classes
    outputs, start = twin.core.outputs, device.start
    answers = due.copy() if not classifies else np.zeros(len(due), np.uint32)
    for first, last in pairwise([0, *sorted(course.heads), len(due)] if classifies else []):
        if head := course.heads.get(first):
            twin.take(head)
        answers[first:last] = twin.numbers(wanted[first:last], due[first:last])
    names = [str(name) for name in twin.names] if classifies else []
    return Lesson(
        device.set.record, start.network, start.theta, course.begun, outputs, world.x, wanted, answers, names, course.heads
    )


def stream(lesson: Lesson, opener: Opener, *, keep: bool, anew: bool = True) -> OnBoard:
    """Takes the board behind ``opener`` through the lesson; ``keep`` commits network and what is learnt, where it has a store.
    ``anew`` drops what the board has learnt online before.

    Raises ConfigError for more than 64 classes, and unless ``anew`` for a board that has learnt, DoesNotFit for a board that
    is too small, and the errors of a link.
    """
    if len(lesson.names) > MAX_NAMED:
        raise ConfigError(f"the stream has {len(lesson.names)} classes; a board has at most {MAX_NAMED}. Give --places 64.")
    return in_loop(_stream(lesson, opener, keep, anew))


def network_hash(start: Start) -> bytes:
    """What a set's record has of the network that it is over; zeros for none."""
    return bytes(32) if start.network is None else sha256(floats(start.theta)).digest()


async def put_network(board: LinkedBoard, net: Network, theta: F32) -> bytes:
    """Puts the frozen network there, and returns its hash. Raises DoesNotFit if the board is too small."""
    described = board.description
    if net.arena_bytes() > described.arena:
        raise DoesNotFit(
            f"the network needs {net.arena_bytes():,} bytes of RAM; board {described.id.hex()} ({described.board}) has "
            f"{described.arena:,}. Use a smaller network, or a larger board."
        )
    await board.put_plan(net.plan.bytes)
    await board.put_weights(theta)
    return sha256(floats(theta)).digest()


async def _stream(lesson: Lesson, opener: Opener, keep: bool, anew: bool) -> OnBoard:
    board = await LinkedBoard.connect(opener)
    try:
        online, net, described = OnlineBoard(board), lesson.network, board.description
        if (learnt := (await online.watched()).samples) and not anew:
            raise ConfigError(f"board {described.id.hex()} has learnt from {learnt:,} samples. To drop that, give --anew.")
        await online.forget()
        sha = bytes(32) if net is None else await put_network(board, net, lesson.theta)
        await online.start(OnlineRecord("inputs" if net is None else "learner", sha, lesson.record, lesson.outputs))
        await online.put_back(lesson.learnt)
        numbers = np.zeros(len(lesson.x), np.int32)
        for row, (x, sample, answer) in enumerate(zip(lesson.x, lesson.labelled.tolist(), lesson.answers, strict=True)):
            numbers[row] = (await online.sample(x)).label
            if sample and lesson.names:
                await online.label(sample, int(answer), cut(lesson.names[int(answer)]))
            elif sample:
                await online.label(sample, np.asarray(answer, np.float32))
            if head := lesson.heads.get(row + 1):
                await online.put_head([str(name) for name in head.names], head.weights)
        kept = keep and described.areas > 0
        if kept and net is not None:
            await board.commit(sha)
        if kept:
            await online.commit()
        return OnBoard(numbers, await online.learnt(), kept)
    finally:
        await board.close()
