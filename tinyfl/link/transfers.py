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


Step = Callable[[], None]


def nothing() -> None:
    """Does nothing."""


class Requester(Protocol):
    """What a transfer needs of a board."""

    def next(self) -> int:
        """The next request's sequence number."""

    async def send(self, request: Any) -> None:
        """Sends a request, without waiting for its reply."""

    async def request(self, request: Any, within: float, behind: deque[Any] | None = None) -> Any:
        """The reply to ``request``, which was sent already if ``behind``, the requests sent after it, is given."""


class Window:
    """Requests on their way to a board, at most ``size``. ``on_last`` is called when the last of a transfer is."""

    def __init__(self, board: Requester, size: int = 1, on_last: Step = nothing) -> None:
        self._board, self._size, self._on_last = board, size, on_last
        self.sent: deque[Any] = deque()

    @property
    def free(self) -> bool:
        return len(self.sent) < self._size

    def next(self) -> int:
        """The next request's sequence number."""
        return self._board.next()

    async def send(self, request: Any, last: bool) -> None:
        """Sends a request, maybe the ``last`` of its transfer."""
        self.sent.append(request)
        await self._board.send(request)
        if last:
            self._on_last()

    async def reply(self, within: float) -> Any:
        """The reply to the oldest request. If it was lost, ``sent`` is empty afterwards."""
        return await self._board.request(self.sent.popleft(), within, behind=self.sent)


async def write(flight: Window, block: Callable[..., Any], room: Callable[[int], int], data: bytes, within: float) -> Any:
    """Sends ``data`` in requests ``block``, each with the ``room`` bytes that fit at its offset, continuing where the board
    expects them. Every reply may take ``within`` seconds. Returns the last one.

    Raises Corrupt for a board that makes no progress."""
    sent, setbacks = 0, 0
    while True:
        while flight.free and (sent < len(data) or not flight.sent):
            part = data[sent : sent + room(sent)]
            request = block(sequence=flight.next(), off=sent, data=part)
            sent += len(part)
            await flight.send(request, last=sent == len(data))
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
    flight: Window, block: Callable[..., Any], buffer: int, within: float, first: bytes = b"", size: int | None = None
) -> bytes:
    """Reads data by requests ``block``, after those in ``first``, from a board whose messages have up to ``buffer`` bytes;
    ``size`` is the total length, if known. Every reply may take ``within`` seconds.

    Raises Corrupt for a board that sends other bytes than requested, or too many."""
    received, asked, stride = bytearray(first), len(first), buffer - HEADER - READ_MARGIN
    while size is None or len(received) < size:
        while flight.free and (not flight.sent or (size is not None and asked < size)):
            request = block(sequence=flight.next(), off=asked)
            asked += stride
            await flight.send(request, last=size is not None and asked >= size)
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
