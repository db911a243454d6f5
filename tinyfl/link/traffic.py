"""The bytes of a round on a board's line: messages in CBOR and their frames (firmware/SPEC.md, wire).

A round of a device that learns from samples of its own: the weights go down in blocks, each with an answer; then the order to
learn; and the update comes up in blocks, each upon a request. A simulated device counts as a board in its place.
Frames count as for data without zero bytes, which are at most 0.4 % longer than others; numbers that differ from round to round
count with the four bytes that they may take.
"""

from dataclasses import dataclass

from tinyfl.link import SINE

BUFFER = 1024
"""The longest message of the boards that tinyfl has manifests for, in bytes."""

HEADER, CRC, HASH = 8, 2, 32
READ_MARGIN = 32
"""Bytes that a board leaves for the map around a block of weights (firmware/agent/upload.c)."""

FULL_RUN = 254
"""Bytes without a zero that COBS takes one more byte for."""

WORD, LONG = 5, 9
"""Bytes of a number of 32 and of 64 bits in CBOR."""

TRAIN = ("round", "device", "seed", "run", "saved", "base", "inner", "source")
STATUS = ("state", "round", "base", "done", "loss", "code", "weights", "kept", "stack", "late", "drifts", "wanted")


@dataclass(frozen=True)
class Traffic:
    """Bytes on the line in a round, ``down`` to a device and ``up`` from it, in so many ``exchanges`` of a request and its
    answer."""

    down: int = 0
    up: int = 0
    exchanges: int = 0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.down + other.down, self.up + other.up, self.exchanges + other.exchanges)

    def after(self, request: int, answer: int) -> "Traffic":
        """With an exchange of messages of these sizes. The host begins each frame with a further delimiter."""
        return Traffic(self.down + 1 + _frame(request), self.up + _frame(answer), self.exchanges + 1)


def round_traffic(
    down: int, up: int, inner: bytes, buffer: int = BUFFER, *, encoded: bool = False, onto: int | None = None
) -> dict[str, Traffic]:
    """The traffic of each part of a round (tinyfl.fleet.PARTS), for one device that gets ``down`` bytes of weights and sends
    ``up`` of an update: ``inner`` is the record of its inner loop, and ``buffer`` its longest message, in bytes. The weights
    that go down may be ``encoded``, and be held; ``onto`` are then the bytes that name those which they are a change of."""
    learn = Traffic().after(_order(inner), _status())
    return {"down": _write(down, buffer, encoded, onto), "learn": learn, "up": _read(up, buffer)}


def _write(total: int, buffer: int, encoded: bool, onto: int | None) -> Traffic:
    """The traffic of weights to a device."""
    traffic, off = Traffic(), 0
    form = encoded * (_keys("codec") + 1) + (0 if onto is None else _keys("onto") + _head(onto) + onto)
    while off < total:
        size = _write_block(off, total, 0, form)
        count = min(buffer - size - _head(buffer - size) + 1, total - off)
        traffic = traffic.after(_write_block(off, total, count, form), HEADER + _map("off") + _head(off + count))
        off += count
    return traffic


def _read(total: int, buffer: int) -> Traffic:
    """The traffic of weights from a device."""
    traffic, off = Traffic(), 0
    while off < total:
        count = min(buffer - HEADER - READ_MARGIN, total - off)
        request = HEADER + _map("off") + _head(off)
        traffic = traffic.after(request, request + _keys("len", "data") + _head(total) + _head(count) + count)
        off += count
    return traffic


def _write_block(off: int, total: int, count: int, form: int) -> int:
    """A message with ``count`` bytes of weights; the first also announces their length, their hash, and in ``form`` bytes what
    they are."""
    first = _keys("len", "sha") + _head(total) + _head(HASH) + HASH + form if off == 0 else 0
    return HEADER + _map("off", "data") + _head(off) + first + _head(count) + count


def _order(inner: bytes) -> int:
    source = len(SINE)
    return (
        HEADER + _map(*TRAIN) + 4 * WORD + LONG + _head(HASH) + HASH + _head(len(inner)) + len(inner) + _head(source) + source
    )


def _status() -> int:
    small = 6  # state and code; of a device that keeps nothing, is not late and learns nothing online, a byte each
    return HEADER + _map(*STATUS) + small + 4 * WORD + 2 * (_head(HASH) + HASH)


def _map(*keys: str) -> int:
    return 1 + _keys(*keys)


def _keys(*keys: str) -> int:
    return sum(1 + len(key) for key in keys)


def _head(number: int) -> int:
    """Bytes of a number, or of the length before a text or bytes, in CBOR."""
    return 1 if number < 24 else 2 if number < 1 << 8 else 3 if number < 1 << 16 else WORD


def _frame(message: int) -> int:
    """A message with its checksum in a frame of COBS, and the delimiter."""
    bare = message + CRC
    return bare + 1 + bare // FULL_RUN + 1
