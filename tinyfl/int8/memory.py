"""Where buffers lie in one arena: those that are never needed at the same time share bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

ALIGNMENT = 4


@dataclass(frozen=True)
class Buffer:
    """``size`` bytes, needed from the op that writes it, ``first``, to the last that reads it, both included."""

    size: int
    first: int
    last: int
    over: Mapping[int, int] = field(default_factory=dict)
    """Buffers that the op which writes this one is the last to read, and over which it may lie: it then starts at least so many
    bytes before, since an op that goes through its input and output in order leaves behind it what it has read."""


def place_buffers(buffers: Sequence[Buffer]) -> tuple[list[int], int]:
    """The offset of each buffer, and the bytes of the arena. The best of a few orders in which buffers are placed, each at the
    lowest place that is free for as long as it is needed."""
    size = [_aligned(buffer.size) for buffer in buffers]
    span = [buffer.last - buffer.first for buffer in buffers]
    numbers = range(len(buffers))
    orders = (
        sorted(numbers, key=lambda i: (-size[i], -i)),
        sorted(numbers, key=lambda i: (-size[i], i)),
        sorted(numbers, key=lambda i: (-span[i], -size[i], i)),
        sorted(numbers, key=lambda i: (-size[i] * (span[i] + 1), i)),
        sorted(numbers, key=lambda i: (buffers[i].first, -size[i])),
        sorted(numbers, key=lambda i: (-buffers[i].last, -size[i])),
    )
    return min((_placed(buffers, size, order) for order in orders), key=lambda placed: placed[1])


def _placed(buffers: Sequence[Buffer], size: list[int], order: list[int]) -> tuple[list[int], int]:
    offsets: dict[int, int] = {}
    for i in order:
        offsets[i] = _lowest(i, buffers, size, offsets)
    return [offsets[i] for i in range(len(buffers))], max((offsets[i] + size[i] for i in offsets), default=0)


def _lowest(i: int, buffers: Sequence[Buffer], size: list[int], offsets: dict[int, int]) -> int:
    """The lowest place that is free among the ends of those in the way and the arena's start."""
    mine = buffers[i]
    forbidden = sorted(  # from where, and up to where, this one may not begin
        (offsets[j] - _room(i, j, buffers, size) + 1, offsets[j] + _room(j, i, buffers, size))
        for j in offsets
        if buffers[j].first <= mine.last and mine.first <= buffers[j].last
    )
    lowest = 0
    for begin, end in forbidden:
        if lowest < begin:
            break
        lowest = max(lowest, end)
    return lowest


def _room(i: int, j: int, buffers: Sequence[Buffer], size: list[int]) -> int:
    """How far before ``j`` ``i`` must begin, if it does so at all."""
    lead = buffers[i].over.get(j, size[i])
    return min(size[i], _aligned(max(lead, 0)))


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
