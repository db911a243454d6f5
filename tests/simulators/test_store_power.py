"""Power loss while the store commits: at every write and erase, on each kind of flash, with the port's own driver."""

import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from probe import need

from tinyfl.building import boards
from tinyfl.building.boards import Board, Region
from tinyfl.building.build import build

HERE = Path(__file__).parent
KINDS = {"mps2-an386": 0, "stm32f405": 4096, "stm32f746-discovery": 4096, "microbit-v2": 4096, "pico": 0, "cy8ckit-062s2": 0}
"""A board of each kind of flash, with areas as small as an erase allows; 0: the board's own."""


@pytest.fixture(scope="module")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Board], Path]]:
    """store.c's ELF for a board."""
    need("ziglang")
    need("elftools")
    need("unicorn")
    folder, data = tmp_path_factory.mktemp("store"), boards.data
    tree = folder / "firmware"
    shutil.copytree(data("firmware"), tree)
    for source in (*tree.glob("core/*.c"), *tree.glob("agent/*.c")):
        if source.stem not in ("store", "upload", "sha256", "cbor", "random"):
            source.unlink()
    shutil.copy(HERE / "store.c", tree / "agent" / "main.c")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boards, "data", lambda name: tree if name == "firmware" else data(name))
        yield lambda board: build(board, folder / "out").elf


def small(name: str) -> Board:
    board, size = boards.load(name), KINDS[name]
    assert board.memory and board.memory.store
    if not size:
        return board
    first, second = (Region(origin=area.origin, size=size) for area in board.memory.store.areas)
    store = board.memory.store.model_copy(update={"areas": (first, second)})
    return board.model_copy(update={"memory": board.memory.model_copy(update={"store": store})})


def committed(machine: Any, number: int) -> int | None:
    """The code, or None if the power went."""
    reply = machine.exchange(b"c" + bytes([number]))
    return reply[0] if reply else None


def held(machine: Any) -> list[bytes]:
    reply, blocks = machine.exchange(b"r"), []
    while reply:
        count = struct.unpack_from("<I", reply)[0]
        blocks.append(reply[4 : 4 + count])
        reply = reply[4 + count :]
    return blocks


def blocks(number: int) -> list[bytes]:
    b = [1000 * number + i for i in range(6)]
    return [struct.pack("<2I", *b[4:]), struct.pack("<6I", *b) if number % 2 else b"", struct.pack("<2I", 1, 2)]


def cut_everywhere(machine: Any, old: int, new: int, step: int) -> int:
    """Cuts the commit of ``new`` over ``old`` at its events; how many they are."""
    before, start = machine.snapshot(), machine.slot_events
    assert committed(machine, new) == 0
    events = machine.slot_events - start
    for cut in sorted({*range(0, events, step), *range(max(events - 70, 0), events + 1)}):
        machine.restore(before)
        machine.cut_power_after(cut)
        assert committed(machine, new) == (None if cut < events else 0)
        machine.power_cycle()
        assert held(machine) in ([blocks(old), blocks(new)] if cut < events else [blocks(new)])
        if cut % 8 == 0 or cut == events - 1:
            assert committed(machine, 99) == 0
            machine.power_cycle()
            assert held(machine) == blocks(99)
    machine.restore(before)
    return events


@pytest.mark.parametrize("name", KINDS)
def test_a_cut_at_every_write_of_the_store_leaves_the_old_set_or_the_new(firmware: Callable[[Board], Path], name: str) -> None:
    """Within an area, and on the move to the other, whose old log is erased."""
    from tinyfl.simulators.unicorn import Machine

    board = small(name)
    machine = Machine(firmware(board), board, 1)
    assert held(machine) == [b"", b"", b""]
    assert committed(machine, 1) == 0
    machine.power_cycle()
    assert held(machine) == blocks(1)
    commit = cut_everywhere(machine, 1, 2, 1)
    assert (machine.exchange(b"f"), committed(machine, 2), machine.exchange(b"f")) == (b"\0", 0, b"\0")
    assert held(machine) == blocks(2)
    assert cut_everywhere(machine, 2, 3, 1 if name != "mps2-an386" else 997) > commit
