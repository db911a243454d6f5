"""Buffers share an arena without harm."""

from itertools import pairwise, product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyfl.int8.memory import Buffer, place_buffers
from tinyfl.int8.program import Window
from tinyfl.int8.windows import _lead


@st.composite
def buffers(draw: st.DrawFn) -> list[Buffer]:
    made: list[Buffer] = []
    for first in sorted(draw(st.lists(st.integers(0, 12), min_size=1, max_size=14))):
        ending = [i for i, b in enumerate(made) if b.last == first and b.first < first]
        over = {i: draw(st.integers(-8, 80)) for i in ending if draw(st.booleans())}
        made.append(Buffer(draw(st.integers(1, 100)), first, first + draw(st.integers(0, 4)), over))
    return made


@settings(max_examples=300)
@given(buffers())
def test_no_two_that_are_needed_together_share_a_byte(made: list[Buffer]) -> None:
    offsets, total = place_buffers(made)
    for i, (a, at) in enumerate(zip(made, offsets, strict=True)):
        assert at % 4 == 0
        assert 0 <= at <= at + a.size <= total
        for j, (b, other) in enumerate(zip(made, offsets, strict=True)):
            apart = at + a.size <= other or other + b.size <= at
            together = a.first <= b.last and b.first <= a.last
            allowed = (j in a.over and other - at >= a.over[j]) or (i in b.over and at - other >= b.over[i])
            assert i == j or apart or not together or allowed
    assert max(b.size for b in made) <= total <= sum(-(-b.size // 4) * 4 for b in made)


def test_a_chain_takes_its_two_largest_neighbours() -> None:
    sizes = [100, 40, 60, 8, 120, 4]
    chain = [Buffer(size, i - 1, i) for i, size in enumerate(sizes)]
    assert place_buffers(chain)[1] == max(a + b for a, b in pairwise(sizes))


_PAIRS = st.tuples(st.integers(1, 4), st.integers(1, 4))


@settings(max_examples=300)
@given(
    st.tuples(st.integers(1, 7), st.integers(1, 7)), _PAIRS, _PAIRS, _PAIRS, st.booleans(), st.integers(1, 3), st.integers(1, 3)
)
def test_an_output_over_its_input_never_covers_what_is_still_read(
    inside: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    same: bool,
    depth: int,
    count: int,
) -> None:
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    if not same and any(r > n for r, n in zip(reach, inside, strict=True)):
        same = True
    out = [-(-(n if same else n - r + 1) // s) for n, r, s in zip(inside, reach, stride, strict=True)]
    pad = [max((o - 1) * s + r - n, 0) // 2 if same else 0 for o, s, r, n in zip(out, stride, reach, inside, strict=True)]
    window = Window(inside, (out[0], out[1]), kernel, stride, dilation, (pad[0], pad[1]), depth, count, depth, count)

    reads = []  # of each output pixel in order: the first byte of its input that it needs
    for pixel in product(range(out[0]), range(out[1])):
        taps = [
            [p * s - b + k * d for k in range(taken)]
            for p, s, b, d, taken in zip(pixel, stride, pad, dilation, kernel, strict=True)
        ]
        inner = [(y * inside[1] + x) * depth for y, x in product(*taps) if 0 <= y < inside[0] and 0 <= x < inside[1]]
        reads.append(min(inner, default=1 << 30))
    needed = max((i + 1) * count - min(reads[i:]) for i in range(len(reads)))
    assert needed <= _lead(window)
    if max(dilation) == 1:
        assert needed == _lead(window)
    assert np.iinfo(np.int32).max > _lead(window)
