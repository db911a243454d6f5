"""Small int8 programs, byte by byte from firmware/SPEC.md (program): values that go through a table."""

import struct

CONSTANT = 1 << 31
TABLE = 7
HEADER, OP = 48, 84


def program(table: bytes, count: int, *, arena: int | None = None, after: bytes = b"") -> bytes:
    """Puts ``count`` int8 values through ``table``, whose byte 0 is for -128. The output lies behind the input, at the next
    multiple of 4; ``after`` are bytes at the end that nothing uses."""
    behind = -(-count // 4) * 4
    whole = HEADER + OP + len(table) + len(after)
    head = struct.pack("<4sBBHII", b"TFLI", 1, 0, 1, whole, 2 * behind if arena is None else arena)
    ends = b"".join(struct.pack("<IIfbBH", at, count, 0.5, 0, 0, 0) for at in (0, behind))
    op = struct.pack("<B8b3x3I", TABLE, 0, 0, 0, -128, 127, 0, 0, 0, 0, CONSTANT | HEADER + OP, behind)
    grid = struct.pack("<3i12I", 0, 0, 0, 1, 1, 1, count, 0, 0, 0, 1, 0, 0, 0, 1)
    return head + ends + op + grid + table + after


def sizes(content: bytes) -> tuple[int, int, int]:
    """(arena, input, output) of a program, in bytes."""
    arena, bytes_in, bytes_out = (int.from_bytes(content[at : at + 4], "little") for at in (12, 20, 36))
    return arena, bytes_in, bytes_out


def outputs(content: bytes, x: bytes) -> bytes:
    """What a program of the kind above makes of ``x``."""
    table = content[HEADER + OP : HEADER + OP + 256]
    return bytes(table[(value + 128) % 256] for value in x)
