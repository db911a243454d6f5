"""Linux's udev rules: those that give users access to the boards' USB devices, and a check of the installed ones."""

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

FILE = "/etc/udev/rules.d/70-tinyfl.rules"
"""Path of the rules; uaccess works only in files sorted before 73-seat-late.rules."""

FOLDERS = tuple(Path(root) / "udev/rules.d" for root in ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"))

INSTALL = f"tinyfl doctor --udev-rules | sudo tee {FILE} && sudo udevadm control --reload && sudo udevadm trigger"

_MATCH = re.compile(r'(ATTRS?\{id(?:Vendor|Product)\}|ENV\{ID_(?:VENDOR|MODEL)_ID\})\s*==\s*"([^"]*)"')
_GRANT = re.compile(r'TAG\s*\+?=\s*"uaccess"|MODE\s*:?=\s*"0?66[0-7]"')


def rules(probes: Iterable[str], ports: Iterable[str] = ()) -> str:
    """The text of a rules file that gives the user at the keyboard, and the group plugdev, access to the USB devices with the
    ids ``probes`` (such as "0483:374b"), and keeps ModemManager off the serial ports of devices with the ids ``ports``."""
    lines = [
        f"# {FILE}: debug probes, bootloaders and serial ports of the boards that tinyfl knows",
        'ACTION=="remove", GOTO="tinyfl_end"',
    ]
    for id in sorted(set(probes)):
        lines.append(f'SUBSYSTEM=="usb|hidraw", {_ids(id)}, MODE="0660", GROUP="plugdev", TAG+="uaccess"')
    for id in sorted(set(ports)):
        lines.append(f'SUBSYSTEM=="usb|tty", {_ids(id)}, TAG+="uaccess", ENV{{ID_MM_DEVICE_IGNORE}}="1"')
    return "\n".join([*lines, 'LABEL="tinyfl_end"', ""])


def without_rule(ids: Iterable[str], folders: Sequence[Path] | None = None) -> list[str]:
    """The USB ids to which no installed rule gives users access."""
    granted = [
        grant
        for folder in (FOLDERS if folders is None else folders)
        for file in sorted(folder.glob("*.rules"))
        for grant in _grants(file)
    ]
    return [id for id in sorted(set(ids)) if not any(fits(id) for fits in granted)]


def _ids(id: str) -> str:
    vendor, _, product = id.partition(":")
    return f'ATTRS{{idVendor}}=="{vendor}", ATTRS{{idProduct}}=="{product}"'


def _grants(file: Path) -> list[partial[bool]]:
    """For each rule of a file that gives users access, a function to test whether it matches an id."""
    try:
        text = file.read_text(errors="replace").replace("\\\n", " ")
    except OSError:
        return []
    found = []
    for line in text.splitlines():
        named = {"VENDOR" if "endor" in key or "VENDOR" in key else "PRODUCT": value for key, value in _MATCH.findall(line)}
        if "VENDOR" in named and _GRANT.search(line) and not line.lstrip().startswith("#"):
            found.append(partial(_fits, named["VENDOR"], named.get("PRODUCT", "*")))
    return found


def _fits(vendors: str, products: str, id: str) -> bool:
    vendor, _, product = id.partition(":")
    return any(fnmatchcase(vendor, each) for each in vendors.split("|")) and any(
        fnmatchcase(product, each) for each in products.split("|")
    )
