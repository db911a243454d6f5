"""Flash methods as pure functions: from manifest, image and place to a shell command."""

import shutil
import sys
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from tinyfl.building.boards import Bossac, Copy, DfuUtil, FlashMethod, Openocd, Pyocd
from tinyfl.building.images import Format
from tinyfl.devices.connected import find_tool
from tinyfl.errors import ConfigError
from tinyfl.errors.words import shell, tcl
from tinyfl.system import cache

INSTALL = {
    "pyocd": "pip install 'tinyfl[flash]'",
    "openocd": "apt-get install openocd (0.12 or later)",
    "dfu-util": "apt-get install dfu-util",
    "bossac": "Arduino's bossac, which comes with its board package (Debian's bossa-cli does not know the nRF52840)",
}
"""How to install each tool."""

NAMES = ("pyocd", "openocd", "copy", "bossac", "dfu-util")
"""Names of all methods."""

ARDUINO = (Path(".arduino15"), Path("Library/Arduino15"))
"""Arduino's folders for board packages in the user's home."""

TOUCH_BAUD = 1200
"""Baud rate that starts Arduino's bootloaders when a port is opened at it and closed."""

# No server ports, so that several OpenOCD processes run in parallel.
QUIET = ("gdb_port disabled", "tcl_port disabled", "telnet_port disabled")


def image_format(method: FlashMethod) -> Format:
    """The method's image format: hex, bin or uf2."""
    if isinstance(method, Copy):
        return method.format
    return "hex" if isinstance(method, Pyocd | Openocd) else "bin"


def command(
    method: FlashMethod, image: Path, place: str, bootloader: Sequence[str] = (), by_socket: bool = False
) -> tuple[str, ...]:
    """The command that writes ``image`` at ``place``: a probe's id, a drive's path, a bootloader's port, or the serial number
    of a device in DFU mode; empty: any device. ``by_socket``: ``place`` is the USB socket of a probe or device. ``bootloader``
    are the USB ids in DFU mode."""
    if isinstance(method, Pyocd):
        # A locked chip is an error: it is never erased without the user's consent.
        return ("pyocd", "flash", "--no-wait", "--target", method.target, *_uid(place), "-O", "auto_unlock=false", str(image))
    if isinstance(method, Openocd):
        files = [part for file in method.config for part in ("-f", file)]
        probe = (f"{_openocd_name(by_socket)} {tcl(place)}",) if place else ()
        _demand_braced(image)
        commands = [part for line in (*probe, *QUIET, f"program {tcl(image)} verify reset exit") for part in ("-c", line)]
        return ("openocd", *files, *commands)
    if isinstance(method, Bossac):
        offset = (f"--offset={method.offset:#x}",) if method.offset else ()
        return ("bossac", f"--port={place or 'PORT'}", "-U", "-e", "-w", "-v", *offset, "-R", str(image))
    if isinstance(method, DfuUtil):
        device = ("--device", bootloader[0]) if bootloader else ()
        # dfu-util takes NORMAL,DFU: the serial number after the comma is the one in DFU mode.
        selector = ("--path", place) if by_socket else ("--serial", f",{place}" if "," in place else place)
        serial = selector if place else ()
        at = f"{method.address:#010x}:leave"
        return ("dfu-util", *device, *serial, "--alt", str(method.alt), "--dfuse-address", at, "--download", str(image))
    return ("cp", str(image), f"{place}/")


def _uid(place: str) -> tuple[str, ...]:
    """pyocd's option for one probe; joined with '=' if the serial number looks like an option."""
    return (f"--uid={place}",) if place.startswith("-") else ("--uid", place) if place else ()


def _openocd_name(by_socket: bool) -> str:
    """OpenOCD's command for selecting a probe."""
    return "adapter usb location" if by_socket else "adapter serial"


def _demand_braced(image: Path) -> None:
    """Raises ConfigError for a path that breaks OpenOCD's ``program``, which puts it between braces and parses it as Tcl
    again."""
    depths = list(accumulate({"{": 1, "}": -1}.get(character, 0) for character in str(image)))
    if "\\" in str(image) or min(depths) < 0 or depths[-1]:
        raise ConfigError(f"OpenOCD cannot parse the path {image}. Give --out a folder without braces and backslashes.")


def touch(port: str) -> tuple[str, ...]:
    """The shell command that starts an Arduino's bootloader (tinyfl opens the port itself)."""
    return ("stty", "-f" if sys.platform == "darwin" else "-F", port, str(TOUCH_BAUD))


def erases(method: FlashMethod) -> str:
    """The method's effect on flash outside the firmware; empty if none. Drives of debug probes do as they choose."""
    if isinstance(method, Bossac):
        return "erases all of the flash, models and weights included"
    if isinstance(method, Copy) and method.format != "uf2":
        return "may erase all of the flash, models and weights included"
    return ""


def unlock(method: FlashMethod, place: str, by_socket: bool = False) -> str:
    """The command that unlocks, and erases, a chip; empty if there is none."""
    if isinstance(method, Pyocd):
        return shell("pyocd", "erase", "--mass", "--target", method.target, *_uid(place))
    if isinstance(method, Openocd):
        files = [part for file in method.config for part in ("-f", file)]
        erase = next((what for chip, what in UNLOCKS.items() if any(chip in file for file in method.config)), "")
        probe = ["-c", f"{_openocd_name(by_socket)} {tcl(place)}"] if place else []
        return shell("openocd", *files, *probe, "-c", erase) if erase else ""
    if isinstance(method, DfuUtil):
        return f"dfu-util --alt {method.alt} --dfuse-address {method.address:#010x}:unprotect:force"
    return ""


# By part of the config file's name. Each erases the whole flash.
UNLOCKS = {
    "nrf52": "init; nrf52_recover; exit",
    "f4": "init; reset halt; stm32f2x unlock 0; reset halt; exit",
    "f7": "init; reset halt; stm32f2x unlock 0; reset halt; exit",
}


def tool(name: str) -> str:
    """The path of the tool; empty if it is not installed. Arduino's bossac takes precedence over the system's."""
    if name in ("copy", "cp"):
        return "cp"
    if name == "bossac" and (home := cache.home()):
        for folder in ARDUINO:
            if found := sorted((home / folder).glob("packages/arduino/tools/bossac/*arduino*/bossac")):
                return str(found[-1])
    return find_tool(name) or ""


def located(argv: Sequence[str]) -> tuple[str, ...]:
    """The command, with its tool's path unless the shell finds the same tool by name."""
    path = tool(argv[0])
    return tuple(argv) if not path or path == shutil.which(argv[0]) or path == "cp" else (path, *argv[1:])
