"""Tools that not every machine has: a test without its tool skips, and says how to get it."""

import shutil

import pytest

from tinyfl.building.boards import load
from tinyfl.building.toolchains import LINUX


def needs(program: str, package: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}: apt-get install {package}")


def needs_tools(board: str, engine: str, toolchain: str) -> None:
    """Skips without what emulates this board and builds its firmware."""
    linux = load(board).core in LINUX
    if engine == "qemu":
        needs(*(("qemu-aarch64", "qemu-user") if linux else ("qemu-system-arm", "qemu-system-arm")))
    if toolchain == "gcc":
        needs(*(("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu") if linux else ("arm-none-eabi-gcc", "gcc-arm-none-eabi")))
