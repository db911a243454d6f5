"""Explains a tool's failure from its output: cause and cure, its last lines, and the path of the log.

The patterns are for pyocd 0.46, OpenOCD 0.12, dfu-util 0.11, BOSSA 1.9.1 and DAPLink, taken from the tools, their sources and
users' reports. Unknown output is shown as it is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tinyfl.building.boards import Board, Bossac
from tinyfl.devices import udev
from tinyfl.errors.words import plain

LAST_LINES = 4
"""Lines of the tool's output shown with an explanation."""

NOISE = re.compile(
    r"^(Open On-Chip Debugger|Licensed under|For bug reports|\s*http|Copyright|This program is|Please report|dfu-util [\d.]+$|"
    r"dfu-util: Warning: Invalid DFU suffix|dfu-util: A valid DFU suffix|in procedure|at file|shutdown command invoked|"
    r"Warn : An adapter speed is not|Warn : To remove this|srst_only|-+$)"
)


@dataclass(frozen=True)
class KnownFailure:
    """A known failure: its tools (none: all), a ``pattern`` in their output, and its ``meaning``, a format string over the
    pattern's groups and the facts of ``explained``."""

    tools: tuple[str, ...]
    pattern: str
    meaning: str


DENIED = (
    "no permission to use the USB device{usb}. Install the udev rules for all boards, and plug this one in again:\n"
    f"  {udev.INSTALL}\n"
    "or write only this board's rule into that file:\n  {rule}"
)
BUSY = "the probe{probe} is in use by another program, such as a debugger or an IDE. Close it, and flash again."
GONE = "the connection to the board was lost. Check cable and power, plug the board in again, and flash again."
LOCKED = (
    "the chip is locked ({lock}), and nothing was written. Unlocking it erases all of its flash, models and weights included:\n"
    "  {unlock}\nThen flash again."
)
UNERASED = (
    "erasing the flash failed. Either power is weak, or the chip is write-protected; removing the protection erases all of its "
    "flash, models and weights included:\n  {unlock}\nThen flash again."
)
WRONG = (
    "according to the tool, the chip is not the {chip} of {board}. Check which board is connected to the probe{probe}, and "
    "give it with --board."
)
SILENT_CHIP = (
    "the probe{probe} does not reach the chip. Check that the board has power and that SWDIO, SWCLK and ground are connected; "
    "then hold its reset button while flashing starts, and release it."
)
VERIFY = "the data read back differ from those written. Flash again; if that repeats, the flash is worn out or power is weak."
NO_PROBE = (
    "{tool} finds no debug probe{probe}. Check that the board is plugged in with a cable that carries data; "
    "`tinyfl devices` lists the connected boards, `tinyfl doctor` checks permissions."
)
SEVERAL = "more than one probe or board matches. Select one with --probe ID; `tinyfl devices` lists them."
TOO_OLD = "OpenOCD on this machine is older than 0.12, or lacks {file}. Install OpenOCD 0.12 or later."

# In order: causes before their consequences.
FAILURES = (
    KnownFailure((), r"LIBUSB_ERROR_ACCESS|\[Errno 13\]|[Aa]ccess denied \(insufficient|Permission denied", DENIED),
    KnownFailure((), r"LIBUSB_ERROR_BUSY|\[Errno 16\]|Resource busy|Unable to claim interface|Device or resource busy", BUSY),
    KnownFailure(("pyocd",), r"More than one debug probe matches|Enter the number of the debug probe", SEVERAL),
    KnownFailure(("pyocd",), r"No connected debug probe|No available debug probes", NO_PROBE),
    KnownFailure(
        ("pyocd",), r"Target type (?P<target>\S+) not recognized", "this pyocd does not know the chip {target}. {install}"
    ),
    KnownFailure(("pyocd",), r"APPROTECT enabled|unable to unlock|mass_erase needed", LOCKED),
    KnownFailure(
        ("pyocd",), r"\[Errno 19\]|No such device|read thread exited|USB [Ee]rror|Timeout reading from|Errno 110", GONE
    ),
    KnownFailure(
        ("pyocd",), r"No cores were discovered|No ACK|WAIT ACK|FAULT ACK|SWD protocol error|Unexpected ACK", SILENT_CHIP
    ),
    KnownFailure(("pyocd",), r"no memory region defined|invalid flash address|outside (of )?(the )?flash", WRONG),
    KnownFailure(
        ("pyocd",),
        r"(?P<what>flash (erase|program|init)[^\n(]*?(failure|timed out))",
        "the chip rejects the data ({what}). Check that it is the {chip} of {board}. If so, flash again, holding its "
        "reset button at the start.",
    ),
    KnownFailure(("openocd",), r"Can't find (?P<file>\S+\.cfg)", TOO_OLD),
    KnownFailure(("openocd",), r"invalid command name \"(adapter|gdb_port|tcl_port|telnet_port)|adapter serial", TOO_OLD),
    KnownFailure(("openocd",), r"serial mismatch|No device matches the serial string", NO_PROBE),
    KnownFailure(("openocd",), r"Multiple devices found", SEVERAL),
    KnownFailure(("openocd",), r"device protected|Flash is read.?p|[Rr]ead ?out protection|Could not find MEM-AP", LOCKED),
    KnownFailure(("openocd",), r"failed erasing sectors", UNERASED),
    KnownFailure(
        ("openocd",), r"UNEXPECTED idcode|Cannot identify target|HWID 0x\w+ mismatch|no flash bank found for address", WRONG
    ),
    KnownFailure(("openocd",), r"Unknown flash device|BOOT ROM not found", WRONG),
    KnownFailure(
        ("openocd",), r"LIBUSB_ERROR_(NO_DEVICE|IO|PIPE|TIMEOUT)|CMSIS-DAP command \S+ failed|USB (read|write) error", GONE
    ),
    KnownFailure(("openocd",), r"Verify Failed|checksum mismatch|verify failed|contents differ", VERIFY),
    KnownFailure(
        ("openocd",), r"cannot read IDR|unable to connect to the target|examination failed|not examined|not halted", SILENT_CHIP
    ),
    KnownFailure(
        ("openocd",),
        r"open failed|unable to find a matching CMSIS-DAP|no device found|no ST-LINK detected|Can't find a",
        NO_PROBE,
    ),
    KnownFailure(("dfu-util",), r"More than one DFU capable", SEVERAL),
    KnownFailure(
        ("dfu-util",),
        r"No DFU capable USB device|Cannot open device",
        "no board is in DFU mode. Hold BOOT (or BOOT0) of {board} while you press and release reset, and flash again.",
    ),
    KnownFailure(("dfu-util",), r"vendor specific error|Memory erase function failed|not correctly executed", UNERASED),
    KnownFailure(("dfu-util",), r"is not writeable|can not be erased|No alternate setting|parse memory layout", WRONG),
    KnownFailure(("dfu-util",), r"LIBUSB_ERROR_(NO_DEVICE|IO|PIPE|TIMEOUT)|Lost device|get_status|Error during", GONE),
    KnownFailure(
        ("bossac",),
        r"No device found on|No serial ports available|Failed to open port",
        "no bootloader answers there. Press the reset button of {board} twice, quickly: an LED pulses while the bootloader "
        "runs. Then flash again.",
    ),
    KnownFailure(
        ("bossac",),
        r"Device unsupported",
        "this bossac does not know the {chip}. Install Arduino's, which comes with Arduino's board package for {board} "
        "(Debian's bossa-cli supports Atmel's chips only), or use another --method.",
    ),
    KnownFailure(("bossac",), r"Verify failed|Page errors", VERIFY),
    KnownFailure(("bossac",), r"exceeds flash size|offset is invalid|Invalid flash page", WRONG),
    KnownFailure(("bossac",), r"operation failed|I/O operation failed|Input/output error", GONE),
)

# Meanings of FAIL.TXT, which a probe's drive shows after a failed copy: by its text, then by its "type:".
VERDICTS = (
    (r"timed out", "the copy took too long. Stop other traffic on the USB port, and flash again."),
    (r"reset/halt", "the probe cannot stop the chip. Unplug the board, wait, plug it in, and flash again."),
    (r"unlock|security", "the chip is locked. Flash with --method pyocd or openocd, which tell how to unlock it."),
    (
        r"isn't compatible|start address|load address|file format",
        "the file does not fit the chip. Check that --board is right.",
    ),
    (r"type: .*transient", "the failure may be transient. Flash again."),
    (r"type: .*target", "the chip rejects the firmware. Unplug the board, plug it in, and flash again."),
    (r"type: .*(interface|internal)", "the probe's own firmware failed. Plug the probe in again, or update its firmware."),
)


def unlocking(board: Board, command: str) -> str:
    """The command that unlocks a chip, with a warning if it also erases the board's bootloader."""
    if command and any(isinstance(method, Bossac) for method in board.flash):
        return f"{command}\nThis also erases the board's own bootloader: have its file and a probe at hand."
    return command


def explained(tool: str, output: str, log: Path, facts: Mapping[str, str]) -> str:
    """A message with cause and cure; ``output`` is the tool's, complete in the file ``log``.

    ``facts`` has board, chip, probe (its id), usb (an id), unlock (a command) and install, each empty if unknown.
    """
    lines = [line.rstrip() for line in output.splitlines() if line.strip() and not NOISE.search(line)]
    tail = "\n".join(f"    {plain(line)}" for line in lines[-LAST_LINES:]) or "    (nothing)"
    return f"{meaning(tool, output, facts) or f'{tool} failed.'}\n  last lines of {tool}:\n{tail}\n  full log: {log}"


def meaning(tool: str, output: str, facts: Mapping[str, str]) -> str:
    """Cause and cure of a known failure; else empty."""
    for known in FAILURES:
        if (not known.tools or tool in known.tools) and (hit := re.search(known.pattern, output)):
            found = {key: plain(value) for key, value in hit.groupdict().items() if value}
            return known.meaning.format_map(_facts(tool, output, facts) | found)
    return ""


def _facts(tool: str, output: str, facts: Mapping[str, str]) -> dict[str, str]:
    """The values for the format strings of FAILURES."""
    usb = facts.get("usb", "")
    if hit := re.search(r"VID=([0-9a-fA-F]{4}) PID=([0-9a-fA-F]{4})|DFU device ([0-9a-f]{4}):([0-9a-f]{4})", output):
        usb = ":".join(part for part in hit.groups() if part)
    lock = "APPROTECT" if facts.get("chip", "").lower().startswith("nrf") else "read-out protection"
    return {
        "tool": tool,
        "board": facts.get("board", ""),
        "chip": facts.get("chip", ""),
        "probe": f" {facts['probe']}" if facts.get("probe") else "",
        "usb": f" {usb}" if usb else "",
        "rule": udev_rule(usb or "VVVV:PPPP") + ("" if usb else "   (for its ids, see lsusb)"),
        "lock": lock,
        "unlock": facts.get("unlock") or "see the chip's manual; tinyfl has no command for this method",
        "install": facts.get("install", ""),
        "file": "the manifest's config files",
    }


def udev_rule(usb: str) -> str:
    """The rule that gives logged-in users access to USB devices with this id ("0483:374b")."""
    return next(line for line in udev.rules([usb]).splitlines() if line.startswith("SUBSYSTEM"))


def explained_verdict(text: str, drive: Path) -> str:
    """A message with cause and cure for the text of FAIL.TXT."""
    cure = next((cure for pattern, cure in VERDICTS if re.search(pattern, text)), "Plug the board in again, and flash again.")
    return f"the board's drive refused the firmware: {cure}\n  {drive / 'FAIL.TXT'}: {text}"


def timed_out(tool: str, seconds: float, log: Path, line: str) -> str:
    """The message for a tool that exceeded its time limit."""
    return (
        f"{tool} did not finish within {seconds:g} s and was stopped. Plug the board in again, and flash again; or run it by "
        f"hand, to see where it hangs:\n  {line}\n  full log: {log}"
    )


# dfu-util exits with an error if the board starts its new firmware before the final status query.
SUCCESS = {"dfu-util": r"File downloaded successfully"}


def succeeded(tool: str, code: int, output: str) -> bool:
    """Whether the tool succeeded. For OpenOCD and pyocd the exit code suffices."""
    return code == 0 or (tool in SUCCESS and re.search(SUCCESS[tool], output) is not None)
