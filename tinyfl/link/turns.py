"""Turns on a line that several boards share: its transfers go one after the other, so that one board learns while the line
carries another's weights. Side by side they would all end at once, and the line would then wait for all boards to learn."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Turns:
    """The turns of so many ``boards`` on a line, in each direction: first come, first served."""

    boards: int = 1
    down: asyncio.Lock = field(default_factory=asyncio.Lock)
    up: asyncio.Lock = field(default_factory=asyncio.Lock)


@asynccontextmanager
async def turn(place: asyncio.Lock, clock: asyncio.Timeout) -> AsyncIterator[Callable[[], None]]:
    """Waits for a turn, for which ``clock`` stops. It ends with the body, or earlier when the body calls what it gets: once its
    last request is on its way, so that the next board's follow without a gap."""
    now, deadline = asyncio.get_running_loop().time, clock.when()
    assert deadline is not None
    left = deadline - now()
    clock.reschedule(None)
    await place.acquire()
    clock.reschedule(now() + left)
    ended = False

    def end() -> None:
        nonlocal ended
        if not ended:
            ended = True
            place.release()

    try:
        yield end
    finally:
        end()
