"""Terminal output for boards and their firmware."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from tinyfl.cli.show.terminal import Terminal

if TYPE_CHECKING:
    from tinyfl.building.boards import Board, Memory
    from tinyfl.building.build import Firmware
    from tinyfl.building.footprint import Footprint


def boards(found: "Sequence[Board]") -> None:
    """A table of boards, one per row; `tinyfl boards show` shows their chips."""
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("board", "core"):
        table.add_column(name, no_wrap=True)
    for name in ("MHz", "flash", "RAM"):
        table.add_column(name, no_wrap=True, justify="right")
    for name in ("flashed with", "emulator"):
        table.add_column(name, min_width=12 if name == "flashed with" else None)
    for board in found:
        memory = board.memory
        engines = [name for name in ("unicorn", "qemu") if getattr(board.emulators, name)]
        table.add_row(
            board.name,
            board.core,
            f"{board.clock / 1e6:g}" if board.clock else "",
            f"{memory.flash.size >> 10}K" if memory else "",
            f"{memory.ram.size >> 10}K" if memory else "",
            " ".join(dict.fromkeys(method.method for method in board.flash)),
            " ".join(engines) or ("" if memory else "process" if board.core == "host" else "qemu"),
        )
    commercial = [board for board in found if board.sold]
    run_on = [board.name for board in commercial if board.checked and board.checked.silicon]
    Terminal().print(table)
    Terminal().print(
        f"Of {len(commercial)} commercial boards, {len(run_on)} have run this firmware so far. {', '.join(run_on)}".rstrip()
    )


def board(shown: "Board") -> None:
    """The manifest of one board, one item per line."""
    Terminal().print(Text.assemble((shown.title, "bold"), f" ({shown.name})"))
    table = Table(box=SIMPLE, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_row("chip", f"{shown.chip}, {shown.core}" + (f" at {shown.clock / 1e6:g} MHz" if shown.clock else ""))
    if shown.memory:
        memory = shown.memory
        parts = {"flash": memory.flash, "firmware": memory.program, "slot 0": memory.slots[0], "slot 1": memory.slots[1]}
        parts |= {"inference": memory.inference}
        parts |= {f"store {i}": area for i, area in enumerate(memory.store.areas)} if memory.store else {}
        for name, region in (parts | {"RAM": memory.ram}).items():
            table.add_row(name, f"{region.origin:#010x} to {region.end:#010x}, {region.size:,} bytes")
    for link in shown.links:
        pins = f" on {' and '.join(link.pins)}" if link.pins else ""
        table.add_row("link", f"{link.uart}{pins}, {link.baud:,} baud" + (f", by {link.bridge}" if link.bridge else ""))
    for ids, name in ((link.usb, "serial port") for link in shown.links):
        if ids:
            table.add_row(name, ", ".join(ids))
    for ids, name in ((shown.usb.bootloader, "bootloader"), (shown.usb.probe, "probe")):
        if ids:
            table.add_row(name, ", ".join(ids))
    for method in shown.flash:
        rest = {key: value for key, value in method.model_dump().items() if key != "method"}
        table.add_row("flash with", f"{method.method}: " + ", ".join(f"{key} {_plain(value)}" for key, value in rest.items()))
    if shown.power:
        table.add_row("power", f"{shown.power.milliwatts:g} mW ({shown.power.source})")
    if shown.checked:
        table.add_row("silicon", "the firmware has run on it" if shown.checked.silicon else "the firmware has never run on it")
        for name, how in shown.checked.model_dump(exclude={"silicon"}).items():
            table.add_row(f"{name} checked", how or "nothing said")
    Terminal().print(table)


def _plain(value: object) -> str:
    if isinstance(value, tuple | list):
        return " ".join(map(str, value))
    return f"{value:#x}" if isinstance(value, int) else str(value)


def firmware(builds: "Sequence[Firmware]") -> None:
    """The memory use of firmware, in bytes: for one board by section and by part, for several one row each."""
    console = Terminal()
    if len(builds) > 1:
        console.print(_sizes(builds))
        if programs := [one.board.name for one in builds if one.board.memory is None]:
            console.print(f"{', '.join(programs)}: a program, in the memory of its computer.", soft_wrap=True)
        console.print(f"{builds[0].elf.parent.parent}", soft_wrap=True)
        return
    one = builds[0]
    if one.size and one.board.memory:
        console.print(_parts(one, one.size, one.board.memory))
        console.print(f"{one.size.arena:,} bytes of RAM are left for plan, weights and learner.")
    console.print(f"{one.elf}  {one.version}", soft_wrap=True)


def _parts(one: "Firmware", size: "Footprint", memory: "Memory") -> Table:
    table = Table(title=f"{one.board.name} · {one.board.core} · {one.toolchain}")
    table.add_column("")
    table.add_column("flash", justify="right")
    table.add_column("RAM", justify="right")
    for part, pair in size.parts.items():
        table.add_row(part, *(f"{count:,}" for count in pair))
    table.add_row("stack", "", f"{memory.stack:,}", end_section=True)
    for section in dict.fromkeys([*size.flash, *size.ram]):
        taken = (sizes.get(section) for sizes in (size.flash, size.ram))
        table.add_row(section, *("" if count is None else f"{count:,}" for count in taken), style="dim")
    table.add_section()
    table.add_row("all", f"{sum(size.flash.values()):,}", f"{sum(size.ram.values()):,}", style="bold")
    table.add_row("of", f"{memory.program.size:,}", f"{memory.ram.size:,}")
    return table


def _sizes(builds: "Sequence[Firmware]") -> Table:
    table = Table(title=f"firmware by {builds[0].toolchain}, in bytes", box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("board", no_wrap=True)
    for name in ("flash", "of", "RAM", "of", "left to learn"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in builds:
        if one.size is None or one.board.memory is None:
            table.add_row(one.board.name)
            continue
        room = one.board.memory
        numbers = sum(one.size.flash.values()), room.program.size, sum(one.size.ram.values()), room.ram.size, one.size.arena
        table.add_row(one.board.name, *(f"{number:,}" for number in numbers))
    return table
