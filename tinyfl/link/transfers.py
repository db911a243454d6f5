"""Transfers in blocks, with several requests on their way before the first reply: a line with latency stays in use.

A board answers in order. If a later request is answered first, or none in time, then the oldest or its reply was lost: it is
repeated, and so is what came after it (go-back-N). Every request can be repeated safely (firmware/SPEC.md, order).
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from tinyfl.errors import Corrupt
from tinyfl.link.traffic import HEADER, READ_MARGIN

SETBACKS = 8
"""Maximum replies without progress in a transfer."""

MAX_BYTES = 4 << 24
"""Maximum bytes of weights in any plan."""


class Requester(Protocol):
    """What a transfer needs of a board."""

    def next(self) -> int:
        """The next request's sequence number."""

    async def send(self, request: Any) -> None:
        """Sends a request, without waiting for its reply."""

    async def request(self, request: Any, within: float, behind: deque[Any] | None = None) -> Any:
        """The reply to ``request``, which was sent already if ``behind``, the requests sent after it, is given."""


class Window:
    """Requests on their way to a board, at most ``size``."""

    def __init__(self, board: Requester, size: int) -> None:
        self._board, self._size = board, size
        self.sent: deque[Any] = deque()

    @property
    def free(self) -> bool:
        return len(self.sent) < self._size

    async def send(self, request: Any) -> None:
        self.sent.append(request)
        await self._board.send(request)

    async def reply(self, within: float) -> Any:
        """The reply to the oldest request. If it was lost, ``sent`` is empty afterwards."""
        return await self._board.request(self.sent.popleft(), within, behind=self.sent)


async def write(
    board: Requester, block: Callable[..., Any], room: Callable[[int], int], data: bytes, within: float, window: int = 1
) -> Any:
    """Sends ``data`` in requests ``block``, each with the ``room`` bytes that fit at its offset, continuing where the board
    expects them. Every reply may take ``within`` seconds. Returns the last one.

    Raises Corrupt for a board that makes no progress."""
    flight, sent, setbacks = Window(board, window), 0, 0
    while True:
        while flight.free and (sent < len(data) or not flight.sent):
            count = room(sent)
            await flight.send(block(sequence=board.next(), off=sent, data=data[sent : sent + count]))
            sent = min(sent + count, len(data))
        oldest = flight.sent[0]
        reply = await flight.reply(within)
        if reply.off == len(data):
            return reply
        setbacks += reply.off <= oldest.off
        if not 0 <= reply.off < len(data) or setbacks >= SETBACKS:
            raise Corrupt(f"sent bytes from offset {oldest.off} of {len(data)}, but the board continues at {reply.off}.")
        if reply.off != oldest.off + len(oldest.data):
            flight.sent.clear()
        if not flight.sent:
            sent = reply.off


async def read(
    board: Requester, block: Callable[..., Any], buffer: int, within: float, first: bytes, size: int | None, window: int = 1
) -> bytes:
    """Reads data by requests ``block``, after those in ``first``, from a board whose messages have up to ``buffer`` bytes;
    ``size`` is the total length, if known. Every reply may take ``within`` seconds.

    Raises Corrupt for a board that sends other bytes than requested, or too many."""
    received, flight = bytearray(first), Window(board, window)
    asked, stride = len(first), buffer - HEADER - READ_MARGIN
    while size is None or len(received) < size:
        while flight.free and (not flight.sent or (size is not None and asked < size)):
            await flight.send(block(sequence=board.next(), off=asked))
            asked += stride
        part = await flight.reply(within)
        if part.off != len(received) or not part.data:
            raise Corrupt(f"requested bytes from offset {len(received)}, got {len(part.data)} bytes from {part.off}.")
        if part.len > MAX_BYTES:
            raise Corrupt(f"the board reports a length of {part.len:,} bytes, above the maximum of {MAX_BYTES:,}.")
        received += part.data
        if part.len != size or (flight.sent and flight.sent[0].off != len(received)):
            flight.sent.clear()
        if not flight.sent:
            asked, stride = len(received), len(part.data)
        size = part.len
    return bytes(received)
