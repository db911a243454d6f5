"""The table of a user's sources, whose end nothing at run time can miss: a board would read on behind it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tinyfl.building.footprint import elf_of
from tinyfl.errors import BuildError

ENTRY = {32: 44, 64: 72}
"""Bytes of a tinyfl_source (firmware/agent/source.h), by those of a pointer in bits; its name is the first pointer."""


def demand_end(path: Path) -> None:
    """Raises BuildError if the table in the ELF file at ``path`` does not end with an entry whose name is NULL, InstallError
    without pyelftools."""
    elf = elf_of(path)
    if elf is None:
        return
    for address, size in _tables(elf):
        last = address + size - ENTRY[elf.elfclass]
        if size % ENTRY[elf.elfclass] or last in _relocated(elf) or any(_bytes_at(elf, last, elf.elfclass // 8)):
            raise BuildError(
                "the table tinyfl_sources has no end: let its last entry be {.name = NULL}, after those of your sources."
            )


def _tables(elf: Any) -> list[tuple[int, int]]:
    """(address, bytes) of the table."""
    found = (elf.get_section_by_name(name) for name in (".symtab", ".dynsym"))
    symbols: list[Any] = next(
        (each for section in found if section and (each := section.get_symbol_by_name("tinyfl_sources"))), []
    )
    return [(symbol["st_value"], symbol["st_size"]) for symbol in symbols]


def _relocated(elf: Any) -> set[int]:
    """Where pointers are filled in at the start, which are not NULL whatever the file has there."""
    relocations = (section for section in elf.iter_sections() if section["sh_type"] in ("SHT_REL", "SHT_RELA"))
    return {each["r_offset"] for section in relocations for each in section.iter_relocations()}


def _bytes_at(elf: Any, address: int, count: int) -> Iterator[int]:
    for section in elf.iter_sections():
        start = section["sh_addr"]
        if section["sh_flags"] & 2 and start <= address < start + section["sh_size"] and section["sh_type"] != "SHT_NOBITS":
            yield from section.data()[address - start : address - start + count]
