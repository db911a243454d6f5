"""A board's program and what it predicts, from firmware/SPEC.md alone. Of programs it runs those of programs.py."""

from hashlib import sha256
from typing import Any

import programs

INVALID, PLAN, MEMORY, STATE, STALE, HASH, NUMERIC, SIZE, FLASH, SOURCE = range(2, 12)
HEADER = 40


class Refuse(Exception):
    """A refusal, by its number in our group."""

    def __init__(self, rc: int) -> None:
        self.rc = rc


class ProgramSlot:
    """``content`` is the whole program that the slot holds, or empty."""

    def __init__(self, size: int, arena: int) -> None:
        self.size, self.arena, self.content = size, arena, b""
        self.restart()

    def restart(self) -> None:
        self.coming, self.length, self.sha = b"", 0, b""
        self.forget()

    def forget(self) -> None:
        """What the learner may have overwritten."""
        self.x, self.y = b"", b""

    @property
    def hash(self) -> bytes:
        return sha256(self.content).digest() if self.content else b""

    def put(self, off: int, data: bytes, length: int, sha: bytes) -> int:
        """Takes a block; where to go on."""
        if off == 0 and (length < 1 or len(sha) != 32):
            raise Refuse(INVALID)
        if off == 0 and (length, sha) not in ((len(self.content), self.hash), (self.length, self.sha)):
            if length + HEADER > self.size:
                raise Refuse(MEMORY)
            self.content = b""
            self.restart()
            self.length, self.sha = length, sha
        if self.content or off != len(self.coming):
            return len(self.content or self.coming)
        if off + len(data) > self.length:
            raise Refuse(INVALID)
        whole = off + len(data) == self.length
        self.coming += data if whole else data[: len(data) // 4 * 4]
        if whole:
            held, announced = self.coming, self.sha
            self.restart()
            self.check(held, announced)
            self.content = held
        return len(self.content or self.coming)

    def check(self, held: bytes, announced: bytes) -> None:
        if sha256(held).digest() != announced:
            raise Refuse(HASH)
        if held[:4] != b"TFLI" or int.from_bytes(held[8:12], "little") != len(held):
            raise Refuse(PLAN)
        if programs.sizes(held)[0] > self.arena:
            raise Refuse(MEMORY)

    def predict(self, off: int, data: bytes, learner: int) -> bool:
        """Takes more of the input; whether it is whole. The learner has ``learner`` bytes of the arena."""
        if not self.content:
            raise Refuse(STATE)
        arena, bytes_in, _ = programs.sizes(self.content)
        if (self.arena - arena) // 8 * 8 < learner:
            raise Refuse(MEMORY)
        if off == 0:
            self.forget()
        if off == len(self.x):
            if off + len(data) > bytes_in:
                raise Refuse(INVALID)
            self.x += data
            if len(self.x) == bytes_in:
                self.y = programs.outputs(self.content, self.x)
        return bool(self.y)

    def part(self, off: int, room: int) -> dict[str, Any]:
        """The output from byte ``off`` on."""
        if not self.y:
            raise Refuse(STATE)
        if not 0 <= off <= len(self.y):
            raise Refuse(INVALID)
        return {"len": len(self.y), "data": self.y[off : off + room]}
