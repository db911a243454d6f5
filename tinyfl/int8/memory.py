"""Places buffers in one arena: buffers with disjoint lifetimes share bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

ALIGNMENT = 4


@dataclass(frozen=True)
class Buffer:
    """``size`` bytes, live from the op ``first`` that writes it to the op ``last`` that reads it last, both included."""

    size: int
    first: int
    last: int
    over: Mapping[int, int] = field(default_factory=dict)
    """Buffers that this one may overlap, since the op that writes this one is their last reader, mapped to the minimum number
    of bytes by which this one must start earlier: an op that runs through input and output in order no longer needs what it has
    read."""


def place_buffers(buffers: Sequence[Buffer]) -> tuple[list[int], int]:
    """Offset of each buffer, and bytes of the arena. Tries several orders of placement, each buffer at the lowest offset that
    is free during its lifetime, and returns the best."""
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
    """The lowest free offset: the arena's start, or the end of a conflicting buffer."""
    buffer = buffers[i]
    forbidden = sorted(  # ranges of offsets at which the buffer may not begin
        (offsets[j] - _distance(i, j, buffers, size) + 1, offsets[j] + _distance(j, i, buffers, size))
        for j in offsets
        if buffers[j].first <= buffer.last and buffer.first <= buffers[j].last
    )
    lowest = 0
    for begin, end in forbidden:
        if lowest < begin:
            break
        lowest = max(lowest, end)
    return lowest


def _distance(i: int, j: int, buffers: Sequence[Buffer], size: list[int]) -> int:
    """Minimum distance from the start of ``i`` to that of ``j``, if ``i`` begins before ``j``."""
    lead = buffers[i].over.get(j, size[i])
    return min(size[i], _aligned(max(lead, 0)))


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
