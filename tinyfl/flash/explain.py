"""Why a tool failed, from what it said: cause and cure in plain words, its own last lines, and where all of it is.

The texts are those of pyocd 0.46, OpenOCD 0.12, dfu-util 0.11, BOSSA 1.9.1 and DAPLink, from the tools, their sources and what
users reported. What is not known here is shown as the tool said it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tinyfl.building.boards import Board, Bossac
from tinyfl.devices import udev
from tinyfl.errors.words import plain

LAST_LINES = 4
"""Of the tool's own words, beside ours."""

NOISE = re.compile(
    r"^(Open On-Chip Debugger|Licensed under|For bug reports|\s*http|Copyright|This program is|Please report|dfu-util [\d.]+$|"
    r"dfu-util: Warning: Invalid DFU suffix|dfu-util: A valid DFU suffix|in procedure|at file|shutdown command invoked|"
    r"Warn : An adapter speed is not|Warn : To remove this|srst_only|-+$)"
)


@dataclass(frozen=True)
class KnownFailure:
    """A failure that is known: the tools that have it (none: all), what they then say, and what it means. In ``means``
    {groups of says} and the facts of ``explain`` are filled in."""

    tools: tuple[str, ...]
    says: str
    means: str


DENIED = (
    "you may not use the USB device{usb}. Install the udev rules of all boards, and plug this one in anew:\n"
    f"  {udev.INSTALL}\n"
    "or write this one's alone into that file:\n  {rule}"
)
BUSY = "the probe{probe} is in use by another program, such as a debugger or an IDE. Close it, and flash again."
GONE = "the connection to the board broke off. Check cable and power, plug the board in anew, and flash again."
LOCKED = (
    "the chip is locked ({lock}), and nothing was written. To unlock it erases all of its flash, models and weights included:\n"
    "  {unlock}\nThen flash again."
)
UNERASED = (
    "the flash there could not be erased. Either power is weak, or the chip is protected against writing; to undo that erases "
    "all of its flash, models and weights included:\n  {unlock}\nThen flash again."
)
WRONG = (
    "by what the tool sees, the chip there is not the {chip} of {board}. Check which board hangs on the probe{probe}, and name "
    "it with --board."
)
SILENT_CHIP = (
    "the probe{probe} does not reach the chip. Check that the board has power and that SWDIO, SWCLK and ground are connected; "
    "then hold its reset button while flashing starts, and let go."
)
VERIFY = "what was read back is not what was written. Flash again; if it stays so, the flash is worn out or power is weak."
NO_PROBE = (
    "{tool} finds no debug probe{probe}. Check that the board is plugged in with a cable that carries data; "
    "`tinyfl devices` shows what is there, `tinyfl doctor` whether you may use it."
)
SEVERAL = "more than one probe or board fits. Say which with --probe ID; `tinyfl devices` lists them."
TOO_OLD = "OpenOCD of this machine is older than 0.12, or lacks {file}. Install OpenOCD 0.12 or later."

# In order: what is likelier to be the cause comes before what follows from it.
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
        "the chip does not take what is written ({what}). Is it the {chip} of {board}? If it is, flash again, holding its "
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
        "no board is in DFU mode. Hold BOOT (or BOOT0) of {board} while you press and let go reset, and flash again.",
    ),
    KnownFailure(("dfu-util",), r"vendor specific error|Memory erase function failed|not correctly executed", UNERASED),
    KnownFailure(("dfu-util",), r"is not writeable|can not be erased|No alternate setting|parse memory layout", WRONG),
    KnownFailure(("dfu-util",), r"LIBUSB_ERROR_(NO_DEVICE|IO|PIPE|TIMEOUT)|Lost device|get_status|Error during", GONE),
    KnownFailure(
        ("bossac",),
        r"No device found on|No serial ports available|Failed to open port",
        "no bootloader answers there. Press the reset button of {board} twice, quickly: a light pulses when the bootloader "
        "runs. Then flash again.",
    ),
    KnownFailure(
        ("bossac",),
        r"Device unsupported",
        "this bossac does not know the {chip}. It takes Arduino's, which comes with Arduino's board package for {board}; "
        "Debian's bossa-cli serves Atmel's chips only. Or take another --method.",
    ),
    KnownFailure(("bossac",), r"Verify failed|Page errors", VERIFY),
    KnownFailure(("bossac",), r"exceeds flash size|offset is invalid|Invalid flash page", WRONG),
    KnownFailure(("bossac",), r"operation failed|I/O operation failed|Input/output error", GONE),
)

# Of FAIL.TXT, which a probe's drive shows after a copy that failed: by its text, then by its "type:".
VERDICTS = (
    (r"timed out", "the copy took too long. Copy with nothing else running on the USB port, and flash again."),
    (r"reset/halt", "the probe cannot stop the chip. Unplug the board, wait, plug it in, and flash again."),
    (r"unlock|security", "the chip is locked. Flash with --method pyocd or openocd, which say how to unlock it."),
    (
        r"isn't compatible|start address|load address|file format",
        "the file is not for the chip there. Is it the board you said?",
    ),
    (r"type: .*transient", "it may have been chance. Flash again."),
    (r"type: .*target", "the chip does not take the firmware. Unplug the board, plug it in, and flash again."),
    (r"type: .*(interface|internal)", "the probe's own firmware failed. Plug it in anew, or update the probe's firmware."),
)


def unlocking(board: Board, command: str) -> str:
    """The command that unlocks a chip, with what more that costs on this board."""
    if command and any(isinstance(method, Bossac) for method in board.flash):
        return f"{command}\nThis erases the board's own bootloader too: have its file at hand, and a probe."
    return command


def explained(tool: str, said: str, log: Path, facts: Mapping[str, str]) -> str:
    """What failed and what to do, for a person; ``said`` is the tool's output, which is in ``log`` as a whole.

    ``facts`` has board, chip, probe (its id), usb (an id), unlock (a command) and install, each empty if unknown.
    """
    lines = [line.rstrip() for line in said.splitlines() if line.strip() and not NOISE.search(line)]
    told = "\n".join(f"    {plain(line)}" for line in lines[-LAST_LINES:]) or "    (nothing)"
    return f"{meaning(tool, said, facts) or f'{tool} failed.'}\n  {tool} said:\n{told}\n  all of it: {log}"


def meaning(tool: str, said: str, facts: Mapping[str, str]) -> str:
    """Cause and cure, if this failure is known; else nothing."""
    for known in FAILURES:
        if (not known.tools or tool in known.tools) and (hit := re.search(known.says, said)):
            found = {key: plain(value) for key, value in hit.groupdict().items() if value}
            return known.means.format_map(_facts(tool, said, facts) | found)
    return ""


def _facts(tool: str, said: str, facts: Mapping[str, str]) -> dict[str, str]:
    """What the texts of FAILURES may name."""
    usb = facts.get("usb", "")
    if hit := re.search(r"VID=([0-9a-fA-F]{4}) PID=([0-9a-fA-F]{4})|DFU device ([0-9a-f]{4}):([0-9a-f]{4})", said):
        usb = ":".join(part for part in hit.groups() if part)
    lock = "APPROTECT" if facts.get("chip", "").lower().startswith("nrf") else "read-out protection"
    return {
        "tool": tool,
        "board": facts.get("board", ""),
        "chip": facts.get("chip", ""),
        "probe": f" {facts['probe']}" if facts.get("probe") else "",
        "usb": f" {usb}" if usb else "",
        "rule": udev_rule(usb or "VVVV:PPPP") + ("" if usb else "   (its ids: see lsusb)"),
        "lock": lock,
        "unlock": facts.get("unlock") or "the chip's manual says how; tinyfl knows no command for this method",
        "install": facts.get("install", ""),
        "file": "the manifest's config files",
    }


def udev_rule(usb: str) -> str:
    """The rule that lets whoever is logged in use USB devices with this id ("0483:374b")."""
    return next(line for line in udev.rules([usb]).splitlines() if line.startswith("SUBSYSTEM"))


def explained_verdict(said: str, drive: Path) -> str:
    """The same for FAIL.TXT."""
    cure = next((cure for says, cure in VERDICTS if re.search(says, said)), "Plug the board in anew, and flash again.")
    return f"the board's drive refused the firmware: {cure}\n  {drive / 'FAIL.TXT'} said: {said}"


def timed_out(tool: str, seconds: float, log: Path, line: str) -> str:
    """The message of a tool that was ended at the deadline."""
    return (
        f"{tool} was not done after {seconds:g} s and was ended. Plug the board in anew, and flash again; by hand, to see "
        f"where it waits:\n  {line}\n  all it said: {log}"
    )


# dfu-util ends with an error where the board starts its new firmware before it is asked how it went.
WELL = {"dfu-util": r"File downloaded successfully"}


def went_well(tool: str, code: int, said: str) -> bool:
    """Whether the tool did its work. OpenOCD and pyocd tell by their exit code alone."""
    return code == 0 or (tool in WELL and re.search(WELL[tool], said) is not None)
