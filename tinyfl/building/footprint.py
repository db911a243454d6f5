"""Flash and RAM of a linked firmware, by section and by part."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyfl.building.boards import Memory
from tinyfl.errors import InstallError

REST = "compiler"
"""The part outside our sources: the compiler's runtime, its unnamed constants, and padding."""


@dataclass(frozen=True)
class Footprint:
    """Sizes in bytes. ``.stack`` belongs to no part; RAM outside all sections is the agent's ``arena``."""

    flash: Mapping[str, int]
    """By section."""
    ram: Mapping[str, int]
    """By section."""
    parts: Mapping[str, tuple[int, int]]
    """(flash, RAM) of the core, agent, port, user's sources and rest."""
    arena: int


def footprint(elf: Path, memory: Memory, objects: Mapping[Path, str]) -> Footprint:
    """Measures the firmware ``elf`` of a chip with ``memory``; ``objects`` maps each linked object to its part.

    Raises InstallError without pyelftools.
    """
    owners: dict[tuple[str, int], list[str]] = defaultdict(list)
    for path, part in objects.items():
        for name, size, _ in _symbols(path):
            owners[name, size].append(part)

    flash: dict[str, int] = {}
    ram: dict[str, int] = {}
    for name, size, stored, address in _sections(elf):
        if stored:
            flash[name] = size
        if memory.ram.origin <= address < memory.ram.end:
            ram[name] = size

    parts: dict[str, list[int]] = {part: [0, 0] for part in [*dict.fromkeys(objects.values()), REST]}
    for name, size, section in _symbols(elf):
        owner = owners[name, size].pop(0) if owners[name, size] else REST
        parts[owner][0] += size if section in flash else 0
        parts[owner][1] += size if section in ram else 0
    rest = parts[REST]
    rest[0] += sum(flash.values()) - sum(part[0] for part in parts.values())
    rest[1] += sum(ram.values()) - ram.get(".stack", 0) - sum(part[1] for part in parts.values())
    addresses = _addresses(elf)
    arena = addresses.get("tinyfl_arena_end", 0) - addresses.get("tinyfl_arena", 0)
    return Footprint(flash, ram, {part: (pair[0], pair[1]) for part, pair in parts.items()}, arena)


def _elf(path: Path) -> Any:
    import io

    try:
        from elftools.elf.elffile import ELFFile
    except ImportError as error:
        raise InstallError("pyelftools is not installed. Run: pip install 'tinyfl[firmware]'") from error
    return ELFFile(io.BytesIO(path.read_bytes()))


def elf_of(path: Path) -> Any:
    """The ELF file at ``path``, None if it is of another format. Raises InstallError without pyelftools."""
    with path.open("rb") as file:
        return _elf(path) if file.read(4) == b"\x7fELF" else None


def _sections(path: Path) -> Iterator[tuple[str, int, bool, int]]:
    """(name, size, stored in flash, address) of each allocated section."""
    for section in _elf(path).iter_sections():
        header = section.header
        if header.sh_flags & 2 and header.sh_size:  # SHF_ALLOC
            yield section.name, header.sh_size, header.sh_type != "SHT_NOBITS", header.sh_addr


def _symbols(path: Path) -> Iterator[tuple[str, int, str]]:
    """(name, size, section) of each function and variable."""
    elf = _elf(path)
    for symbol in elf.get_section_by_name(".symtab").iter_symbols():
        index = symbol.entry.st_shndx
        if symbol.entry.st_size and symbol.entry.st_info.type in ("STT_FUNC", "STT_OBJECT") and isinstance(index, int):
            yield symbol.name, symbol.entry.st_size, elf.get_section(index).name


def _addresses(path: Path) -> dict[str, int]:
    return {symbol.name: symbol.entry.st_value for symbol in _elf(path).get_section_by_name(".symtab").iter_symbols()}
