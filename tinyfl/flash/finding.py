"""Which boards are to be flashed."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
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
from tinyfl.flash.ways import Seen, Way, fits, ways
from tinyfl.link.board import Description


@dataclass(frozen=True)
class FlashSelection:
    """What a command line asks for: kinds of boards, ids (or their beginnings) and tags of devices.toml, ``everything`` that is
    connected (of those kinds, if there are any), what names ``probes``, bootloaders or drives (USB serial numbers or sockets,
    or a drive's path), and urls of ports."""

    boards: tuple[Board, ...] = ()
    ids: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    everything: bool = False
    probes: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    baud: int = 0
    words: tuple[str, ...] = ()
    """What the command line calls ``boards``: their names, or their manifests' paths."""

    def word(self, board: Board) -> str:
        """What the command line calls ``board``."""
        return next((word for each, word in zip(self.boards, self.words, strict=False) if each == board), board.name)

    def options(self, board: Board | None = None) -> tuple[str, ...]:
        """The command line's options that ask for the same, with ``board`` as the only kind if one is given."""
        kinds = [self.word(each) for each in ([board] if board else self.boards)]
        named = (("--board", kinds), ("--id", self.ids), ("--tag", self.tags), ("--probe", self.probes), ("--port", self.ports))
        given = [part for option, words in named for word in words for part in (option, word)]
        return (*given, *(("--all",) if self.everything else ()))

    @property
    def kinds(self) -> list[Board]:
        """The kinds that are meant; all of the package that can be flashed, if none is named."""
        return list(self.boards) or [board for board in map(boards.load, boards.names()) if board.flash]


@dataclass(frozen=True)
class Target:
    """A board to be flashed. ``port`` is where its firmware answers; ``spots`` are those of its probe, drive and bootloader
    (none: any that fit), and ``probe`` is what --probe calls the first. ``device`` is what was found when its port was asked,
    ``trouble`` why the board cannot be flashed, ``unclear`` the kinds that it may be, where that is not clear, and ``means``
    the options that mean just this board, where they are not its kind and place. What is not known is empty."""

    board: Board
    port: Port | None = None
    spots: tuple[Spot, ...] = ()
    device: Device | None = field(default=None, compare=False)
    trouble: str = ""
    unclear: tuple[str, ...] = ()
    probe: str = ""
    means: tuple[str, ...] = ()

    @property
    def described(self) -> Description | None:
        return self.device.description if self.device else None

    @property
    def kind(self) -> str:
        """The board's kind, or those that it may be."""
        return " or ".join(self.unclear) or self.board.name

    @property
    def name(self) -> str:
        """What a person knows it by: its id, its USB serial number or socket, its port."""
        return (self.device.id if self.device else "") or self.probe or (self.port.url if self.port else "")

    @property
    def key(self) -> str:
        """What it is known by from one look to the next: unlike its name, the same before it was flashed and after."""
        spots = [self.port.spot, *self.spots] if self.port else self.spots
        facts = [*(spot.socket for spot in spots), *(spot.serial for spot in spots), self.port.url if self.port else ""]
        return next(filter(None, [*facts, *(spot.path for spot in spots)]), self.board.name)

    @property
    def where(self) -> tuple[str, ...]:
        """The command line's options that mean just this board."""
        probe = ("--probe", self.probe) if self.probe else ()
        by_probe = self.port is None or any(self.port.spot.same(spot) for spot in self.spots)
        return probe if by_probe or not self.port else (*probe, "--port", self.port.url)


@dataclass(frozen=True)
class Absent:
    """A board that is meant and not there: what a person knows it by, and the command line's options that mean it."""

    name: str
    where: tuple[str, ...]


Found = tuple[list[Target], list[Absent]]


async def find(
    asked: FlashSelection, now: Seen, saved: Sequence[Saved], *, method: str = "", talk: bool = True, path: Path | None = None
) -> Found:
    """The boards that are meant and there, and those that are not. With ``talk`` each is asked to describe itself first;
    without, no port is opened. ``method`` is the only one to be used, if any is said: its tool may see a probe that we do not.
    ``path`` is where the devices ``saved`` stand.

    Raises ConfigError where it is not clear which boards are meant.
    """
    if asked.ports or asked.probes:
        targets, absent = await _named(asked, now, saved, method, talk, path)
    elif asked.ids or asked.tags:
        targets, absent = await _known(asked, now, saved, talk, path)
    elif asked.boards or asked.everything:
        targets, absent = await _connected(asked, now, saved, method, talk, path)
    else:
        raise ConfigError("which boards are meant? Give --board NAME, --all, or any of --id, --tag, --probe and --port.")
    things = _things(now, _all_kinds(asked))
    return [replace(each, probe=each.spots[0].word(things) if each.spots else "") for each in targets], absent


async def _named(asked: FlashSelection, now: Seen, saved: Sequence[Saved], method: str, talk: bool, path: Path | None) -> Found:
    """The boards of --port and --probe."""
    if len(asked.boards) > 1:
        raise ConfigError("with --port or --probe give --board once, or leave it out where the board says what it is.")
    if asked.probes and asked.ports and (len(asked.probes), len(asked.ports)) != (1, 1):
        raise ConfigError("--probe and --port together mean one board. Give each once, or several of one kind.")
    spots = list(dict.fromkeys(_called(word, asked, now) for word in asked.probes))
    ports: list[Port | None] = list(dict.fromkeys(port(url, present=now.ports) for url in asked.ports))
    ports = ports or [next((each for each in now.ports if each.spot.same(spot)), None) for spot in spots]
    ports = [_spoken(each, asked.boards, asked.baud) if each else None for each in ports]
    devices = {each.port.url: each for each in await _at(now, [each for each in ports if each], talk)}
    targets: list[Target] = []
    absent: list[Absent] = []
    for at, spot in zip(ports, spots or [Spot()] * len(ports), strict=True):
        device = devices[at.url] if at else None
        if (device and device.state == "gone") or (spot and not _there(spot, asked, now, method)):
            probe = ("--probe", spot.word(_facts(now, _all_kinds(asked)))) if spot else ()
            where = (*probe, *(("--port", at.url) if at and asked.ports else ()))
            absent.append(Absent(where[-1], where))
        else:
            entry = inventory.entry_of(device, saved) if device else None
            targets.append(_named_one(asked, now, at, spot, device, talk, entry, path))
    unsure = [each for each in targets if each.trouble == UNSURE]
    if unsure and len(targets) + len(absent) == 1:
        raise ConfigError(f"which board is at {unsure[0].name or asked.probes[0]}? {UNSURE}")
    taken = [spot for target in targets for spot in target.spots]
    others = _loose([target.board for target in targets], now, taken, targets)
    return _joined(targets, others, now)[: len(targets)], absent


def _called(word: str, asked: FlashSelection, now: Seen) -> Spot:
    """What is called ``word``: by its USB serial number or socket, or a drive by its path. What is not seen is taken for a
    serial number. Raises ConfigError where several are called so."""
    found: list[Spot] = []
    for spot in _facts(now, _all_kinds(asked)):
        called = word in (spot.socket, spot.serial) or (spot.path and spot.path == os.path.realpath(word))
        if called and not any(spot.same(other) for other in found):
            found.append(spot)
    if len(found) > 1:
        words = ", ".join(plain(spot.word(found)) for spot in found)
        raise ConfigError(f"{len(found)} things on USB are called {plain(word)}. Say which is meant with --probe: {words}.")
    return found[0] if found else Spot(serial=word)


def _named_one(
    asked: FlashSelection, now: Seen, at: Port | None, spot: Spot, device: Device | None, talk: bool, entry: Saved | None,
    path: Path | None,
) -> Target:  # fmt: skip
    name = device.description.board if device and device.description else ""
    name = name or (entry.board if entry else "")
    own: tuple[Spot, ...] = (spot,) if spot else ()
    try:
        may = list(asked.boards) or (
            [_kind(name, asked, entry, path)] if name else _may_be(asked.kinds, now, at, spot or (at.spot if at else Spot()))
        )
    except ConfigError as error:
        return Target(asked.kinds[0], at, own, device, str(error), (plain(name),))
    board = may[0] if may else asked.kinds[0]
    own = own or _own(board, at)
    if len(may) != 1:
        trouble = UNSURE if talk or at is None else TO_BE_ASKED
        return Target(board, at, own, device, trouble, tuple(each.name for each in may) or ("a board",))
    return Target(
        board, _spoken(at, may, asked.baud) if at else None, own, device, _trouble(device), means=_means(board, asked, entry)
    )


TO_BE_ASKED = "it will be asked what it is. Where it does not answer, say so: --board NAME"
UNSURE = "Say it with --board NAME (tinyfl boards list)."


def _there(spot: Spot, asked: FlashSelection, now: Seen, method: str) -> bool:
    """Whether something at this spot is seen or, as on a Mac, a way to the board all the same."""
    seen = any(spot.same(other) for other in _facts(now, _all_kinds(asked)))
    return seen or any(not way.obstacle for board in asked.boards for way in ways(board, now, None, (spot,), method))


async def _known(asked: FlashSelection, now: Seen, saved: Sequence[Saved], talk: bool, path: Path | None) -> Found:
    """The boards of --id and --tag."""
    found = await _at(now, [*_ports_of(asked, now), *inventory.ports_of(saved)], talk)
    kinds = tuple(board.name for board in asked.boards)
    chosen = inventory.select(Selection(kinds, inventory.hexadecimal(asked.ids), asked.tags), found, saved, path)
    entries = {each.id: each for each in saved}
    targets: list[Target] = []
    absent: list[Absent] = []
    pairs = [(entries.get(device.id, Saved(device.id)), device) for device in chosen.present]
    for entry, device in [*pairs, *((entry, device) for entry, device in chosen.missing)]:
        mine = device is None or bool(device.id) or inventory.entry_of(device, saved) == entry  # not one that may be another's
        there = device if device and device.state != "gone" and mine else None
        target = _target(asked, now, there, talk, entry, path) if there else None
        if target:
            targets.append(target)
        else:
            absent.append(Absent(entry.id, ("--id", entry.id)))
    return targets, absent


async def _connected(
    asked: FlashSelection, now: Seen, saved: Sequence[Saved], method: str, talk: bool, path: Path | None
) -> Found:
    """The boards of --board and --all; with --all those of devices.toml are missed that are not there."""
    ports = [*_ports_of(asked, now), *(inventory.ports_of(saved) if asked.everything else ())]
    found = [each for each in await _at(now, ports, talk) if each.state != "gone" or each.port.usb]
    entries = {each.port.url: inventory.entry_of(each, saved) for each in found}
    targets = [_target(asked, now, device, talk, entries[device.port.url], path) for device in found]
    there = _each_once([each for each in targets if each])
    inventory.demand_distinct(each.device for each in there if each.device)
    there = _joined(there, _loose(asked.kinds, now, [device.port.spot for device in found], there), now)
    here = {each.id for each in found} | {entry.id for entry in entries.values() if entry}
    serials = {spot.serial for each in there for spot in each.spots} - {""}
    missed = [each for each in saved if each.id not in here and each.usb_serial not in serials] if asked.everything else []
    names = [board.name for board in asked.boards]
    absent = [Absent(each.id, ("--id", each.id)) for each in missed if not names or each.board in names]
    return there or _reachable(asked.boards, now, method, found), absent


def _reachable(kinds: Sequence[Board], now: Seen, method: str, found: Sequence[Device]) -> list[Target]:
    """Boards of which nothing is seen, and that can be written all the same: by a probe that is not that of a board ``found``,
    or, where there is no probe at all, by one that only its tool sees."""
    taken = [each.port.spot for each in found]
    left = replace(now, probes=tuple(each for each in now.probes if not any(each.spot.same(spot) for spot in taken)))
    able: list[tuple[Board, Way]] = []
    for board in kinds:
        free = [each for each in ways(board, left, only=method) if not each.obstacle and (each.place or left == now)]
        able += [(board, each) for each in free[:1]]
    names = " or ".join(board.name for board, _ in able)
    trouble = f"a probe may be that of {names}. Flash one kind at a time." if len(able) > 1 else ""
    return [Target(board, None, (way.spot,) if way.spot else (), trouble=trouble) for board, way in able]


async def _at(now: Seen, ports: Iterable[Port], talk: bool) -> list[Device]:
    """What is at just these ports."""
    asked = {each.url: each for each in ports}
    if not talk:
        return [Device(each, "silent" if where(each) else "gone") for each in asked.values()]
    return await look(list(asked.values()), skip=[each for each in now.ports if each.url not in asked])


def _ports_of(asked: FlashSelection, now: Seen) -> list[Port]:
    """The ports whose USB ids are those of the links of kinds that are meant."""
    ids = {usb for board in asked.kinds for link in board.links for usb in link.usb}
    return [_spoken(each, asked.boards, asked.baud) for each in now.ports if each.usb in ids]


def _spoken(port: Port, kinds: Sequence[Board], baud: int) -> Port:
    """The port with the speeds to try: ``baud`` alone if it is given, else those of the manifests of ``kinds`` first."""
    by_manifest = [link.baud for board in kinds for link in board.links[:1]]
    return replace(port, bauds=(baud,) if baud else tuple(dict.fromkeys([*by_manifest, *port.bauds])))


def _target(
    asked: FlashSelection, now: Seen, device: Device, talk: bool, entry: Saved | None, path: Path | None
) -> Target | None:
    """The board at a port, if it is of a kind that is meant: by what it says, else by its ``entry`` in devices.toml (None: it
    has none), its drive, and its USB ids if they are of one kind."""
    name = device.description.board if device.description else (entry.board if entry else "")
    if name and not entry and name not in {board.name for board in _all_kinds(asked)}:
        return None
    try:
        may = [_kind(name, asked, entry, path)] if name else _may_be(_all_kinds(asked), now, device.port, device.port.spot)
    except ConfigError as error:
        means = ("--id", entry.id) if entry else ()
        unknown = Target(asked.kinds[0], device.port, (), device, str(error), (plain(name),), means=means)
        return None if asked.boards else unknown
    meant = [board for board in may if board in asked.kinds or (entry and entry.manifest and not asked.boards)]
    if not meant:
        return None
    trouble = _trouble(device)
    unclear: tuple[str, ...] = ()
    if len(may) > 1 and (asked.everything or len(meant) > 1):
        unclear = tuple(board.name for board in may)
        say = shell("--board", "NAME", "--port", device.port.url)
        silent = f"it does not answer and may be {' or '.join(unclear)}. Say what it is: {say}"
        trouble = trouble or (silent if talk else TO_BE_ASKED)
    at = _spoken(device.port, () if unclear else meant[:1], asked.baud)
    own = _own(meant[0], device.port)
    return Target(meant[0], at, own, device, trouble, unclear, means=_means(meant[0], asked, entry))


def _all_kinds(asked: FlashSelection) -> list[Board]:
    """Those of the package that can be flashed, and those that are asked for."""
    return list({board.name: board for board in (*FlashSelection().kinds, *asked.boards)}.values())


def _kind(name: str, asked: FlashSelection, entry: Saved | None, path: Path | None) -> Board:
    """The kind called ``name``: one that is asked for, or of the manifest that devices.toml names for the board, or of the
    package. Raises ConfigError where it is none of them."""
    file = path or inventory.DEVICES
    if mine := next((board for board in asked.boards if board.name == name), None):
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
        f"no board that comes with tinyfl is called {plain(name)!r}. Give its manifest's path to --board, or write it into "
        f'{file}, under the [[device]] of the board: manifest = "PATH.toml"'
    )


def _means(board: Board, asked: FlashSelection, entry: Saved | None) -> tuple[str, ...]:
    """The options for a board whose manifest only devices.toml names; none for others."""
    return ("--id", entry.id) if entry and entry.manifest and board not in asked.boards else ()


def _each_once(found: Sequence[Target]) -> list[Target]:
    """Without the silent second ports of boards that answer at, or show, another."""
    answering = {(each.port.serial, each.port.socket) for each in found if each.port and each.described}
    kept = []
    for each in found:
        who = (each.port.serial, each.port.socket) if each.port else ("", "")
        if each.described or not who[0] or who not in answering:
            kept.append(each)
            answering.add(who)
    return kept


def _trouble(device: Device | None) -> str:
    """Why a board at a port cannot be flashed, if so: it could not be asked afterwards. That it is silent is no reason."""
    return device.detail if device and device.state in ("busy", "denied", "gone") else ""


def _may_be(kinds: Iterable[Board], now: Seen, at: Port | None, spot: Spot) -> list[Board]:
    """The kinds that what has this port, or is at this spot, may be: by its drive's label, or else by its USB ids."""
    kinds = list(kinds)
    if by_drive := [board for board in kinds if any(drive.spot.same(spot) for drive in _drives(board))]:
        return by_drive
    usb = {at.usb} if at else set()
    usb |= {each.id for each in now.usb if each.spot.same(spot)} | {each.usb for each in now.ports if each.spot.same(spot)}
    probes = [each for each in now.probes if each.spot.same(spot)]
    return [board for board in kinds if usb & _ids(board) or any(fits(probe, board) for probe in probes)]


def _ids(board: Board) -> set[str]:
    return {*board.usb.probe, *board.usb.bootloader, *(usb for link in board.links for usb in link.usb)}


def _drives(board: Board) -> list[drives.Drive]:
    return [drive for method in board.flash if isinstance(method, Copy) for drive in drives.mounted(method.drive)]


def _facts(now: Seen, kinds: Iterable[Board]) -> list[Spot]:
    """All that is known of where things are; a thing that shows itself as several is there as often."""
    found = [each.spot for each in now.usb] + [each.spot for each in now.ports] + [each.spot for each in now.probes]
    return [spot for spot in (*found, *(drive.spot for board in kinds for drive in _drives(board))) if spot]


def _things(now: Seen, kinds: Iterable[Board]) -> list[Spot]:
    """Each thing that is connected, once."""
    found: list[Spot] = []
    for spot in _facts(now, kinds):
        if not any(spot.same(other) for other in found):
            found.append(spot)
    return found


def _own(board: Board, at: Port | None) -> tuple[Spot, ...]:
    """The spot that the board's probe and drive share with its port, where the manifest knows the port."""
    return (at.spot,) if at and at.spot and at.usb in _ids(board) else ()


def _loose(kinds: Sequence[Board], now: Seen, taken: Iterable[Spot], found: Sequence[Target]) -> list[Target]:
    """Boards of which only a drive, a bootloader or a probe is there, at none of the spots ``taken``; of drives of which
    nothing but their path is known, those that may not be one of the boards ``found``."""
    taken = [*taken, *(spot for target in found for spot in target.spots)]
    known = {name for target in found for name in target.unclear or (target.board.name,)}
    there = []
    for spot in _things(now, kinds):
        if any(spot.same(other) for other in taken):
            continue
        may = _may_be(kinds, now, None, spot)
        if may and (spot.socket or spot.serial or known.isdisjoint(board.name for board in may)):
            there.append(_silent(may, spot, now))
    return there


def _silent(may: Sequence[Board], spot: Spot, now: Seen) -> Target:
    """What is one of the boards ``may``, and has no port to be asked at."""
    if len(may) == 1:
        return Target(may[0], None, (spot,))
    names = tuple(board.name for board in may)
    say = shell("--board", "NAME", "--probe", spot.word(_things(now, may)))
    return Target(may[0], None, (spot,), None, f"it may be {' or '.join(names)}. Say what it is: {say}", names)


def _joined(found: Sequence[Target], loose: Sequence[Target], now: Seen) -> list[Target]:
    """One board where just one does not answer at its port, and just one of its kind waits in its bootloader: it has been
    stopped, and shows itself under another USB serial number."""
    joined, left = [], list(loose)
    for target in found:
        kind = target.board
        silent = [each for each in found if each.board.name == kind.name and not each.described]
        stopped = [each.spot for each in now.usb if each.id in kind.usb.bootloader]
        waiting = [each for each in left if each.board.name == kind.name and _at_one_of(each, stopped)]
        if silent == [target] and target.spots and not _at_one_of(target, stopped) and len(waiting) == 1:
            target = replace(target, spots=(*target.spots, *waiting[0].spots))
            left.remove(waiting[0])
        joined.append(target)
    return [*joined, *left]


def _at_one_of(target: Target, spots: Sequence[Spot]) -> bool:
    return any(own.same(spot) for own in target.spots for spot in spots)
