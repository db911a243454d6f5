"""The host's fast kernels are their plain twins, bit for bit, over random networks, for every width of vector."""

import platform

import pytest
from harness import HERE, SANITIZED, compile_once, run, supports

NATIVE = HERE.parents[1] / "simulators" / "native"
AVX512 = ["-mavx512f", "-mavx512dq", "-mavx512vl"]
KERNELS = ['-DTINYFL_KERNELS="kernels.h"', f"-I{NATIVE}", "-include", "unroll.h"]
WIDTHS = {"1": [], "4": []}
if platform.machine() == "x86_64":
    WIDTHS |= {"1 avx2": ["-mavx2"], "8 avx2": ["-mavx2"], "1 avx512": AVX512, "16 avx512": AVX512}


def lines(cc: str, width: str, seed: int, count: int, *flags: str) -> list[str]:
    """What tiles.c prints with plain kernels and, compiled with these flags, with the host's, which must be the same."""
    lanes, _, extension = width.partition(" ")
    if extension and not all(supports(flag[2:]) for flag in WIDTHS[width]):
        pytest.skip(f"this processor has no {extension}")

    def printed(*more: str) -> list[str]:
        program = compile_once(cc, [HERE / "tiles.c"], "-std=c11", f"-DTINYFL_LANES={lanes}", *more)
        return run(program, seed, count).splitlines()

    expected = printed("-O1")
    assert len(expected) == count
    assert printed(*WIDTHS[width], *KERNELS, *flags) == expected
    return expected


def test_fast_kernels_give_the_plain_ones_bits(cc: str) -> None:
    learnt = lines(cc, "4", 1, 150, "-O1")
    assert sum(": 0 " in line for line in learnt) > 100  # the rest fails the guard


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
def test_fast_kernels_give_the_plain_ones_bits_at_every_width(cc: str, width: str) -> None:
    lines(cc, width, 2, 1000, "-O3")


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
def test_fast_kernels_read_and_write_nothing_beyond_their_memory(cc: str, width: str) -> None:
    lines(cc, width, 3, 100, *SANITIZED)
