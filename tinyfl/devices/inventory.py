"""devices.toml: the boards that a user has, and which of them are meant.

    [[device]]
    id = "3a0034000951373239333535"     # the board's unique id: what a board is known by
    board = "nucleo-f401re"             # its kind
    tags = ["lab", "window"]            # the user's own words
    port = "/dev/ttyACM0"               # where it was last
    usb-serial = "066DFF495056805087"   # of that port, if it has one
    usb-location = "1-1.2:1.2"          # the socket it is plugged into, which tells it from others with that serial number
    baud = 921600                       # only where it is not the manifest's
    manifest = "my-board.toml"          # of a board of one's own, seen from this file's folder

It is the user's file. Saving changes what is said of the port and the kind of devices found, adds tags that are asked for, and
appends devices that are new; all else, comments and keys unknown to tinyfl included, stays as it was.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyfl.devices.connected import Device
from tinyfl.devices.ports import Port, port, serial_ports, speeds
from tinyfl.errors import ConfigError
from tinyfl.errors.words import plain, shell
from tinyfl.system import locks
from tinyfl.system.files import write_whole

DEVICES = Path("devices.toml")
"""Where it is, if nothing else is said."""

TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
ID = re.compile(r"(?:[0-9a-f]{2}){1,16}")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Saved:
    """A device as the file has it: its id in hexadecimal, its kind, tags, the url of its last port, that port's USB serial
    number, its baud (0: as the port's manifest has it), its manifest's path, and where the port was plugged in. What the file
    does not say is empty."""

    id: str
    board: str = ""
    tags: tuple[str, ...] = ()
    port: str = ""
    usb_serial: str = ""
    baud: int = 0
    manifest: str = ""
    usb_location: str = ""


@dataclass(frozen=True)
class Selection:
    """Which devices are meant: of one of the ``boards``, and with one of the ``ids`` (or beginnings of ids), and with one of
    the ``tags``, and at one of the ``ports`` (urls); what is empty leaves all."""

    boards: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chosen:
    """The devices that are meant and ``there``; those of devices.toml, or asked for by id, that did not answer (``missing``),
    with the port where each might be and why it cannot be used, if one is known; and other ports with boards of a kind that is
    meant, whose ids nobody knows since they do not answer (``unclear``)."""

    there: tuple[Device, ...]
    missing: tuple[tuple[Saved, Device | None], ...]
    unclear: tuple[Device, ...]


def selection(
    boards: Iterable[str] = (),
    ids: Iterable[str] = (),
    tags: Iterable[str] = (),
    ports: Iterable[str] = (),
    everything: bool = False,
) -> Selection:
    """What a command line's options ask for; a board may be the path of its manifest too.

    Raises ConfigError where they ask for nothing, or for everything and less.
    """
    from tinyfl.building.boards import load

    kinds = tuple(load(name).name if name.endswith(".toml") else name for name in boards)
    now = serial_ports()
    asked = Selection(kinds, hexadecimal(ids), tuple(tags), tuple(port(url, now=now).url for url in ports))
    if everything == (asked != Selection()):
        raise ConfigError("which boards are meant? Give --all, or any of --board, --id, --tag and --port.")
    return asked


def hexadecimal(ids: Iterable[str]) -> tuple[str, ...]:
    """The ids, or beginnings of ids, of a command line. Raises ConfigError for one that is none."""
    lower = tuple(id.lower() for id in ids)
    for id in lower:
        if not re.fullmatch(r"[0-9a-f]{1,32}", id):
            raise ConfigError(f"--id {id!r} is no board's id: give hexadecimal digits, all of them or the first few.")
    return lower


def read_inventory(path: Path | None = None) -> tuple[Saved, ...]:
    """The devices in the file at ``path``, or with None in DEVICES, if there is one.

    Raises ConfigError for a file that is not as the module's page says, or a ``path`` where none is.
    """
    if path and not path.exists():
        raise ConfigError(f"there is no file {path}. To write one: {shell('tinyfl', 'devices', '--save', '--inventory', path)}")
    return _devices(_text(path or DEVICES), path or DEVICES)


def demand_distinct(found: Iterable[Device]) -> None:
    """Raises ConfigError where two boards have one id: neither is then known by it."""
    at: dict[str, str] = {}
    for device in found:
        if device.id and at.setdefault(device.id, device.port.url) != device.port.url:
            raise ConfigError(
                f"two boards say they are {device.id}, at {at[device.id]} and {device.port.url}. Give one of them an identity "
                "of its own (docs/firmware.md, identity), unplug it, or name the port that is meant with --port."
            )


def select(asked: Selection, found: Sequence[Device], saved: Sequence[Saved] = (), path: Path | None = None) -> Chosen:
    """Which of the devices ``found`` and ``saved`` (in the file at ``path``) are meant: flash and push both ask here.

    Raises ConfigError for a tag that no device has, a board that is none, the beginning of an id that is several devices', or
    an id that several boards have.
    """
    from tinyfl.building.boards import names

    known = {each.id: each for each in saved}
    tags = {tag for each in saved for tag in each.tags}
    for tag in asked.tags:
        if tag not in tags:
            raise ConfigError(
                f"no device has the tag {tag!r}; there are {', '.join(sorted(tags)) or 'none'}. Give devices tags in "
                f"{path or DEVICES}, or save them with: {shell('tinyfl', 'devices', '--save', '--tag', tag)}"
            )
    kinds = {*names(), *(each.board for each in saved), *(kind for each in found for kind in each.boards)} - {""}
    for kind in asked.boards:
        if kind not in kinds:
            raise ConfigError(f"no board is called {kind!r}. There are: {', '.join(sorted(kinds))}.")
    answered = {each.id for each in found if each.id}
    ids = _whole(asked.ids, [*known, *sorted(answered - set(known))])

    def meant(id: str, board: str) -> bool:
        has = known[id].tags if id in known else ()
        return (
            (not asked.boards or board in asked.boards)
            and (not ids or id in ids)
            and (not asked.tags or not set(asked.tags).isdisjoint(has))
        )

    def at(device: Device) -> bool:
        return not asked.ports or device.port.url in asked.ports

    there = tuple(device for device in found if device.id and meant(device.id, device.boards[0]) and at(device))
    demand_distinct(there)
    absent = [] if asked.ports else [each for each in saved if each.id not in answered and meant(each.id, each.board)]
    absent += [Saved(id) for id in ids if id not in answered and id not in known]
    missing = tuple((each, _perhaps(each, found, saved)) for each in absent)
    taken = {device.port.url for _, device in missing if device}
    unclear = tuple(
        each
        for each in found
        if each.state not in ("free", "unknown")
        and at(each)
        and each.port.url not in taken
        and not (asked.ids or asked.tags)
        and (not asked.boards or not each.boards or not set(asked.boards).isdisjoint(each.boards))
    )
    return Chosen(there, missing, unclear)


def ports_of(saved: Sequence[Saved]) -> list[Port]:
    """Where to ask for the devices ``saved``: at the ports that have their USB serial numbers now or, of a device without one,
    at the port where it was last. That is only a place to ask: the board there says who it is."""
    now = serial_ports()
    found: dict[str, Port] = {}
    for each in saved:
        same = [other for other in now if each.usb_serial and other.serial == each.usb_serial]
        same = same or [other for other in now if each.usb_location and _may_be_at(each, other, saved)]
        last = [each.port] if each.port and not each.usb_serial else []
        for url in [other.url for other in same] or last:
            at = port(url, each.baud, now)
            if url not in found or _may_be_at(each, at, saved):
                found[url] = at
    return list(found.values())


def entry_of(device: Device, saved: Sequence[Saved]) -> Saved | None:
    """What the file says of ``device``: by its id or, where it does not answer, by its port, if that is one device's."""
    if device.id:
        return next((each for each in saved if each.id == device.id), None)
    may = [each for each in saved if _may_be_at(each, device.port, saved)]
    return may[0] if len(may) == 1 else None


def manifest(device: Saved, path: Path) -> Path:
    """Where the manifest of ``device`` is, as the file at ``path`` has it."""
    return path.parent / device.manifest


def save(found: Sequence[Device], tags: Sequence[str] = (), path: Path | None = None) -> tuple[Saved, ...]:
    """Writes the boards ``found`` that answered into the file (None: DEVICES), each with ``tags`` beside those it has, and
    returns them.

    The file is replaced whole, so a cut leaves the old one or the new; processes that save at once do so one after the other.
    Raises ConfigError for a file that cannot be read, tags that are none or two boards with one id, and RunError where it
    cannot be written.
    """
    path = path or DEVICES
    demand_distinct(found)
    for tag in tags:
        if not TAG.fullmatch(tag):
            raise ConfigError(f"{tag!r} is no tag: give letters, digits, and . _ - after the first, 64 at most.")
    with locks.alone(path.parent, f"another tinyfl is writing {path}"):
        text = _text(path)
        before = {each.id: each for each in _devices(text, path)}
        now = [_saved(device, before.get(device.id), tags, path) for device in found if device.id]
        new = _edited(text, now)
        wanted = {**before, **{each.id: each for each in now}}
        if new is None or _devices(new, path) != tuple(wanted.values()):
            raise ConfigError(f"{path} is laid out in a way that cannot be changed safely. Write each device under [[device]].")
        if new != text:
            write_whole(path, new.encode())
    return tuple(now)


def _edited(text: str, devices: Iterable[Saved]) -> str | None:
    """The file's text with these devices in it; None where its layout does not allow that."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError
    from tomlkit.items import AoT

    try:
        document = tomlkit.parse(text)
        if "device" not in document:
            document.add("device", tomlkit.aot())
        listed = document["device"]
        if not isinstance(listed, AoT):
            return None
        tables = {str(table["id"]).lower(): table for table in listed}
        for each in devices:
            if each.id not in tables:
                tables[each.id] = tomlkit.table()
                listed.append(tables[each.id])
            _update(tables[each.id], _table(each))
        return tomlkit.dumps(document)
    except TOMLKitError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}). It is a text file with a [[device]] table for each board."
        ) from error


def _devices(text: str, path: Path) -> tuple[Saved, ...]:
    try:
        tables = tomllib.loads(text).get("device", [])
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML ({error}). Mend that place, or move the file away.") from error
    if not isinstance(tables, list):
        raise ConfigError(f"{path}: device is not a list of tables. Write each device under its own [[device]].")
    found: dict[str, Saved] = {}
    for number, table in enumerate(tables, 1):
        device = _device(table, f"{path}: [[device]] number {number}")
        if device.id in found:
            raise ConfigError(f"{path} has the device {device.id} more than once. Leave one of them.")
        found[device.id] = device
    return tuple(found.values())


def _device(table: Any, where: str) -> Saved:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where} is {table!r:.40}, not a table.")
    texts = {key: table.get(key, "") for key in ("id", "board", "port", "usb-serial", "manifest", "usb-location")}
    for key, value in texts.items():
        if not isinstance(value, str) or CONTROL.search(value):
            raise ConfigError(f"{where} has the {key} {value!r:.40}, which is not a line of text.")
    id = texts["id"].lower()
    if not ID.fullmatch(id):
        raise ConfigError(f"{where} has the id {id!r:.40}, which is no board's: give pairs of hexadecimal digits.")
    tags = table.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) and TAG.fullmatch(tag) for tag in tags):
        raise ConfigError(f"{where} has the tags {tags!r:.60}. Give a list of words of letters, digits and . _ -")
    baud = table.get("baud", 0)
    if not isinstance(baud, int) or isinstance(baud, bool) or not 0 <= baud < 1 << 31:
        raise ConfigError(f"{where} has the baud {baud!r:.40}, which is no speed.")
    return Saved(
        id, texts["board"], tuple(tags), texts["port"], texts["usb-serial"], baud, texts["manifest"], texts["usb-location"]
    )


def _saved(device: Device, before: Saved | None, tags: Sequence[str], path: Path) -> Saved:
    """``device`` as the file at ``path`` is to have it. Its baud is written where nobody could know it from the port."""
    board = device.boards[0]
    own = before.manifest if before and before.manifest and before.board == board else _own_manifest(board, path)
    had = before.tags if before else ()
    usual = speeds(device.port.usb)[0]
    return Saved(
        device.id, plain(board), tuple(dict.fromkeys([*had, *tags])), device.port.url, device.port.serial,
        0 if device.baud == usual else device.baud, own, device.port.location,
    )  # fmt: skip


def without_manifest(saved: Iterable[Saved]) -> list[Saved]:
    """Those of kinds that are not the package's, whose manifests nobody has named."""
    from tinyfl.building.boards import names

    return [each for each in saved if not each.manifest and each.board not in names()]


def _own_manifest(board: str, path: Path) -> str:
    """The manifest of a kind that is not the package's, from the folder of the file at ``path`` or the current one; as the file
    is to have it, and empty if there is none."""
    from tinyfl.building.boards import check, names

    for folder in dict.fromkeys((path.parent, Path())):
        for each in sorted(folder.glob("*.toml")) if board not in names() else ():
            if each.stem == board and check(each)[0]:
                return each.name if folder == path.parent else str(each.resolve())
    return ""


def _table(device: Saved) -> dict[str, Any]:
    """A device's keys in the file; None for one that it is not to have."""
    return {
        "id": device.id,
        "board": device.board or None,
        "tags": list(device.tags),
        "port": device.port or None,
        "usb-serial": device.usb_serial or None,
        "usb-location": device.usb_location or None,
        "baud": device.baud or None,
        "manifest": device.manifest or None,
    }


def _update(table: Any, values: Mapping[str, Any]) -> None:
    """Changes just what is not so already, so that comments beside a value stay."""
    for key, value in values.items():
        if value is None:
            table.pop(key, None)
        elif key == "id" and str(table.get(key, "")).lower() == value:
            continue
        elif key == "tags" and key in table:
            for tag in value:
                if tag not in table[key]:
                    table[key].append(tag)
        elif table.get(key) != value:
            table[key] = value


def _perhaps(device: Saved, found: Sequence[Device], saved: Sequence[Saved]) -> Device | None:
    """The port that does not answer where ``device`` may be."""
    return next((each for each in found if not each.id and _may_be_at(device, each.port, saved)), None)


def _may_be_at(device: Saved, port: Port, saved: Sequence[Saved]) -> bool:
    """Whether ``port`` is the one that ``device`` was at, wherever that is now. A serial number that several have tells
    nothing, and then it is the one in the same socket."""
    if not device.usb_serial and not device.usb_location:
        return port.url == device.port
    shared = port.shared or sum(each.usb_serial == device.usb_serial for each in saved) > 1
    return port.serial == device.usb_serial and (port.location == device.usb_location if shared or not port.serial else True)


def _whole(ids: Iterable[str], known: Iterable[str]) -> list[str]:
    """Whole ids for ``ids`` or their beginnings. Raises ConfigError for one that several devices' ids begin with."""
    whole: dict[str, None] = {}
    known = list(known)
    for id in ids:
        fitting = [id] if id in known else [each for each in known if each.startswith(id)]
        if len(fitting) > 1:
            raise ConfigError(f"--id {id} is the beginning of {', '.join(sorted(fitting))}. Give more of its digits.")
        whole[fitting[0] if fitting else id] = None
    return list(whole)
