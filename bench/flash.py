"""The firmware's flash in bytes, by source file, board and toolchain.

    python bench/flash.py             a Cortex-M4F and a Cortex-M0+, each with zig and, if installed, gcc: some seconds

A feature's bytes are the difference between two commits' tables.
"""

import argparse
import shutil
from pathlib import Path

from common import provenance

from tinyfl.building import boards
from tinyfl.building.build import OBJECTS, build
from tinyfl.building.footprint import footprint
from tinyfl.building.toolchains import TOOLCHAINS, Toolchain

BOARDS = ("mps2-an386", "pico")


def files(name: str, toolchain: Toolchain) -> tuple[dict[str, int], dict[str, int]]:
    """Flash by part, and by source file as "part/file"."""
    built = build(boards.load(name), Path("build/firmware") / f"{name}-{toolchain}", toolchain=toolchain)
    assert built.board.memory
    assert built.size
    objects = {
        path: path.name.rsplit("-", 1)[0].replace("-", "/", 1) for path in sorted((built.elf.parent / OBJECTS).glob("*.o"))
    }
    parts = footprint(built.elf, built.board.memory, objects).parts
    return {part: flash for part, (flash, _) in built.size.parts.items()}, {file: flash for file, (flash, _) in parts.items()}


def main() -> None:
    toolchains = [each for each in TOOLCHAINS if each != "gcc" or shutil.which("arm-none-eabi-gcc")]
    columns = {f"{name} {toolchain}": files(name, toolchain) for name in BOARDS for toolchain in toolchains}
    print(f"| flash | {' | '.join(columns)} |")
    print(f"| --- |{' ---: |' * len(columns)}")

    def row(title: str, values: list[int]) -> None:
        print(f"| {title} | {' | '.join(f'{value:,}' for value in values)} |")

    for part in next(iter(columns.values()))[0]:
        row(f"**{part}**", [parts[part] for parts, _ in columns.values()])
        of_part = {file for _, found in columns.values() for file in found if file.startswith(f"{part}/")}
        for file in sorted(of_part):
            row(file, [found.get(file, 0) for _, found in columns.values()])
    row("**all**", [sum(parts.values()) for parts, _ in columns.values()])
    print(f"\n{provenance()}")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
