"""docs/boards.md, "your first board", followed to the letter; an emulated micro:bit hangs on the desk in the real one's place,
whose drive takes the very file that the real one's would."""

import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from desk import silent
from workbench import Workbench

from tinyfl.building import boards, images
from tinyfl.cli import app
from tinyfl.fleets import emulation

PAGE = Path(__file__).parents[2] / "docs" / "boards.md"
BOARD = boards.load("microbit-v2")
SERIAL = "9906360200052820a8fd"

really_built, really_written = emulation.firmware, images.write


class Microbit:
    """Its UART; nobody is at home until a hex file with firmware came by the drive."""

    def __init__(self) -> None:
        self.uart: Callable[[bytes], bytes] = silent

    def exchange(self, data: bytes) -> bytes:
        return self.uart(data)

    def take(self, hex: Path) -> None:
        """As the interface chip does: erases, writes what the file says, and lets the chip start."""
        from intelhex import IntelHex

        from tinyfl.simulators.unicorn import Machine

        elf = really_built(BOARD, "zig").elf
        read = IntelHex(str(hex))
        assert (read.minaddr(), read.tobinstr()) == images.flat(elf)
        self.uart = Machine(elf, BOARD, 77).exchange


def commands() -> list[list[str]]:
    """The section's, in words, without the program's name."""
    section = PAGE.read_text().split("## Your first board\n")[1].split("\n## ")[0]
    lines = [line for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL) for line in block.splitlines()]
    assert lines[0] == "pip install '.[firmware,flash]'"
    assert all(line.startswith("tinyfl ") for line in lines[1:])
    return [shlex.split(line)[1:] for line in lines[1:]]


@pytest.fixture
def desk(emulators: None, workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    pytest.importorskip("intelhex", reason="needs intelhex: pip install intelhex")
    monkeypatch.setattr("tinyfl.fleets.emulation.firmware", really_built)
    monkeypatch.setattr("tinyfl.building.images.write", really_written)
    monkeypatch.setattr("tinyfl.report.page.write_report", lambda *_: None)
    monkeypatch.setenv("COLUMNS", "150")
    return workbench


def test_the_page_is_followed_to_the_letter(desk: Workbench, capsys: pytest.CaptureFixture[str]) -> None:
    microbit = Microbit()

    def copied(path: Path) -> None:
        microbit.take(path)
        desk.remount("MICROBIT")

    port = desk.plug("ttyACM0", microbit, serial=SERIAL, drive="MICROBIT")  # type: ignore[arg-type]
    desk.on_copy = copied
    said: dict[str, str] = {}
    for words in commands():
        words = [port if word == "/dev/ttyACM0" else word for word in words]
        if words[0] == "monitor":
            said["monitor"] = watched(words)
            continue
        app([*words, "--tasks", "20"] if words[0] == "run" else words, standalone_mode=False)
        said[" ".join(words)] = "".join(capsys.readouterr())

    assert "silent" in said["devices"] and "microbit-v2" in said["devices"]
    assert "cp " in said["flash --board microbit-v2 --dry-run"] and microbit.uart is not silent
    assert "flashed" in said["flash --board microbit-v2"]
    saved = Path("devices.toml").read_text()
    assert 'tags = ["desk"]' in saved and SERIAL in saved and f'id = "{77:016x}"' in saved
    thetas = [json.loads(Path(run, "result.json").read_text())["theta_sha256"] for run in ("runs/desk", "runs/no-desk")]
    assert thetas[0] == thetas[1]
    assert thetas[0][:8] in said["monitor"]
    app(["push", "runs/desk", "--tag", "desk"], standalone_mode=False)
    assert "up to date" in "".join(capsys.readouterr())


def watched(words: list[str]) -> str:
    """What `tinyfl monitor` says until Ctrl-C."""
    command = [sys.executable, "-m", "tinyfl.cli", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        first = [process.stdout.readline() for _ in range(3)]  # that it is connected, what it is, its first status
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=300)
    assert process.returncode == 0, [*first, rest]
    return "".join([*first, rest])
