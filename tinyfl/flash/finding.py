"""Finds the boards to flash."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from tinyfl.building import boards
from tinyfl.building.boards import Board, Copy
from tinyfl.devices import inventory
from tinyfl.devices.connected import Device, look
from tinyfl.devices.inventory import Saved, Selection
from tinyfl.devices.ports import Port, Spot, port, where
from tinyfl.errors import ConfigError
from tinyfl.errors.words import plain, shell
from tinyfl.flash import drives
from tinyfl.flash.targets import Absent, FlashSelection, Found, Target
from tinyfl.flash.ways import Seen, Way, fits, ways


async def find(
    request: FlashSelection,
    present: Seen,
    saved: Sequence[Saved],
    *,
    method: str = "",
    talk: bool = True,
    path: Path | None = None,
) -> Found:
    """Finds the requested boards: those connected, and those absent. With ``talk`` each is queried for its description;
    without, no port is opened. ``method``, if given, is the only method to use: its tool may see a probe that tinyfl does
    not. ``path`` is the file of the devices ``saved``.

    Raises ConfigError for an ambiguous request.
    """
    if request.ports or request.probes:
        targets, absent = await _named(request, present, saved, method, talk, path)
    elif request.ids or request.tags:
        targets, absent = await _saved(request, present, saved, talk, path)
    elif request.boards or request.everything:
        targets, absent = await _connected(request, present, saved, method, talk, path)
    else:
        raise ConfigError("no boards are selected. Give --board NAME, --all, or any of --id, --tag, --probe and --port.")
    devices = _devices(present, _all_kinds(request))
    return [replace(each, probe=each.spots[0].word(devices) if each.spots else "") for each in targets], absent


async def _named(
    request: FlashSelection, present: Seen, saved: Sequence[Saved], method: str, talk: bool, path: Path | None
) -> Found:
    """The boards of --port and --probe."""
    if len(request.boards) > 1:
        raise ConfigError("with --port or --probe give --board only once, or leave it out if the board can describe itself.")
    if request.probes and request.ports and (len(request.probes), len(request.ports)) != (1, 1):
        raise ConfigError("--probe and --port together select one board. Give each once, or several of only one of them.")
    spots = list(dict.fromkeys(_spot_named(word, request, present) for word in request.probes))
    ports: list[Port | None] = list(dict.fromkeys(port(url, present=present.ports) for url in request.ports))
    ports = ports or [next((each for each in present.ports if each.spot.same(spot)), None) for spot in spots]
    ports = [_with_bauds(each, request.boards, request.baud) if each else None for each in ports]
    devices = {each.port.url: each for each in await _query(present, [each for each in ports if each], talk)}
    targets: list[Target] = []
    absent: list[Absent] = []
    for at, spot in zip(ports, spots or [Spot()] * len(ports), strict=True):
        device = devices[at.url] if at else None
        if (device and device.state == "gone") or (spot and not _is_present(spot, request, present, method)):
            probe = ("--probe", spot.word(_spots(present, _all_kinds(request)))) if spot else ()
            where = (*probe, *(("--port", at.url) if at and request.ports else ()))
            absent.append(Absent(where[-1], where))
        else:
            entry = inventory.entry_of(device, saved) if device else None
            targets.append(_named_one(request, present, at, spot, device, talk, entry, path))
    unclear = [each for each in targets if each.trouble == UNCLEAR]
    if unclear and len(targets) + len(absent) == 1:
        raise ConfigError(f"the kind of board at {unclear[0].name or request.probes[0]} is unknown. {UNCLEAR}")
    taken = [spot for target in targets for spot in target.spots]
    others = _loose([target.board for target in targets], present, taken, targets)
    return _joined(targets, others, present)[: len(targets)], absent


def _spot_named(word: str, request: FlashSelection, present: Seen) -> Spot:
    """Finds the device with the name ``word``: a USB serial number or socket, or a drive's path. An unseen name counts as a
    serial number. Raises ConfigError for an ambiguous name."""
    found: list[Spot] = []
    for spot in _spots(present, _all_kinds(request)):
        matches = word in (spot.socket, spot.serial) or (spot.path and spot.path == os.path.realpath(word))
        if matches and not any(spot.same(other) for other in found):
            found.append(spot)
    if len(found) > 1:
        words = ", ".join(plain(spot.word(found)) for spot in found)
        raise ConfigError(f"{len(found)} USB devices have the name {plain(word)}. Give one of these with --probe: {words}.")
    return found[0] if found else Spot(serial=word)


def _named_one(
    request: FlashSelection, present: Seen, at: Port | None, spot: Spot, device: Device | None, talk: bool, entry: Saved | None,
    path: Path | None,
) -> Target:  # fmt: skip
    name = device.description.board if device and device.description else ""
    name = name or (entry.board if entry else "")
    spots: tuple[Spot, ...] = (spot,) if spot else ()
    try:
        possible = list(request.boards) or (
            [_kind(name, request, entry, path)]
            if name
            else _possible_kinds(request.kinds, present, at, spot or (at.spot if at else Spot()))
        )
    except ConfigError as error:
        return Target(request.kinds[0], at, spots, device, str(error), (plain(name),))
    board = possible[0] if possible else request.kinds[0]
    spots = spots or _shared_spot(board, at)
    if len(possible) != 1:
        trouble = UNCLEAR if talk or at is None else UNQUERIED
        return Target(board, at, spots, device, trouble, tuple(each.name for each in possible) or ("a board",))
    return Target(
        board,
        _with_bauds(at, possible, request.baud) if at else None,
        spots,
        device,
        _trouble(device),
        options=_options_by_id(board, request, entry),
    )


UNQUERIED = "it will be queried for its kind. If it does not answer, give its kind: --board NAME"
UNCLEAR = "Give it with --board NAME (tinyfl boards list)."


def _is_present(spot: Spot, request: FlashSelection, present: Seen, method: str) -> bool:
    """Whether a device is visible at this spot, or there is a way to the board without one, as on a Mac."""
    seen = any(spot.same(other) for other in _spots(present, _all_kinds(request)))
    return seen or any(not way.obstacle for board in request.boards for way in ways(board, present, None, (spot,), method))


async def _saved(request: FlashSelection, present: Seen, saved: Sequence[Saved], talk: bool, path: Path | None) -> Found:
    """The boards of --id and --tag."""
    found = await _query(present, [*_ports_of(request, present), *inventory.ports_of(saved)], talk)
    kinds = tuple(board.name for board in request.boards)
    chosen = inventory.select(Selection(kinds, inventory.hexadecimal(request.ids), request.tags), found, saved, path)
    entries = {each.id: each for each in saved}
    targets: list[Target] = []
    absent: list[Absent] = []
    pairs = [(entries.get(device.id, Saved(device.id)), device) for device in chosen.present]
    for entry, device in [*pairs, *((entry, device) for entry, device in chosen.missing)]:
        # A silent port may be another board's.
        matches = device is None or bool(device.id) or inventory.entry_of(device, saved) == entry
        found_device = device if device and device.state != "gone" and matches else None
        target = _target(request, present, found_device, talk, entry, path) if found_device else None
        if target:
            targets.append(target)
        else:
            absent.append(Absent(entry.id, ("--id", entry.id)))
    return targets, absent


async def _connected(
    request: FlashSelection, present: Seen, saved: Sequence[Saved], method: str, talk: bool, path: Path | None
) -> Found:
    """The boards of --board and --all; with --all, boards of devices.toml that are not connected are absent."""
    ports = [*_ports_of(request, present), *(inventory.ports_of(saved) if request.everything else ())]
    found = [each for each in await _query(present, ports, talk) if each.state != "gone" or each.port.usb]
    entries = {each.port.url: inventory.entry_of(each, saved) for each in found}
    targets = [_target(request, present, device, talk, entries[device.port.url], path) for device in found]
    selected = _without_second_ports([each for each in targets if each])
    inventory.demand_distinct(each.device for each in selected if each.device)
    selected = _joined(selected, _loose(request.kinds, present, [device.port.spot for device in found], selected), present)
    ids = {each.id for each in found} | {entry.id for entry in entries.values() if entry}
    serials = {spot.serial for each in selected for spot in each.spots} - {""}
    missing = [each for each in saved if each.id not in ids and each.usb_serial not in serials] if request.everything else []
    names = [board.name for board in request.boards]
    absent = [Absent(each.id, ("--id", each.id)) for each in missing if not names or each.board in names]
    return selected or _reachable(request.boards, present, method, found), absent


def _reachable(kinds: Sequence[Board], present: Seen, method: str, found: Sequence[Device]) -> list[Target]:
    """Invisible boards that can be written nevertheless: by a probe other than those of the boards ``found`` or, without any
    probe, by one that only its tool sees."""
    taken = [each.port.spot for each in found]
    left = replace(present, probes=tuple(each for each in present.probes if not any(each.spot.same(spot) for spot in taken)))
    able: list[tuple[Board, Way]] = []
    for board in kinds:
        free = [each for each in ways(board, left, only=method) if not each.obstacle and (each.place or left == present)]
        able += [(board, each) for each in free[:1]]
    names = " or ".join(board.name for board, _ in able)
    trouble = f"a probe may belong to {names}. Flash one kind at a time." if len(able) > 1 else ""
    return [Target(board, None, (way.spot,) if way.spot else (), trouble=trouble) for board, way in able]


async def _query(present: Seen, ports: Iterable[Port], talk: bool) -> list[Device]:
    """Queries these ports only."""
    urls = {each.url: each for each in ports}
    if not talk:
        return [Device(each, "silent" if where(each) else "gone") for each in urls.values()]
    return await look(list(urls.values()), skip=[each for each in present.ports if each.url not in urls])


def _ports_of(request: FlashSelection, present: Seen) -> list[Port]:
    """The ports with USB ids of the requested kinds' links."""
    ids = {usb for board in request.kinds for link in board.links for usb in link.usb}
    return [_with_bauds(each, request.boards, request.baud) for each in present.ports if each.usb in ids]


def _with_bauds(port: Port, kinds: Sequence[Board], baud: int) -> Port:
    """Sets the port's baud rates: only ``baud`` if it is given, else those of the manifests of ``kinds`` first."""
    by_manifest = [link.baud for board in kinds for link in board.links[:1]]
    return replace(port, bauds=(baud,) if baud else tuple(dict.fromkeys([*by_manifest, *port.bauds])))


def _target(
    request: FlashSelection, present: Seen, device: Device, talk: bool, entry: Saved | None, path: Path | None
) -> Target | None:
    """The board at a port if it is of a requested kind: by its description, else by its ``entry`` in devices.toml (if any), its
    drive, or its USB ids if only one kind has them."""
    name = device.description.board if device.description else (entry.board if entry else "")
    if name and not entry and name not in {board.name for board in _all_kinds(request)}:
        return None
    try:
        possible = (
            [_kind(name, request, entry, path)]
            if name
            else _possible_kinds(_all_kinds(request), present, device.port, device.port.spot)
        )
    except ConfigError as error:
        options = ("--id", entry.id) if entry else ()
        unknown = Target(request.kinds[0], device.port, (), device, str(error), (plain(name),), options=options)
        return None if request.boards else unknown
    matching = [board for board in possible if board in request.kinds or (entry and entry.manifest and not request.boards)]
    if not matching:
        return None
    trouble = _trouble(device)
    unclear: tuple[str, ...] = ()
    if len(possible) > 1 and (request.everything or len(matching) > 1):
        unclear = tuple(board.name for board in possible)
        option = shell("--board", "NAME", "--port", device.port.url)
        silent = f"it does not answer, and may be {' or '.join(unclear)}. Give its kind: {option}"
        trouble = trouble or (silent if talk else UNQUERIED)
    at = _with_bauds(device.port, () if unclear else matching[:1], request.baud)
    spots = _shared_spot(matching[0], device.port)
    return Target(matching[0], at, spots, device, trouble, unclear, options=_options_by_id(matching[0], request, entry))


def _all_kinds(request: FlashSelection) -> list[Board]:
    """The built-in boards that can be flashed, and the requested ones."""
    return list({board.name: board for board in (*FlashSelection().kinds, *request.boards)}.values())


def _kind(name: str, request: FlashSelection, entry: Saved | None, path: Path | None) -> Board:
    """The kind with this ``name``: a requested one, or that of the board's manifest in devices.toml, or a built-in one. Raises
    ConfigError for any other name."""
    file = path or inventory.DEVICES
    if mine := next((board for board in request.boards if board.name == name), None):
        return mine
    if entry and entry.manifest:
        manifest = inventory.manifest(entry, file)
        try:
            return boards.read_manifest(manifest)
        except ConfigError as error:
            raise ConfigError(f"{file} names {manifest} as the manifest of board {entry.id}. {error}") from error
    if name in boards.names():
        return boards.load(name)
    raise ConfigError(
        f"no built-in board is called {plain(name)!r}. Give the path of its manifest with --board, or write it into "
        f'{file}, under the [[device]] of the board: manifest = "PATH.toml"'
    )


def _options_by_id(board: Board, request: FlashSelection, entry: Saved | None) -> tuple[str, ...]:
    """The options for a board whose manifest is known from devices.toml only; none for others."""
    return ("--id", entry.id) if entry and entry.manifest and board not in request.boards else ()


def _without_second_ports(found: Sequence[Target]) -> list[Target]:
    """Removes silent second ports of boards."""
    answering = {(each.port.serial, each.port.socket) for each in found if each.port and each.described}
    unique = []
    for each in found:
        identity = (each.port.serial, each.port.socket) if each.port else ("", "")
        if each.described or not identity[0] or identity not in answering:
            unique.append(each)
            answering.add(identity)
    return unique


def _trouble(device: Device | None) -> str:
    """Why a board at a port cannot be flashed: it could not be verified afterwards. Silence is no obstacle."""
    return device.detail if device and device.state in ("busy", "denied", "gone") else ""


def _possible_kinds(kinds: Iterable[Board], present: Seen, at: Port | None, spot: Spot) -> list[Board]:
    """The possible kinds of the board at this port or spot: by its drive's label, or else by its USB ids."""
    kinds = list(kinds)
    if by_drive := [board for board in kinds if any(drive.spot.same(spot) for drive in _drives(board))]:
        return by_drive
    usb = {at.usb} if at else set()
    usb |= {each.id for each in present.usb if each.spot.same(spot)} | {
        each.usb for each in present.ports if each.spot.same(spot)
    }
    probes = [each for each in present.probes if each.spot.same(spot)]
    return [board for board in kinds if usb & _ids(board) or any(fits(probe, board) for probe in probes)]


def _ids(board: Board) -> set[str]:
    return {*board.usb.probe, *board.usb.bootloader, *(usb for link in board.links for usb in link.usb)}


def _drives(board: Board) -> list[drives.Drive]:
    return [drive for method in board.flash if isinstance(method, Copy) for drive in drives.mounted(method.drive)]


def _spots(present: Seen, kinds: Iterable[Board]) -> list[Spot]:
    """The spots of all USB devices, ports, probes and drives; a device of several kinds appears several times."""
    found = [each.spot for each in present.usb] + [each.spot for each in present.ports] + [each.spot for each in present.probes]
    return [spot for spot in (*found, *(drive.spot for board in kinds for drive in _drives(board))) if spot]


def _devices(present: Seen, kinds: Iterable[Board]) -> list[Spot]:
    """Each connected device, once."""
    found: list[Spot] = []
    for spot in _spots(present, kinds):
        if not any(spot.same(other) for other in found):
            found.append(spot)
    return found


def _shared_spot(board: Board, at: Port | None) -> tuple[Spot, ...]:
    """The spot of the port, shared by the board's probe and drive, if the manifest has the port's USB ids."""
    return (at.spot,) if at and at.spot and at.usb in _ids(board) else ()


def _loose(kinds: Sequence[Board], present: Seen, taken: Iterable[Spot], found: Sequence[Target]) -> list[Target]:
    """Boards visible only as a drive, bootloader or probe, at none of the spots ``taken``. A drive known by its path only
    counts if it cannot belong to a board in ``found``."""
    taken = [*taken, *(spot for target in found for spot in target.spots)]
    known = {name for target in found for name in target.unclear or (target.board.name,)}
    boards_found = []
    for spot in _devices(present, kinds):
        if any(spot.same(other) for other in taken):
            continue
        possible = _possible_kinds(kinds, present, None, spot)
        if possible and (spot.socket or spot.serial or known.isdisjoint(board.name for board in possible)):
            boards_found.append(_silent(possible, spot, present))
    return boards_found


def _silent(possible: Sequence[Board], spot: Spot, present: Seen) -> Target:
    """A board without a port, of one of the kinds ``possible``."""
    if len(possible) == 1:
        return Target(possible[0], None, (spot,))
    names = tuple(board.name for board in possible)
    option = shell("--board", "NAME", "--probe", spot.word(_devices(present, possible)))
    return Target(possible[0], None, (spot,), None, f"it may be {' or '.join(names)}. Give its kind: {option}", names)


def _joined(found: Sequence[Target], loose: Sequence[Target], present: Seen) -> list[Target]:
    """Merges the only silent board of a kind with the only one of that kind in its bootloader: it is the same board, whose
    bootloader has another USB serial number."""
    joined, left = [], list(loose)
    for target in found:
        kind = target.board
        silent = [each for each in found if each.board.name == kind.name and not each.described]
        stopped = [each.spot for each in present.usb if each.id in kind.usb.bootloader]
        waiting = [each for each in left if each.board.name == kind.name and _at_one_of(each, stopped)]
        if silent == [target] and target.spots and not _at_one_of(target, stopped) and len(waiting) == 1:
            target = replace(target, spots=(*target.spots, *waiting[0].spots))
            left.remove(waiting[0])
        joined.append(target)
    return [*joined, *left]


def _at_one_of(target: Target, spots: Sequence[Spot]) -> bool:
    return any(own.same(spot) for own in target.spots for spot in spots)
