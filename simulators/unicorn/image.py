"""A firmware image: the segments and symbols of an ELF file."""

from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tinyfl.errors import InstallError, RunError


@dataclass(frozen=True)
class Image:
    """Segments as (load address, bytes), the address of each symbol, and functions as (address, name), ascending."""

    segments: tuple[tuple[int, bytes], ...]
    symbols: dict[str, int]
    functions: tuple[tuple[int, str], ...]

    def near(self, address: int) -> str:
        """Formats an address for people: ``0x0000012c (agent_turn + 8)``."""
        at = bisect_right(self.functions, (address, "\uffff")) - 1
        if at < 0:
            return f"{address:#010x}"
        start, name = self.functions[at]
        return f"{address:#010x} ({name} + {address - start})"


def load_image(path: Path) -> Image:
    """Loads the image in the ELF file at ``path``, once for all boards that run it.

    Raises RunError if the file is missing or invalid, InstallError without pyelftools.
    """
    try:
        stamp = path.stat()
    except OSError as error:
        raise RunError(f"no firmware at {path}. Build it first: tinyfl build") from error
    return _load(path, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=16)
def _load(path: Path, modified: int, size: int) -> Image:
    try:
        from elftools.common.exceptions import ELFError
        from elftools.elf.elffile import ELFFile
        from elftools.elf.sections import SymbolTableSection
    except ImportError as error:
        raise InstallError("emulated boards need pyelftools: pip install 'tinyfl[firmware]'") from error
    with path.open("rb") as file:
        try:
            elf = ELFFile(file)
        except ELFError as error:
            raise RunError(f"{path} is not an ELF file ({error}). Rebuild it: tinyfl build") from error
        segments = tuple((s["p_paddr"], s.data()) for s in elf.iter_segments("PT_LOAD") if s["p_filesz"])
        table = elf.get_section_by_name(".symtab")
        found = list(table.iter_symbols()) if isinstance(table, SymbolTableSection) else []
    symbols = {str(s.name): int(s["st_value"]) for s in found if s.name and s["st_shndx"] != "SHN_UNDEF"}
    functions = sorted((s["st_value"] & ~1, s.name) for s in found if s["st_info"]["type"] == "STT_FUNC")
    return Image(segments, symbols, tuple(functions))
