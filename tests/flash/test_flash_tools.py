"""Every command line that tinyfl makes, held against the tools' own parsers. What is not installed is skipped by name."""

import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tinyfl.building import boards
from tinyfl.building.boards import Board, FlashMethod
from tinyfl.devices.connected import find_tool
from tinyfl.flash import explain, methods

PACKAGES = {
    "pyocd": "pip install pyocd", "openocd": "apt-get install openocd", "dfu-util": "apt-get install dfu-util",
    "bossac": "apt-get install bossa-cli",
}  # fmt: skip

WAYS = [
    pytest.param(board, method, id=f"{board.name}-{method.method}")
    for board in map(boards.load, boards.names())
    for method in board.flash
    if method.method != "copy"
]


def needed(tool: str) -> str:
    path = shutil.which(tool) if tool == "bossac" else find_tool(tool)
    if not path:
        pytest.skip(f"needs {tool}: {PACKAGES[tool]}")
    return path


@cache
def said(*argv: str) -> str:
    """What the tool prints."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    return done.stdout + done.stderr


@pytest.mark.parametrize(("board", "method"), WAYS)
def test_every_option_stands_in_the_tools_help(board: Board, method: FlashMethod, tmp_path: Path) -> None:
    argv = methods.command(method, tmp_path / "image.hex", "9904", board.usb.bootloader)
    path = needed(argv[0])
    known = said(path, "flash", "--help") if argv[0] == "pyocd" else said(path, "--help")
    options = [word.partition("=")[0] for word in argv[1:] if re.match(r"--?[A-Za-z]", word)]
    assert options
    for option in options:
        assert re.search(rf"(^|[\s,\[]){re.escape(option)}($|[\s,=|\]])", known, re.MULTILINE), f"{option} is not in:\n{known}"


@pytest.mark.parametrize(("board", "method"), WAYS)
def test_the_tool_takes_the_command_and_finds_no_board(board: Board, method: FlashMethod, tmp_path: Path) -> None:
    """Without hardware each gets as far as looking for it; a serial number that none has makes sure of that."""
    image = tmp_path / "an image.hex"
    image.write_text(":00000001FF\n")
    place = "/dev/no-such-port" if method.method == "bossac" else "no-such-probe"
    argv = methods.command(method, image, place, board.usb.bootloader)
    words = said(needed(argv[0]), *argv[1:])
    facts = {"board": board.name, "chip": board.chip, "probe": place}
    meaning = explain.meaning(argv[0], words, facts)
    looked_in_vain = ("finds no debug probe no-such-probe", "no board is in DFU mode", "no bootloader answers there")
    assert meaning.startswith(tuple(f"{argv[0]} {each}" for each in looked_in_vain) + looked_in_vain), words


def test_pyocd_knows_every_target() -> None:
    listed = said(needed("pyocd"), "list", "--targets")
    for board in map(boards.load, boards.names()):
        for method in board.flash:
            if isinstance(method, boards.Pyocd):
                assert re.search(rf"^\s*{re.escape(method.target)}\s", listed, re.MULTILINE), f"{method.target} of {board.name}"


@pytest.mark.slow
def test_pyocd_is_told_not_to_erase_a_locked_chip() -> None:
    options = said(needed("pyocd"), "--help-options")
    assert re.search(r"auto_unlock", options)
    python = f"""#{sys.executable}
from pyocd.utility.cmdline import convert_session_options
assert convert_session_options(["auto_unlock=false"]) == {{"auto_unlock": False}}
"""
    if subprocess.run([sys.executable, "-c", "import pyocd"], capture_output=True).returncode:
        pytest.skip("needs pyocd beside this Python: pip install pyocd")
    subprocess.run([sys.executable, "-c", python], check=True)


CONFIGS = sorted({method.config for board in map(boards.load, boards.names()) for method in board.flash
                  if isinstance(method, boards.Openocd)})  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS)
def test_openocd_has_the_config_files_and_the_port_options(config: tuple[str, ...]) -> None:
    files = [word for file in config for word in ("-f", file)]
    lines = ["adapter serial 9904", *methods.QUIET, "shutdown"]
    done = subprocess.run(
        [needed("openocd"), *files, *(word for line in lines for word in ("-c", line))],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0 and "Error" not in done.stderr, done.stderr


def test_openocd_programs_the_file_that_is_named(tmp_path: Path) -> None:
    """Its own ``program`` runs to the end, with stand-ins for what needs hardware, on a path with a space and brackets."""
    image = tmp_path / "an image [1] {2}.hex"
    program = methods.command(boards.Openocd(method="openocd", config=("any.cfg",)), image, "")[-1]
    stand_ins = [
        "proc init {} {}", "proc poll {args} {}", "proc reset {args} {echo \"reset $args\"}",
        "proc flash {args} {echo \"<[lindex $args end]>\"}", "proc verify_image {args} {echo \"verified <[lindex $args "
        "end]>\"}",
    ]  # fmt: skip
    words = said(needed("openocd"), *(word for line in (*stand_ins, *methods.QUIET, program) for word in ("-c", line)))
    assert f"<{image}>" in words and f"verified <{image}>" in words, words
    assert "** Verified OK **" in words and "reset run" in words, words


UNLOCKED = [
    pytest.param(method, id=" ".join(method.config))
    for board in map(boards.load, boards.names())
    for method in board.flash
    if isinstance(method, boards.Openocd) and methods.unlock(method, "")
]


@pytest.mark.parametrize("method", UNLOCKED)
def test_openocd_knows_the_command_that_unlocks(method: boards.Openocd) -> None:
    line = methods.unlock(method, "")
    command = re.findall(r"(nrf52_recover|stm32f2x unlock)", line)[0].split()[0]
    files = [word for file in method.config for word in ("-f", file)]
    words = said(needed("openocd"), *files, "-c", f"puts <[info commands {command}]>", "-c", "shutdown")
    assert f"<{command}>" in words, words


def test_dfu_util_knows_how_to_unlock() -> None:
    words = said(needed("dfu-util"), "--help")
    assert "unprotect" in words and "force" in words and "leave" in words
