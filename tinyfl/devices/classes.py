"""A device's classes on its board: samples enrolled as class means, and inputs classified, over one link."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from tinyfl.core import F32, I32
from tinyfl.errors import ConfigError, DoesNotFit
from tinyfl.link.board import LinkedBoard, floats
from tinyfl.link.classes import MAX_CLASSES, MAX_NAME, Classes, ClassSet
from tinyfl.link.wire import Opener
from tinyfl.networks import Network
from tinyfl.system.loop import in_loop

UNKNOWN = -1


@dataclass(frozen=True)
class OnBoard:
    """The class of each query, int32 (queries,), UNKNOWN for none; and whether the board keeps its classes over power loss."""

    numbers: I32
    kept: bool


def enrol(
    network: Network, theta: F32, support: F32, labels: I32, names: Sequence[str], query: F32, opener: Opener, *, keep: bool
) -> OnBoard:
    """Puts ``network`` with ``theta`` on the board behind ``opener``, enrols ``support`` (samples, inputs), of the classes
    ``labels``, whose ``names`` are cut to 16 bytes, and classifies ``query`` (queries, inputs). ``keep`` commits network and
    classes, where the board has a store.

    Raises ConfigError for more than 64 classes, DoesNotFit for a board that is too small, and the errors of a link.
    """
    if len(names) > MAX_CLASSES:
        raise ConfigError(
            f"the data have {len(names)} classes; a board has at most {MAX_CLASSES}. Leave classes out of the file."
        )
    return in_loop(_enrol(network, theta, support, labels, names, query, opener, keep))


async def _enrol(
    network: Network, theta: F32, support: F32, labels: I32, names: Sequence[str], query: F32, opener: Opener, keep: bool
) -> OnBoard:
    board = await LinkedBoard.connect(opener)
    try:
        described = board.description
        if network.arena_bytes() > described.arena:
            raise DoesNotFit(
                f"the network needs {network.arena_bytes():,} bytes of RAM; board {described.id.hex()} ({described.board}) has "
                f"{described.arena:,}. Use a smaller network, or a larger board."
            )
        classes = Classes(board)
        await classes.forget()
        await board.put_plan(network.plan.bytes)
        await board.put_weights(theta)
        sha = sha256(floats(theta)).digest()
        how, counts = network.prepared, [0] * len(names)
        await classes.start(ClassSet("learner", sha, len(names), centre=how.centre, normalised=how.normalised))
        for x, label in zip(support, labels.tolist(), strict=True):
            name = names[label].encode()[:MAX_NAME].decode(errors="ignore")
            counts[label] = await classes.enrol(label, x, name, counts[label])
        kept = keep and described.areas > 0
        if kept:
            await board.commit(sha)
            await classes.commit()
        return OnBoard(await _classified(classes, query), kept)
    finally:
        await board.close()


def classify(x: F32, opener: Opener) -> tuple[I32, list[str]]:
    """The class of each of ``x`` (samples, inputs) by the classes on the board behind ``opener``, UNKNOWN for none, and the
    names of its classes by number.

    Raises ConfigError for a board without classes, and the errors of a link.
    """
    return in_loop(_classify(x, opener))


async def _classify(x: F32, opener: Opener) -> tuple[I32, list[str]]:
    board = await LinkedBoard.connect(opener)
    try:
        classes = Classes(board)
        held = {each.number: each.name for each in await classes.held()}
        if not held:
            raise ConfigError(
                f"board {board.description.id.hex()} has no classes. Enrol some: tinyfl adapt RUN --data FILE --on port:PORT"
            )
        return await _classified(classes, x), [held.get(number, "") for number in range(max(held) + 1)]
    finally:
        await board.close()


async def _classified(classes: Classes, x: F32) -> I32:
    found = [await classes.classify(row) for row in x]
    return np.array([UNKNOWN if each.number is None else each.number for each in found], np.int32)
