"""The heads of connected boards that learn online, averaged by class name: read from all, then written to all."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from tinyfl.devices.connected import explained, reach
from tinyfl.devices.ports import Port, port
from tinyfl.errors import ConfigError, LinkError
from tinyfl.link.board import LinkedBoard
from tinyfl.link.online import OnlineBoard
from tinyfl.online.averages import NamedHead, averaged
from tinyfl.system.loop import every, in_loop


@dataclass(frozen=True)
class Averaged:
    """A board's port and id, the classes of its head now, how many of them it got from other boards, whether it keeps the head
    over power loss, and why it does not have it, if so."""

    port: str
    id: str
    classes: tuple[str, ...]
    new: int
    kept: bool
    failed: str = ""


def average(urls: Sequence[str], *, baud: int = 0, keep: bool = False) -> list[Averaged]:
    """Averages the heads of the boards at the ports ``urls``; ``keep`` commits, where there is a store. Names and weights of
    heads are all that leaves a board. A board that fails after all heads were read does not stop the others.

    Raises ConfigError for fewer than two boards or a board that learns nothing online, LinkError for one that does not answer.
    """
    if len(set(urls)) < 2:
        raise ConfigError("an average takes two boards or more. Give the port of each.")
    return in_loop(_average([port(url, baud) for url in urls], keep))


async def _average(ports: Sequence[Port], keep: bool) -> list[Averaged]:
    boards = list[LinkedBoard]()
    try:
        for each in ports:
            boards.append((await reach(each))[0])
        heads = await every(map(_head, boards))
        now = averaged(heads)
        rows = zip(ports, boards, heads, now, strict=True)
        return await every(_give(*row, keep) for row in rows)
    finally:
        await every(board.close() for board in boards)


async def _head(board: LinkedBoard) -> NamedHead:
    """A board's head; a class without a name goes by its number, and a head that has learnt nothing has no class."""
    online = OnlineBoard(board)
    watched = await online.watched()
    if not watched.outputs:
        raise ConfigError(
            f"board {board.description.id.hex()} learns nothing online. Give it a set: tinyfl online RUN --on port:PORT"
        )
    names, weights = await online.head()
    if not any(names) and not weights.any():
        return NamedHead(weights[:, :0], (), watched.places)
    return NamedHead(weights, tuple(name or number for number, name in enumerate(names)), watched.places)


async def _give(at: Port, board: LinkedBoard, before: NamedHead, now: NamedHead, keep: bool) -> Averaged:
    online, id, kept = OnlineBoard(board), board.description.id.hex(), False
    try:
        if now.names:
            await online.put_head([_text(name) for name in now.names], now.weights)
        if keep and board.description.areas:
            await online.commit()
            kept = True
    except LinkError as error:
        return Averaged(at.url, id, (), 0, False, explained(at, error))
    return Averaged(at.url, id, tuple(map(str, now.names)), len(now.names) - len(before.names), kept)


def _text(name: Hashable) -> str:
    return name if isinstance(name, str) else ""
