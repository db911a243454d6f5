"""devices.toml: the user's boards, and the selection of some of them.

    [[device]]
    id = "3a0034000951373239333535"     # the board's unique id
    board = "nucleo-f401re"             # its kind
    tags = ["lab", "window"]            # free words of the user
    port = "/dev/ttyACM0"               # its last port
    usb-serial = "066DFF495056805087"   # of that port, if any
    usb-location = "1-1.2:1.2"          # its USB socket, to distinguish boards with equal serial numbers
    baud = 921600                       # only if it differs from the manifest's
    manifest = "my-board.toml"          # of a custom board, relative to this file
    source = "imu.c"                    # the C file of its sensor, relative to this file, for tinyfl flash

The file belongs to the user. Saving updates the port and kind of devices, adds requested tags, and appends new devices; the
rest stays, including comments and unknown keys.
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
"""Default path."""

TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
ID = re.compile(r"(?:[0-9a-f]{2}){1,16}")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Saved:
    """A device in the file: its id in hexadecimal, kind, tags, url and USB serial number of its last port, baud (0: from the
    manifest), the path of its manifest, its last USB socket, and the C file of its sensor. Empty: not in the file."""

    id: str
    board: str = ""
    tags: tuple[str, ...] = ()
    port: str = ""
    usb_serial: str = ""
    baud: int = 0
    manifest: str = ""
    usb_location: str = ""
    source: str = ""


@dataclass(frozen=True)
class Selection:
    """A request for devices: of one of the ``boards``, and with one of the ``ids`` (or beginnings of ids), and with one of the
    ``tags``, and at one of the ``ports`` (urls). An empty field matches all."""

    boards: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chosen:
    """The result of a selection: selected devices that answered (``present``); devices of devices.toml, or requested by id,
    that did not (``missing``), each with the port where it may be, if known; and other ports of the selected kinds without an
    answer, so with unknown ids (``unclear``)."""

    present: tuple[Device, ...]
    missing: tuple[tuple[Saved, Device | None], ...]
    unclear: tuple[Device, ...]


def selection(
    boards: Iterable[str] = (),
    ids: Iterable[str] = (),
    tags: Iterable[str] = (),
    ports: Iterable[str] = (),
    everything: bool = False,
) -> Selection:
    """Builds a selection from command-line options; a board may also be the path of its manifest.

    Raises ConfigError for an empty selection, or for ``everything`` together with a restriction.
    """
    from tinyfl.building.boards import load

    kinds = tuple(load(name).name if name.endswith(".toml") else name for name in boards)
    present = serial_ports()
    request = Selection(kinds, hexadecimal(ids), tuple(tags), tuple(port(url, present=present).url for url in ports))
    if everything == (request != Selection()):
        raise ConfigError("no boards are selected. Give either --all, or any of --board, --id, --tag and --port.")
    return request


def hexadecimal(ids: Iterable[str]) -> tuple[str, ...]:
    """Normalises ids, or beginnings of ids, from the command line. Raises ConfigError for a malformed one."""
    lower = tuple(id.lower() for id in ids)
    for id in lower:
        if not re.fullmatch(r"[0-9a-f]{1,32}", id):
            raise ConfigError(f"--id {id!r} is not a board's id: give hexadecimal digits, all of them or the first few.")
    return lower


def read_inventory(path: Path | None = None) -> tuple[Saved, ...]:
    """Reads the devices in the file at ``path`` or, for None, in DEVICES if it exists.

    Raises ConfigError for a malformed file, or a missing one at ``path``.
    """
    if path and not path.exists():
        raise ConfigError(f"there is no file {path}. To write one: {shell('tinyfl', 'devices', '--save', '--inventory', path)}")
    return _devices(_text(path or DEVICES), path or DEVICES)


def demand_distinct(found: Iterable[Device]) -> None:
    """Raises ConfigError for two boards with the same id."""
    at: dict[str, str] = {}
    for device in found:
        if device.id and at.setdefault(device.id, device.port.url) != device.port.url:
            raise ConfigError(
                f"two boards report the id {device.id}, at {at[device.id]} and {device.port.url}. Give one of them its own "
                "identity (docs/firmware.md, identity), unplug it, or select a port with --port."
            )


def select(request: Selection, found: Sequence[Device], saved: Sequence[Saved] = (), path: Path | None = None) -> Chosen:
    """Selects from the devices ``found`` and those ``saved`` in the file at ``path``, for flash and push.

    Raises ConfigError for an unknown tag or board, an ambiguous beginning of an id, or an id of several boards.
    """
    from tinyfl.building.boards import names

    known = {each.id: each for each in saved}
    tags = {tag for each in saved for tag in each.tags}
    for tag in request.tags:
        if tag not in tags:
            raise ConfigError(
                f"no device has the tag {tag!r}; there are {', '.join(sorted(tags)) or 'none'}. Give devices tags in "
                f"{path or DEVICES}, or save them with: {shell('tinyfl', 'devices', '--save', '--tag', tag)}"
            )
    kinds = {*names(), *(each.board for each in saved), *(kind for each in found for kind in each.boards)} - {""}
    for kind in request.boards:
        if kind not in kinds:
            raise ConfigError(f"no board is called {kind!r}. There are: {', '.join(sorted(kinds))}.")
    answered = {each.id for each in found if each.id}
    ids = _full_ids(request.ids, [*known, *sorted(answered - set(known))])

    def matches(id: str, board: str) -> bool:
        own_tags = known[id].tags if id in known else ()
        return (
            (not request.boards or board in request.boards)
            and (not ids or id in ids)
            and (not request.tags or not set(request.tags).isdisjoint(own_tags))
        )

    def at(device: Device) -> bool:
        return not request.ports or device.port.url in request.ports

    present = tuple(device for device in found if device.id and matches(device.id, device.boards[0]) and at(device))
    demand_distinct(present)
    absent = [] if request.ports else [each for each in saved if each.id not in answered and matches(each.id, each.board)]
    absent += [Saved(id) for id in ids if id not in answered and id not in known]
    missing = tuple((each, _possible_port(each, found, saved)) for each in absent)
    taken = {device.port.url for _, device in missing if device}
    unclear = tuple(
        each
        for each in found
        if each.state not in ("free", "unknown")
        and at(each)
        and each.port.url not in taken
        and not (request.ids or request.tags)
        and (not request.boards or not each.boards or not set(request.boards).isdisjoint(each.boards))
    )
    return Chosen(present, missing, unclear)


def ports_of(saved: Sequence[Saved]) -> list[Port]:
    """Ports to query for the devices ``saved``: those with their USB serial numbers or, without one, the device's last port.
    The board that answers there may be another: its id decides."""
    present = serial_ports()
    found: dict[str, Port] = {}
    for each in saved:
        same = [other for other in present if each.usb_serial and other.serial == each.usb_serial]
        same = same or [other for other in present if each.usb_location and _may_be_at(each, other, saved)]
        last = [each.port] if each.port and not each.usb_serial else []
        for url in [other.url for other in same] or last:
            at = port(url, each.baud, present)
            if url not in found or _may_be_at(each, at, saved):
                found[url] = at
    return list(found.values())


def entry_of(device: Device, saved: Sequence[Saved]) -> Saved | None:
    """The file's entry for ``device``: by its id or, without an answer, by its port if only one entry matches."""
    if device.id:
        return next((each for each in saved if each.id == device.id), None)
    possible = [each for each in saved if _may_be_at(each, device.port, saved)]
    return possible[0] if len(possible) == 1 else None


def manifest(device: Saved, path: Path) -> Path:
    """The path of the manifest of ``device``, resolved from the file at ``path``."""
    return path.parent / device.manifest


def sources(id: str, path: Path | None) -> tuple[Path, ...]:
    """The C files of the device ``id``'s own sensor, as the file at ``path`` has them (None: DEVICES, if it exists)."""
    return tuple((path or DEVICES).parent / each.source for each in read_inventory(path) if each.id == id and each.source)


def save(found: Sequence[Device], tags: Sequence[str] = (), path: Path | None = None) -> tuple[Saved, ...]:
    """Saves the boards in ``found`` that answered to the file (None: DEVICES), adding ``tags`` to each, and returns them.

    The file is replaced atomically; concurrent processes save one after the other.
    Raises ConfigError for an unreadable file, malformed tags or two boards with one id, and RunError if the file is not
    writable.
    """
    path = path or DEVICES
    demand_distinct(found)
    for tag in tags:
        if not TAG.fullmatch(tag):
            raise ConfigError(f"{tag!r} is not a tag: give at most 64 letters, digits, and (after the first) . _ -.")
    with locks.exclusive(path.parent, f"another tinyfl is writing {path}"):
        text = _text(path)
        before = {each.id: each for each in _devices(text, path)}
        updated = [_saved(device, before.get(device.id), tags, path) for device in found if device.id]
        new = _edited(text, updated)
        wanted = {**before, **{each.id: each for each in updated}}
        if new is None or _devices(new, path) != tuple(wanted.values()):
            raise ConfigError(
                f"{path} has a layout that tinyfl cannot update safely. Write each device under its own [[device]]."
            )
        if new != text:
            write_whole(path, new.encode())
    return tuple(updated)


def _edited(text: str, devices: Iterable[Saved]) -> str | None:
    """The file's text with these devices added; None if its layout does not allow it."""
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
            f"{path} cannot be read ({error}). It must be a text file with a [[device]] table for each board."
        ) from error


def _devices(text: str, path: Path) -> tuple[Saved, ...]:
    try:
        tables = tomllib.loads(text).get("device", [])
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML ({error}). Correct it there, or move the file away.") from error
    if not isinstance(tables, list):
        raise ConfigError(f"{path}: device is not a list of tables. Write each device under its own [[device]].")
    found: dict[str, Saved] = {}
    for number, table in enumerate(tables, 1):
        device = _device(table, f"{path}: [[device]] number {number}")
        if device.id in found:
            raise ConfigError(f"{path} has the device {device.id} more than once. Keep one of them.")
        found[device.id] = device
    return tuple(found.values())


def _device(table: Any, where: str) -> Saved:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where} is {table!r:.40}, not a table.")
    texts = {key: table.get(key, "") for key in ("id", "board", "port", "usb-serial", "manifest", "usb-location", "source")}
    for key, value in texts.items():
        if not isinstance(value, str) or CONTROL.search(value):
            raise ConfigError(f"{where} has the {key} {value!r:.40}, not a line of text.")
    id = texts["id"].lower()
    if not ID.fullmatch(id):
        raise ConfigError(f"{where} has the id {id!r:.40}, not a board's: give pairs of hexadecimal digits.")
    tags = table.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) and TAG.fullmatch(tag) for tag in tags):
        raise ConfigError(f"{where} has the tags {tags!r:.60}. Give a list of words of letters, digits and . _ -")
    baud = table.get("baud", 0)
    if not isinstance(baud, int) or isinstance(baud, bool) or not 0 <= baud < 1 << 31:
        raise ConfigError(f"{where} has the baud {baud!r:.40}, not a baud rate.")
    return Saved(
        id, texts["board"], tuple(tags), texts["port"], texts["usb-serial"], baud, texts["manifest"], texts["usb-location"],
        texts["source"],
    )  # fmt: skip


def _saved(device: Device, before: Saved | None, tags: Sequence[str], path: Path) -> Saved:
    """The new entry for ``device`` in the file at ``path``, with its baud only if the port's USB ids do not imply it."""
    board = device.boards[0]
    own = before.manifest if before and before.manifest and before.board == board else _own_manifest(board, path)
    old_tags = before.tags if before else ()
    default_baud = speeds(device.port.usb)[0]
    return Saved(
        device.id, plain(board), tuple(dict.fromkeys([*old_tags, *tags])), device.port.url, device.port.serial,
        0 if device.baud == default_baud else device.baud, own, device.port.location, before.source if before else "",
    )  # fmt: skip


def without_manifest(saved: Iterable[Saved]) -> list[Saved]:
    """Devices of custom boards without a manifest."""
    from tinyfl.building.boards import names

    return [each for each in saved if not each.manifest and each.board not in names()]


def _own_manifest(board: str, path: Path) -> str:
    """The path of a custom board's manifest, as written to the file at ``path``: found in that file's folder or in the current
    one; empty if there is none."""
    from tinyfl.building.boards import check, names

    for folder in dict.fromkeys((path.parent, Path())):
        for each in sorted(folder.glob("*.toml")) if board not in names() else ():
            if each.stem == board and check(each)[0]:
                return each.name if folder == path.parent else str(each.resolve())
    return ""


def _table(device: Saved) -> dict[str, Any]:
    """A device's keys in the file; None: the key is left out."""
    return {
        "id": device.id,
        "board": device.board or None,
        "tags": list(device.tags),
        "port": device.port or None,
        "usb-serial": device.usb_serial or None,
        "usb-location": device.usb_location or None,
        "baud": device.baud or None,
        "manifest": device.manifest or None,
        "source": device.source or None,
    }


def _update(table: Any, values: Mapping[str, Any]) -> None:
    """Updates only values that differ, so that comments beside the others stay."""
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


def _possible_port(device: Saved, found: Sequence[Device], saved: Sequence[Saved]) -> Device | None:
    """A port without an answer where ``device`` may be."""
    return next((each for each in found if not each.id and _may_be_at(device, each.port, saved)), None)


def _may_be_at(device: Saved, port: Port, saved: Sequence[Saved]) -> bool:
    """Whether ``port`` may be that of ``device``: by its USB serial number or, if several devices share that number, by its
    socket."""
    if not device.usb_serial and not device.usb_location:
        return port.url == device.port
    shared = port.shared or sum(each.usb_serial == device.usb_serial for each in saved) > 1
    return port.serial == device.usb_serial and (port.location == device.usb_location if shared or not port.serial else True)


def _full_ids(ids: Iterable[str], known: Iterable[str]) -> list[str]:
    """Completes beginnings of ids. Raises ConfigError for a beginning shared by several devices."""
    full: dict[str, None] = {}
    known = list(known)
    for id in ids:
        fitting = [id] if id in known else [each for each in known if each.startswith(id)]
        if len(fitting) > 1:
            raise ConfigError(f"--id {id} matches {', '.join(sorted(fitting))}. Give more digits.")
        full[fitting[0] if fitting else id] = None
    return list(full)
