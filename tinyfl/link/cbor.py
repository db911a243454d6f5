"""A strict CBOR decoder for boards' replies: one map from texts to plain values (firmware/SPEC.md, wire; RFC 8949).

In a general decoder, tags can turn a few bytes into numbers of a million digits, dates, patterns or a list that contains
itself. Boards need no tags, so a reply with a tag is refused before it is evaluated.
"""

import struct

Plain = int | float | bool | str | bytes | list["Plain"] | dict[str, "Plain"] | None

UNSIGNED, NEGATIVE, BYTES, TEXT, ARRAY, MAP, TAG, SIMPLE = range(8)
INDEFINITE = 31
BREAK = SIMPLE << 5 | INDEFINITE

DEPTH = 8
"""Maximum nesting of maps and arrays, as in the agent's reader."""

CONSTANTS = {20: False, 21: True, 22: None}
FLOATS = {25: ">e", 26: ">f", 27: ">d"}


def decode(data: bytes) -> dict[str, Plain]:
    """Decodes ``data``, which must be one map. Integers have at most 64 bits and a sign.

    Raises ValueError for tags, texts and bytes in chunks, duplicate or non-text keys, simple values other than false, true and
    null, more than DEPTH levels, and for truncated or trailing data.
    """
    reader = _Reader(data)
    value = reader.item(DEPTH)
    if not isinstance(value, dict):
        raise ValueError(f"it is {type(value).__name__}, not a map")
    if reader.at < len(data):
        raise ValueError(f"{len(data) - reader.at} bytes follow its map")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self.at = data, 0

    def item(self, depth: int) -> Plain:
        """Reads the next item, of at most ``depth`` levels."""
        first = self._take(1)[0]
        kind, info = first >> 5, first & 31
        if kind == SIMPLE:
            return self._simple(info)
        number = self._number(kind, info)
        if kind in (UNSIGNED, NEGATIVE):
            return number if kind == UNSIGNED else -1 - number
        if kind in (BYTES, TEXT):
            return self._take(number) if kind == BYTES else self._take(number).decode()
        if kind == TAG:
            raise ValueError(f"it has the tag {number}")
        if not depth:
            raise ValueError(f"it has more than {DEPTH} levels")
        return self._array(number, depth - 1) if kind == ARRAY else self._map(number, depth - 1)

    def _take(self, count: int) -> bytes:
        if count > len(self._data) - self.at:
            raise ValueError("it ends too early")
        self.at += count
        return self._data[self.at - count : self.at]

    def _number(self, kind: int, info: int) -> int:
        """Reads the number in an item's head; -1 for an array or a map of indefinite length."""
        if info < 24:
            return info
        if info < 28:
            return int.from_bytes(self._take(1 << (info - 24)))
        if info == INDEFINITE and kind in (ARRAY, MAP):
            return -1
        raise ValueError(f"it has the head {kind << 5 | info:#x}")

    def _simple(self, info: int) -> Plain:
        if info in CONSTANTS:
            return CONSTANTS[info]
        if info not in FLOATS:
            raise ValueError(f"it has the head {SIMPLE << 5 | info:#x}")
        (number,) = struct.unpack(FLOATS[info], self._take(struct.calcsize(FLOATS[info])))
        return float(number)

    def _more(self, count: int, done: int) -> bool:
        """Whether another item follows in an array or map of ``count`` items, after ``done`` items."""
        if count >= 0:
            return done < count
        if self._data[self.at : self.at + 1] != bytes([BREAK]):
            return True
        self.at += 1
        return False

    def _array(self, count: int, depth: int) -> list[Plain]:
        items: list[Plain] = []
        while self._more(count, len(items)):
            items.append(self.item(depth))
        return items

    def _map(self, count: int, depth: int) -> dict[str, Plain]:
        pairs: dict[str, Plain] = {}
        while self._more(count, len(pairs)):
            key = self.item(0)
            if not isinstance(key, str) or key in pairs:
                raise ValueError("a key is not a text, or a duplicate")
            pairs[key] = self.item(depth)
        return pairs
