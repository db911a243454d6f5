"""A board that lies: one field of one of its answers holds what it should not.

The fields are those of tinyfl's own messages, so a new one is lied about as soon as it is there."""

import struct
from binascii import crc_hqx
from collections.abc import Callable, Iterator
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

import cbor2
from double import Double, cobs, encode, uncobs
from smp.message import Response

from tinyfl.link import messages

BIG = 1 << 20_000
"""Over 6,000 digits: more than Python turns into text."""


def tag(number: int, value: Any) -> bytes:
    return cbor2.dumps(cbor2.CBORTag(number, value))


VALUES = {
    "0": b"\x00", "1": b"\x01", "2^31": b"\x1a\x80\0\0\0", "2^32 - 1": b"\x1a" + b"\xff" * 4, "2^32": b"\x1b\0\0\0\1\0\0\0\0",
    "2^64 - 1": b"\x1b" + b"\xff" * 8, "-1": b"\x20", "-2^64": b"\x3b" + b"\xff" * 8,
    "1.5": b"\xf9\x3e\0", "nan": b"\xfa\x7f\xc0\0\0", "inf": b"\xf9\x7c\0", "-inf": b"\xf9\xfc\0",
    "1e300": cbor2.dumps(1e300), "text 7": b"\x617", "no text": b"\x60", "300 letters": b"\x79\x01\x2c" + b"a" * 300,
    "steering": cbor2.dumps("\x1b]0;title\x1b\\\x1b[2J\u202e<script>x</script>../../up\r\n[/x]"), "no UTF-8": b"\x62\xff\xff",
    "byte 7": b"\x417", "no bytes": b"\x40", "33 bytes": b"\x58\x21" + bytes(33), "2,000 bytes": b"\x59\x07\xd0" + bytes(2000),
    "[]": b"\x80", "[7]": b"\x81\x07", "1,000 arrays": b"\x81" * 1000 + b"\0", "{}": b"\xa0", "map of 7": b"\xa1\x617\x07",
    "null": b"\xf6", "true": b"\xf5", "undefined": b"\xf7", "simple 32": b"\xf8\x20", "break": b"\xff", "no head": b"\x1c",
    "text in pieces": b"\x7f\x61a\xff", "bytes in pieces": b"\x5f\x41a\xff", "array to the break": b"\x9f\xff",
    "array of 2^60": b"\x9b\x10" + bytes(7), "bytes of 2^60": b"\x5b\x10" + bytes(7), "text of 2^32": b"\x7a" + b"\xff" * 4,
    "date": tag(0, "2026-01-01T00:00:00Z"), "seconds": tag(1, 1e308), "6,000 digits": cbor2.dumps(BIG),
    "-6,000 digits": cbor2.dumps(-BIG), "10^3,000,000": tag(4, [3_000_000, 1]), "10^20,000,000": tag(4, [20_000_000, 1]),
    "2^10,000,000": tag(5, [10_000_000, 1]), "shared": b"\xd8\x1c\x81\xd8\x1d\0", "fraction": tag(30, [1, 3]),
    "pattern": tag(35, "(a*)*b"), "message": tag(36, "a: b"), "uuid": tag(37, bytes(16)), "set": tag(258, [1]),
    "tagged map": tag(55799, {}),
}  # fmt: skip
"""What may stand where a value belongs, in CBOR."""

TAGGED = {name for name, value in VALUES.items() if value[0] >> 5 == 6}

Lie = Callable[[str, dict[str, Any]], bytes]
"""What an answer with these fields becomes, where the field of this name is lied about."""


def _with(value: bytes) -> Lie:
    def lie(field: str, fields: dict[str, Any]) -> bytes:
        pairs = [cbor2.dumps(key) + (value if key == field else encode(held)) for key, held in fields.items()]
        return bytes([0xA0 + len(fields)]) + b"".join(pairs)

    return lie


def _missing(field: str, fields: dict[str, Any]) -> bytes:
    return encode({key: value for key, value in fields.items() if key != field})


def _twice(field: str, fields: dict[str, Any]) -> bytes:
    whole = encode(fields)
    return bytes([whole[0] + 1]) + whole[1:] + cbor2.dumps(field) + encode(fields.get(field, 0))


def _to_the_break(field: str, fields: dict[str, Any]) -> bytes:
    return b"\xbf" + encode(fields)[1:] + b"\xff"


LIES: dict[str, Lie] = {
    **{name: _with(value) for name, value in VALUES.items()}, "missing": _missing, "twice": _twice,
    "map to the break": _to_the_break, "twice 1, then": lambda field, fields: _twice(field, {**fields, field: 1}),
    "no map": lambda field, fields: b"\x80", "nothing": lambda field, fields: b"", "more after": lambda field, fields:
    encode(fields) + b"\0", "cut": lambda field, fields: encode(fields)[:-1],
}  # fmt: skip
ILLEGAL = TAGGED | {"twice", "twice 1, then", "1,000 arrays", "text in pieces", "bytes in pieces", "no head", "break", "cut"}
"""What makes an answer none, whatever the field."""

LONGEST: Lie = _with(b"\x5a\x00\x0f\x42\x40" + bytes(1_000_000))


def replies(room: ModuleType) -> Iterator[type[Any]]:
    """The replies of a module of tinyfl's messages."""
    for kind in vars(room).values():
        if isinstance(kind, type) and issubclass(kind, Response) and kind.__module__ == room.__name__:
            yield kind


def all_replies() -> Iterator[type[Any]]:
    for room in iter_modules(messages.__path__):
        yield from replies(import_module(f"{messages.__name__}.{room.name}"))


def fields_of(kind: type[Any]) -> list[str]:
    """What a board says in this reply."""
    return [name for name in kind.model_fields if name not in Response.model_fields]


class Liar(Double):
    """A double that tells ``lie`` about ``field`` of its replies of ``kind``; ``told`` counts how often."""

    def __init__(self, id: bytes, kind: type[Any], field: str, lie: Lie, **options: Any) -> None:
        self.kind, self.field, self.lie, self.told = kind, field, lie, 0
        super().__init__(id, **options)

    def frame(self, frame: bytes) -> bytes:
        honest = super().frame(frame)
        message = (uncobs(honest[:-1]) or b"")[:-2]
        if not message or (message[0] & 7, message[5], message[7]) != (
            self.kind._OP,
            self.kind._GROUP_ID,
            self.kind._COMMAND_ID,
        ):
            return honest
        fields = cbor2.loads(message[8:])
        if not fields.keys().isdisjoint(("rc", "err")):
            return honest
        self.told += 1
        payload = self.lie(self.field, fields)
        made = message[:2] + struct.pack("!H", len(payload) & 0xFFFF) + message[4:8] + payload
        return cobs(made + crc_hqx(made, 0).to_bytes(2)) + b"\0"
