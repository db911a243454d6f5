"""The agent compiled for this machine, and a peer for it written from SPEC.md with cbor2 and a COBS of its own."""

import binascii
import ctypes
import hashlib
import struct
from typing import Any

import cbor2
import harness
import numpy as np

AGENT = harness.CORE.parent / "agent"
SOURCES = [*harness.SOURCES, *(path for path in sorted(AGENT.glob("*.c")) if path.name != "main.c")]
FLAGS = [f"-I{AGENT}", '-DTINYFL_VERSION="test"']

READ, WRITE = 0, 2
OS, OURS = 0, 65


def build(cc: str, *flags: str) -> "Board":
    sources = [*SOURCES, harness.HERE / "board.c"]
    library = harness.compile_once(cc, sources, "-O2", "-fPIC", "-shared", *FLAGS, *flags)
    return Board(ctypes.CDLL(str(library)))


class Board:
    """The one board of the compiled library."""

    def __init__(self, lib: Any) -> None:
        self.lib = lib
        lib.board_start.argtypes = [ctypes.c_size_t, ctypes.c_int]
        lib.board_exchange.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
        lib.board_exchange.restype = ctypes.c_size_t
        lib.board_kept.argtypes, lib.board_kept.restype = [ctypes.c_void_p, ctypes.c_void_p], ctypes.c_size_t
        lib.board_cut_after.argtypes = [ctypes.c_long]
        lib.board_turns.argtypes = [ctypes.c_long]
        lib.board_events.restype = ctypes.c_long
        self.start()

    def start(self, arena: int = 1 << 16, blank: bool = True) -> None:
        self.lib.board_start(arena, blank)

    def turns_most(self, most: int) -> None:
        """The most turns per exchange, for a board that does not sleep; 0: no limit."""
        self.lib.board_turns(most)

    def exchange(self, data: bytes) -> bytes:
        room = ctypes.create_string_buffer(1 << 16)
        count = self.lib.board_exchange(data, len(data), room, len(room))
        assert count <= len(room)
        return room.raw[:count]

    def request(self, op: int, group: int, command: int, fields: dict[str, Any] | bytes, version: int = 1, seq: int = 9) -> Any:
        """The reply's map to one request; its header is checked."""
        reply = unframe(self.exchange(frame(message(op, group, command, fields, version, seq))))
        assert reply[:2] == bytes([version << 3 | op + 1, 0])
        assert struct.unpack("!HHBB", reply[2:8]) == (len(reply) - 8, group, seq, command)
        return cbor2.loads(reply[8:])

    def ours(self, op: int, command: int, **fields: Any) -> Any:
        return self.request(op, OURS, command, fields)

    def refusal(self, op: int, command: int, **fields: Any) -> int:
        reply = self.ours(op, command, **fields)
        assert reply["err"]["group"] == OURS
        assert set(reply) == {"err"}
        return int(reply["err"]["rc"])

    def status(self) -> Any:
        return self.ours(READ, 7)

    def put(self, command: int, data: bytes, step: int = 400) -> None:
        """A plan or weights, in blocks of ``step``."""
        for off in range(0, len(data), step):
            announced = {"len": len(data), "sha": sha(data)} if off == 0 else {}
            block = data[off : off + step]
            assert self.ours(WRITE, command, off=off, data=block, **announced) == {"off": off + len(block)}

    def kept(self) -> tuple[list[int], Any]:
        """The numbers of the block and of its copy, and both, float32 (2, floats)."""
        numbers, both = (ctypes.c_uint32 * 2)(), np.zeros(1 << 14, np.float32)
        count = self.lib.board_kept(numbers, both.ctypes.data)
        return list(numbers), both[:count].reshape(2, -1)

    def weights(self) -> bytes:
        data = b""
        while True:
            reply = self.ours(READ, 2, off=len(data))
            assert reply["off"] == len(data)
            data += reply["data"]
            if len(data) == reply["len"]:
                return data


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def message(op: int, group: int, command: int, fields: dict[str, Any] | bytes, version: int = 1, seq: int = 9) -> bytes:
    body = fields if isinstance(fields, bytes) else cbor2.dumps(fields)
    return struct.pack("!BBHHBB", version << 3 | op, 0, len(body), group, seq, command) + body


def frame(text: bytes, close: bool = True) -> bytes:
    """COBS(text, CRC), 0x00: the plain definition, a run for each zero. Without ``close``, a last run of just 254 bytes is
    not followed by an empty one."""
    data = text + struct.pack("!H", binascii.crc_hqx(text, 0))
    out = bytearray()
    runs = data.split(b"\0")
    for number, run in enumerate(runs):
        while len(run) >= 254:
            out += b"\xff" + run[:254]
            run = run[254:]
            if not run and not close and number == len(runs) - 1:
                return bytes(out) + b"\0"
        out += bytes([len(run) + 1]) + run
    return bytes(out) + b"\0"


def unframe(data: bytes) -> bytes:
    """The one message in ``data``."""
    assert data.endswith(b"\0"), data
    assert data.count(b"\0") == 1, data
    text, at = bytearray(), 0
    while at < len(data) - 1:
        code = data[at]
        text += data[at + 1 : at + code]
        at += code
        if code < 0xFF and at < len(data) - 1:
            text += b"\0"
    assert binascii.crc_hqx(bytes(text), 0) == 0
    return bytes(text[:-2])


def floats(values: Any) -> bytes:
    return np.asarray(values, "<f4").tobytes()
