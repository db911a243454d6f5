"""memcpy and its kin of the Cortex-M ports, run on the host under names of their own and held to Python's slices."""

import ctypes
from pathlib import Path
from typing import Any

import harness
import pytest
from hypothesis import given
from hypothesis import strategies as st

NAMES = ("memcpy", "memmove", "memset", "memcmp")
SIZE = 64


@pytest.fixture(scope="module")
def memory(cc: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    library: Path = tmp_path_factory.mktemp("memory") / "memory.so"
    source = harness.CORE.parent / "ports" / "cortex_m" / "memory.c"
    renamed = [f"-D{name}=our_{name}" for name in NAMES]
    harness.compile_c(cc, library, [source], *renamed, "-O2", "-fno-builtin", "-fPIC", "-shared", *harness.UNDEFINED)
    lib = ctypes.CDLL(str(library))
    for name in NAMES:
        getattr(lib, f"our_{name}").argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
        getattr(lib, f"our_{name}").restype = ctypes.c_void_p
    lib.our_memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    lib.our_memcmp.restype = ctypes.c_int
    return lib


places = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE), st.integers(0, SIZE))


@given(places, st.binary(min_size=2 * SIZE, max_size=2 * SIZE))
def test_memory_functions_do_what_slices_do(memory: Any, place: tuple[int, int, int], data: bytes) -> None:
    to, start, count = place
    room = (ctypes.c_uint64 * (4 * SIZE // 8)).from_buffer_copy(data + data)
    at, now = ctypes.addressof(room), bytearray(data + data)

    assert memory.our_memcpy(at + to, at + 2 * SIZE + start, count) == at + to
    now[to : to + count] = now[2 * SIZE + start : 2 * SIZE + start + count]
    assert bytes(room) == now

    assert memory.our_memmove(at + to, at + start, count) == at + to
    now[to : to + count] = now[start : start + count]
    assert bytes(room) == now

    assert memory.our_memset(at + start, 0x1A5, count) == at + start
    now[start : start + count] = b"\xa5" * count
    assert bytes(room) == now

    one, other = bytes(now[to : to + count]), bytes(now[start + SIZE : start + SIZE + count])
    assert memory.our_memcmp(at + to, at + start + SIZE, count) == (one > other) - (one < other)
