"""Firmware images for drives and tools: raw binary, Intel hex, UF2."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from tinyfl.errors import BuildError, InstallError

Format = Literal["bin", "hex", "uf2"]

MAX_BYTES = 1 << 26
"""Maximum length of an image in bytes, gaps included; more than any flash holds."""

UF2_PAGE = 256
_UF2_START, _UF2_SECOND, _UF2_END, _UF2_HAS_FAMILY = 0x0A324655, 0x9E5D5157, 0x0AB16F30, 0x2000
_HEX_DATA, _HEX_END, _HEX_UPPER_ADDRESS = 0, 1, 4


def flat(elf: Path) -> tuple[int, bytes]:
    """Extracts the flash image from ``elf``: its lowest address, and all bytes from there, gaps filled with 0xff.

    Raises BuildError for a missing or invalid ELF file, or one longer than MAX_BYTES; InstallError without pyelftools.
    """
    segments = _segments(elf)
    if not segments:
        raise BuildError(f"{elf} contains nothing for flash. Rebuild it: tinyfl build")
    origin, end = segments[0][0], max(address + len(data) for address, data in segments)
    if end - origin > MAX_BYTES:
        raise BuildError(f"{elf} spans {end - origin:,} bytes from {origin:#010x}; the maximum for an image is {MAX_BYTES:,}.")
    image = bytearray(b"\xff") * (end - origin)
    for address, data in segments:
        image[address - origin : address - origin + len(data)] = data
    return origin, bytes(image)


def intel_hex(origin: int, image: bytes) -> str:
    """Encodes ``image`` at the address ``origin`` as Intel hex: 16 bytes a line, 32-bit addresses."""
    lines, upper = [], -1
    for at in range(origin & -16, origin + len(image), 16):
        if at >> 16 != upper:
            upper = at >> 16
            lines.append(_record(0, _HEX_UPPER_ADDRESS, struct.pack(">H", upper)))
        start = max(at, origin)
        lines.append(_record(start & 0xFFFF, _HEX_DATA, image[start - origin : at + 16 - origin]))
    return "\n".join([*lines, _record(0, _HEX_END, b""), ""])


def _record(address: int, kind: int, data: bytes) -> str:
    body = struct.pack(">BHB", len(data), address, kind) + data
    return ":" + (body + bytes([-sum(body) & 0xFF])).hex().upper()


def uf2(origin: int, image: bytes, family: int) -> bytes:
    """Encodes ``image`` at the address ``origin`` as UF2 blocks for a chip ``family``: 256-byte pages without gaps, since the
    RP2040's boot ROM computes the sector to erase from the block's number."""
    before = origin % UF2_PAGE
    padded = b"\xff" * before + image
    padded += b"\xff" * (-len(padded) % UF2_PAGE)
    return b"".join(_blocks(origin - before, padded, family))


def _blocks(origin: int, padded: bytes, family: int) -> Iterator[bytes]:
    count = len(padded) // UF2_PAGE
    for number in range(count):
        at = number * UF2_PAGE
        head = (_UF2_START, _UF2_SECOND, _UF2_HAS_FAMILY, origin + at, UF2_PAGE, number, count, family)
        yield struct.pack("<8I476sI", *head, padded[at : at + UF2_PAGE], _UF2_END)


def write(elf: Path, format: Format, path: Path, *, family: int = 0) -> None:
    """Writes the firmware ``elf`` to ``path`` in a ``format``; UF2 needs the chip's ``family``.

    Raises BuildError for a missing or invalid ELF file, InstallError without pyelftools, OSError if ``path`` is not writable.
    """
    origin, image = flat(elf)
    if format == "uf2":
        image = uf2(origin, image, family)
    elif format == "hex":
        image = intel_hex(origin, image).encode()
    path.write_bytes(image)


def _segments(elf: Path) -> list[tuple[int, bytes]]:
    """(address, bytes) of each segment in flash, ascending."""
    try:
        from elftools.common.exceptions import ELFError
        from elftools.elf.elffile import ELFFile
    except ImportError as error:
        raise InstallError("making images needs pyelftools. Run: pip install 'tinyfl[firmware]'") from error
    try:
        with elf.open("rb") as file:
            loads = [s for s in ELFFile(file).iter_segments("PT_LOAD") if s["p_filesz"]]
            return sorted((int(s["p_paddr"]), bytes(s.data())) for s in loads)
    except (OSError, ELFError) as error:
        raise BuildError(f"{elf} is not a firmware ELF ({error}). Build it: tinyfl build") from error
