"""Checks of this machine for tinyfl's requirements, each with a cure if it fails. Nothing is ever installed or changed."""

import grp
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tinyfl import __version__
from tinyfl.building import boards
from tinyfl.devices import udev
from tinyfl.devices.connected import PYOCD_SECONDS, find_tool, usb_devices
from tinyfl.devices.ports import Port, serial_ports
from tinyfl.errors import ConfigError, InstallError, TinyflError
from tinyfl.errors.words import plain
from tinyfl.flash import methods
from tinyfl.system import cache, clock, proxies
from tinyfl.system.files import TEMPORARY_CURE, private_folder
from tinyfl.system.limits import FEW_FILES, FILES_CURE, most_files

SMALL = 1 << 16
"""Bytes written to try a folder."""

SECONDS = 10.0
"""Time limit for a tool to print its version, in seconds."""

PACKAGES = {
    "ziglang": "tinyfl build: the C compiler for boards",
    "pyelftools": "tinyfl build: the firmware's use of flash and RAM",
    "unicorn": "emulated boards",
}


@dataclass(frozen=True)
class Check:
    """One check: its name, its state "ok", "missing" or "broken", the finding, and the cure. A part that is not ``needed`` by
    tinyfl itself serves ``purpose``."""

    group: str
    name: str
    state: str
    found: str = ""
    cure: str = ""
    purpose: str = ""
    needed: bool = False

    @property
    def ok(self) -> bool:
        return self.state == "ok"


def doctor() -> list[Check]:
    """Runs all checks, in order."""
    ports = serial_ports()
    return [*_python(), *_packages(), *_tools(), *_permissions(ports), *_ports(ports)]


def demand_needed(checks: Iterable[Check]) -> None:
    """Raises InstallError if a part needed by the package itself is missing."""
    missing = [check for check in checks if check.needed and not check.ok]
    if missing:
        raise InstallError(f"this installation lacks {', '.join(check.name for check in missing)}. {missing[0].cure}")


def as_json(checks: Sequence[Check]) -> dict[str, Any]:
    """The checks as plain data."""
    return {"checks": [asdict(check) for check in checks], "ok": all(check.ok for check in checks if check.needed)}


def _python() -> list[Check]:
    from tinyfl.core.binding import library

    found = platform.python_version()
    enough = sys.version_info >= (3, 11)
    return [
        Check("tinyfl", "Python", "ok" if enough else "broken", found, "" if enough else "Take Python 3.11.", needed=True),
        Check("tinyfl", "tinyfl", "ok", __version__, needed=True),
        _part("compiled core", library),
        _part("boards", boards.names),
        _part("firmware", lambda: boards.data("firmware")),
        _cache(),
        _temporary(),
        _files(),
        _clock(),
        _proxies(),
    ]


def _part(name: str, find: Callable[[], Any]) -> Check:
    """Checks a part of the installation: ``find`` returns it, or raises a TinyflError."""
    try:
        found = find()
    except TinyflError as error:
        return Check("tinyfl", name, "missing", cure=str(error), needed=True)
    output = f"{len(found)} manifests" if isinstance(found, list) else str(found) if isinstance(found, Path) else "loads"
    return Check("tinyfl", name, "ok", output, needed=True)


def _cache() -> Check:
    """Checks the folder for firmware built without --out, and for the caches of compilers and libraries."""
    place, missed = cache.place(), cache.missed()
    if place is None:
        return Check("tinyfl", "cache", "broken", missed or cache.NOTHING, cache.CURE, needed=True)
    return Check("tinyfl", "cache", "ok", f"{place}, since {missed}" if missed else str(place), needed=True)


def _temporary() -> Check:
    """Checks the folder for the temporary files of gateways, submitted runs and QEMU boards, by writing there."""
    name, purpose = "temporary files", "gateways, runs on a federation, QEMU boards"
    try:
        with private_folder("tinyfl-doctor-") as folder:
            (folder / "file").write_bytes(bytes(SMALL))
            return Check("tinyfl", name, "ok", str(folder.parent), purpose=purpose)
    except (ConfigError, OSError) as error:
        return Check("tinyfl", name, "broken", str(error), TEMPORARY_CURE, purpose)


def _files() -> Check:
    """Checks the limit of open files, of which an emulated board takes up to five."""
    most = most_files()
    found = f"a process may have {most:,}" if most < sys.maxsize else "no limit"
    enough = most >= FEW_FILES
    return Check("tinyfl", "open files", "ok" if enough else "broken", found, "" if enough else FILES_CURE, "emulated boards")


def _clock() -> Check:
    """Checks that the clock is set from the network: a SuperLink refuses a gateway whose clock is off."""
    now, purpose = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC", "gateways with keys"
    known = clock.set_from_network()
    if known is False:
        return Check("tinyfl", "clock", "broken", f"{now}, not set from the network", clock.CURE, purpose)
    how = "set from the network" if known else "nobody here says whether it is set from the network"
    return Check("tinyfl", "clock", "ok", f"{now}, {how}", purpose=purpose)


def _proxies() -> Check:
    """Checks the proxies in the environment, by which gateways and runs reach a SuperLink."""
    purpose = "gateways, runs on a federation"
    found = ", ".join(f"{name} {address}" for name, address in proxies.proxies().items())
    try:
        proxies.demand_usable()
    except ConfigError as error:
        return Check("tinyfl", "proxies", "broken", found, str(error), purpose)
    exempt = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "this machine only"
    return Check("tinyfl", "proxies", "ok", f"{found}; NO_PROXY: {plain(exempt)}" if found else "none", purpose=purpose)


def _packages() -> list[Check]:
    checks = []
    for name, purpose in PACKAGES.items():
        try:
            checks.append(Check("packages", name, "ok", version(name), purpose=purpose))
        except PackageNotFoundError:
            checks.append(Check("packages", name, "missing", cure="pip install 'tinyfl[firmware]'", purpose=purpose))
    return checks


def _tools() -> list[Check]:
    return [
        _tool("compilers", "arm-none-eabi-gcc", ["--version"], "gcc-arm-none-eabi", "--toolchain gcc; zig serves without it"),
        _tool(
            "compilers",
            "aarch64-linux-gnu-gcc",
            ["--version"],
            "gcc-aarch64-linux-gnu",
            "--toolchain gcc for the board raspberry-pi; zig serves without it",
        ),
        _tool("compilers", "cc", ["--version"], "gcc", "the board posix"),
        _tool("emulators", "qemu-system-arm", ["--version"], "qemu-system-arm", "--engine qemu; unicorn serves without it"),
        _tool("emulators", "qemu-aarch64", ["--version"], "qemu-user", "the board raspberry-pi, emulated"),
        _pyocd(),
        _tool("flash", "openocd", ["--version"], "openocd", _flashes("openocd")),
        _tool("flash", "dfu-util", ["--version"], "dfu-util", _flashes("dfu-util")),
        _bossac(),
    ]


def _flashes(method: str) -> str:
    """The boards that can be flashed by this method, with those that have no other."""
    flashable = [board for board in boards.select("all") if method in {each.method for each in board.flash}]
    names = [board.name if len(board.flash) > 1 else f"{board.name} (its only way)" for board in flashable]
    return "flashing " + (", ".join(names) or "no board that comes with tinyfl")


def _tool(group: str, name: str, arguments: Sequence[str], package: str, purpose: str) -> Check:
    tool = find_tool(name)
    if tool is None:
        cure = f"Install {package} with the system's packages (Debian: sudo apt install {package})."
        return Check(group, name, "missing", cure=cure, purpose=purpose)
    output, code = _run([tool, *arguments], SECONDS)
    works = code == 0
    found = next((text for text in output.splitlines() if re.search(r"\d+\.\d+", text)), tool)
    cure = "" if works else f"{tool} does not run: {output[-200:] or 'no output'}. Reinstall it."
    return Check(group, name, "ok" if works else "broken", found.strip(), cure, purpose)


def _bossac() -> Check:
    """Checks for Arduino's version of bossac, which supports the Nano's chip."""
    purpose, cure = _flashes("bossac"), f"Install {methods.INSTALL['bossac']}."
    tool = methods.tool("bossac")
    if not tool:
        return Check("flash", "bossac", "missing", cure=cure, purpose=purpose)
    output, _ = _run([tool, "--help"], SECONDS)  # exits with an error code
    release = re.search(r"Version \d\S*", output)
    works = "arduino" in tool.lower() or (release is not None and "arduino" in release[0])
    found = f"{tool}, {release[0] if release else 'of no version'}"
    return Check(
        "flash", "bossac", "ok" if works else "broken", found, "" if works else f"It is not Arduino's. {cure}", purpose
    )


def _pyocd() -> Check:
    purpose = _flashes("pyocd")
    tool = find_tool("pyocd")
    if tool is None:
        return Check("flash", "pyocd", "missing", cure="pip install 'tinyfl[flash]'", purpose=purpose)
    output, code = _run([tool, "--version"], 3 * PYOCD_SECONDS)
    if code:
        return Check("flash", "pyocd", "broken", tool, f"It does not run: {output[-200:]}. Reinstall it.", purpose)
    probes, code = _run([tool, "json", "--probes"], 3 * PYOCD_SECONDS)
    problem = re.search(r'"error"\s*:\s*"([^"]*)"', probes)
    if problem or code:
        cure = f"It cannot list probes: {problem[1] if problem else probes[-200:]}. Usually libusb is missing."
        return Check("flash", "pyocd", "broken", output.strip(), cure, purpose)
    return Check("flash", "pyocd", "ok", output.strip(), "", purpose)


def _run(command: Sequence[str], seconds: float) -> tuple[str, int]:
    """A tool's output and its exit code; -1 if it does not run, or does not end in time."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=seconds, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error), -1
    return done.stdout + done.stderr, done.returncode


def _permissions(ports: Sequence[Port]) -> list[Check]:
    checks = [_may_open(port) for port in ports]
    if not checks:
        checks = [Check("permissions", "serial ports", "ok", "none is there to try", purpose="boards on ports")]
    if sys.platform == "linux":
        checks += [_probe_rules(), _modem_manager()]
    return checks


def _may_open(port: Port) -> Check:
    purpose = "the board there"
    if os.access(port.url, os.R_OK | os.W_OK):
        return Check("permissions", port.url, "ok", "may be opened", purpose=purpose)
    try:
        group = grp.getgrgid(Path(port.url).stat().st_gid)
    except (OSError, KeyError) as error:
        return Check("permissions", port.url, "broken", str(error), "Plug it in again.", purpose)
    user = os.environ.get("USER", str(os.getuid()))
    if user in group.gr_mem:
        cure = f"You are in the group {group.gr_name}, but this session began before that: log out and in again."
    else:
        cure = f"sudo usermod -aG {group.gr_name} {user}, then log out and in again."
    return Check("permissions", port.url, "broken", f"only for the group {group.gr_name}", cure, purpose)


def usb_ids() -> tuple[list[str], list[str]]:
    """The USB ids of the manifests' probes and bootloaders, and those of their serial ports."""
    all = boards.select("all")
    probes = [id for board in all for id in (*board.usb.probe, *board.usb.bootloader)]
    return sorted(set(probes)), sorted({id for board in all for link in board.links for id in link.usb})


def _probe_rules() -> Check:
    purpose = "flashing over USB without root"
    probes, _ = usb_ids()
    if os.geteuid() == 0:
        return Check("permissions", "udev rules", "ok", "root needs none", purpose=purpose)
    connected = [each for each in usb_devices() if each.id in probes and each.node]
    closed = sorted({each.id for each in connected if each.node and not os.access(each.node, os.R_OK | os.W_OK)})
    if closed:
        return Check("permissions", "udev rules", "broken", f"{', '.join(closed)} may not be used", udev.INSTALL, purpose)
    missing = udev.without_rule(set(probes) - {each.id for each in connected})
    if not missing:
        return Check("permissions", "udev rules", "ok", f"for all {len(probes)} probes and bootloaders", purpose=purpose)
    found = f"none names {', '.join(missing)} (one by product name, such as *CMSIS-DAP*, may serve too)"
    return Check("permissions", "udev rules", "missing", found, udev.INSTALL, purpose)


def _modem_manager() -> Check:
    """Checks for ModemManager, which may write to a new serial port and disturb other programs' messages."""
    purpose = "newly connected boards that are left alone"
    running = any(_comm(folder) == "ModemManager" for folder in Path("/proc").glob("[0-9]*"))
    if not running:
        return Check("permissions", "ModemManager", "ok", "does not run", purpose=purpose)
    if any("ID_MM_DEVICE_IGNORE" in file.read_text(errors="replace") for file in [Path(udev.FILE)] if file.is_file()):
        return Check("permissions", "ModemManager", "ok", "is kept away by " + udev.FILE, purpose=purpose)
    return Check("permissions", "ModemManager", "broken", "may talk to ports as they appear", udev.INSTALL, purpose)


def _comm(folder: Path) -> str:
    try:
        return (folder / "comm").read_text().strip()
    except OSError:
        return ""


def _ports(ports: Sequence[Port]) -> list[Check]:
    """Lists the ports, and checks that devices.toml, if it exists, can be read."""
    from tinyfl.devices import inventory

    fitting = [f"{port.url} ({' or '.join(port.boards)})" for port in ports if port.boards]
    found = f"{len(ports)} found" + (f", of boards: {', '.join(fitting)}" if fitting else ", none with a board's USB ids")
    checks = [Check("ports", "serial ports", "ok", found, purpose="boards on ports")]
    if inventory.DEVICES.is_file():
        try:
            saved = inventory.read_inventory()
            checks.append(Check("ports", str(inventory.DEVICES), "ok", f"{len(saved)} devices", purpose="boards by id and tag"))
        except ConfigError as error:
            checks.append(Check("ports", str(inventory.DEVICES), "broken", "", str(error), "boards by id and tag"))
    return checks
