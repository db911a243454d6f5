"""Which boards are to be flashed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tinyfl import boards, inventory
from tinyfl.boards import Board, Copy
from tinyfl.devices import Device, look
from tinyfl.errors import ConfigError
from tinyfl.flash import drives
from tinyfl.flash.ways import Seen, Way, fits, ways
from tinyfl.inventory import Saved, Selection
from tinyfl.link.board import Description
from tinyfl.ports import Port, port, where
from tinyfl.words import shell


@dataclass(frozen=True)
class Asked:
    """What a command line asks for: kinds of boards, ids (or their beginnings) and tags of devices.toml, ``everything`` that is
    connected (of those kinds, if there are any), USB serial numbers of probes, bootloaders or drives, and urls of ports."""

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

    @property
    def kinds(self) -> list[Board]:
        """The kinds that are meant; all of the package that can be flashed, if none is named."""
        return list(self.boards) or [board for board in map(boards.load, boards.names()) if board.flash]


@dataclass(frozen=True)
class Target:
    """A board to be flashed. ``port`` is where its firmware answers; ``serials`` are the USB serial numbers of its probe, drive
    and bootloader (none: those of any that fit). ``device`` is what was found when its port was asked, ``trouble`` why the
    board cannot be flashed, ``unclear`` the kinds that it may be, where that is not clear. What is not known is empty."""

    board: Board
    port: Port | None = None
    serials: tuple[str, ...] = ()
    device: Device | None = field(default=None, compare=False)
    trouble: str = ""
    unclear: tuple[str, ...] = ()

    @property
    def described(self) -> Description | None:
        return self.device.description if self.device else None

    @property
    def kind(self) -> str:
        """The board's kind, or those that it may be."""
        return " or ".join(self.unclear) or self.board.name

    @property
    def name(self) -> str:
        """What a person knows it by: its id, its USB serial number, its port."""
        return (self.device.id if self.device else "") or "".join(self.serials[:1]) or (self.port.url if self.port else "")

    @property
    def key(self) -> str:
        """What it is known by from one look to the next: unlike its name, the same before it was flashed and after."""
        at = self.port
        return (at.serial if at else "") or "".join(self.serials[:1]) or (at.url if at else "") or self.board.name

    @property
    def where(self) -> tuple[str, ...]:
        """The command line's options that mean just this board."""
        probe = ("--probe", self.serials[0]) if self.serials else ()
        by_probe = self.port is None or (self.port.serial and self.port.serial in self.serials)
        return probe if by_probe or not self.port else (*probe, "--port", self.port.url)


@dataclass(frozen=True)
class Absent:
    """A board that is meant and not there: what a person knows it by, and the command line's options that mean it."""

    name: str
    where: tuple[str, ...]


Found = tuple[list[Target], list[Absent]]


async def find(
    asked: Asked, now: Seen, saved: Sequence[Saved], *, method: str = "", talk: bool = True, path: Path | None = None
) -> Found:
    """The boards that are meant and there, and those that are not. With ``talk`` each is asked to describe itself first;
    without, no port is opened. ``method`` is the only one to be used, if any is said: its tool may see a probe that we do not.
    ``path`` is where the devices ``saved`` stand.

    Raises ConfigError where it is not clear which boards are meant.
    """
    if asked.ports or asked.probes:
        return await _named(asked, now, method, talk)
    if asked.ids or asked.tags:
        return await _known(asked, now, saved, talk, path)
    if not asked.boards and not asked.everything:
        raise ConfigError("which boards are meant? Give --board NAME, --all, or any of --id, --tag, --probe and --port.")
    return await _connected(asked, now, saved, method, talk)


async def _named(asked: Asked, now: Seen, method: str, talk: bool) -> Found:
    """The boards of --port and --probe."""
    if len(asked.boards) > 1:
        raise ConfigError("with --port or --probe give --board once, or leave it out where the board says what it is.")
    if asked.probes and asked.ports and (len(asked.probes), len(asked.ports)) != (1, 1):
        raise ConfigError("--probe and --port together mean one board. Give each once, or several of one kind.")
    ports: list[Port | None] = [port(url, now=now.ports) for url in asked.ports]
    ports = ports or [next((each for each in now.ports if each.serial == serial), None) for serial in asked.probes]
    ports = [_spoken(each, asked.boards, asked.baud) if each else None for each in ports]
    devices = {each.port.url: each for each in await _at(now, [each for each in ports if each], talk)}
    targets: list[Target] = []
    absent: list[Absent] = []
    for at, probe in zip(ports, asked.probes or [""] * len(ports), strict=True):
        device = devices[at.url] if at else None
        if (device and device.state == "gone") or (probe and not _there(probe, asked.boards, now, method)):
            where = (("--probe", probe) if probe else ()) + (("--port", at.url) if at and asked.ports else ())
            absent.append(Absent(where[-1], where))
        else:
            targets.append(_named_one(asked, now, at, probe, device, talk))
    taken = [serial for target in targets for serial in target.serials]
    others = _loose([target.board for target in targets], now, taken, targets)
    return _joined(targets, others, now)[: len(targets)], absent


def _named_one(asked: Asked, now: Seen, at: Port | None, probe: str, device: Device | None, talk: bool) -> Target:
    may = list(asked.boards) or _may_be(asked.kinds, now, at, probe or (at.serial if at else ""))
    if device and device.description and not asked.boards:
        may = [boards.named(device.description.board)]
    if len(may) != 1 and (talk or at is None):
        raise ConfigError(f"which board is at {at.url if at else probe}? Say it with --board NAME (tinyfl boards list).")
    board = may[0] if may else asked.kinds[0]
    own = (probe,) if probe else _own(board, at)
    if len(may) != 1:
        return Target(board, at, own, device, TO_BE_ASKED, tuple(each.name for each in may) or ("a board",))
    return Target(board, _spoken(at, may, asked.baud) if at else None, own, device, _trouble(device))


TO_BE_ASKED = "it will be asked what it is. Where it does not answer, say so: --board NAME"


def _there(probe: str, kinds: Sequence[Board], now: Seen, method: str) -> bool:
    """Whether something with this USB serial number is seen or, as on a Mac, a way to the board all the same."""
    seen = {each.serial for each in now.usb} | {each.serial for each in now.ports} | {each.id for each in now.probes}
    return probe in seen or any(not way.obstacle for board in kinds for way in ways(board, now, None, (probe,), method))


async def _known(asked: Asked, now: Seen, saved: Sequence[Saved], talk: bool, path: Path | None) -> Found:
    """The boards of --id and --tag."""
    found = await _at(now, [*_ports_of(asked, now), *inventory.ports_of(saved)], talk)
    kinds = tuple(board.name for board in asked.boards)
    chosen = inventory.select(Selection(kinds, inventory.hexadecimal(asked.ids), asked.tags), found, saved, path)
    near = [(each, device if device and device.state != "gone" else None) for each, device in chosen.missing]
    targets = [_target(asked, now, device, talk) for device in chosen.there]
    targets += [_target(asked, now, device, talk, each.board) for each, device in near if device]
    return [each for each in targets if each], [Absent(each.id, ("--id", each.id)) for each, device in near if not device]


async def _connected(asked: Asked, now: Seen, saved: Sequence[Saved], method: str, talk: bool) -> Found:
    """The boards of --board and --all; with --all those of devices.toml are missed that are not there."""
    kinds = {each.usb_serial: each.board for each in saved if each.usb_serial}
    ports = [*_ports_of(asked, now), *(inventory.ports_of(saved) if asked.everything else ())]
    found = await _at(now, ports, talk)
    targets = [_target(asked, now, device, talk, kinds.get(device.port.serial, "")) for device in found]
    there = _each_once([each for each in targets if each])
    inventory.demand_distinct(each.device for each in there if each.device)
    there = _joined(there, _loose(asked.kinds, now, [device.port.serial for device in found], there), now)
    here = {each.id for each in found} | {serial for each in there for serial in each.serials}
    missed = [each for each in saved if each.id not in here and each.usb_serial not in here] if asked.everything else []
    names = [board.name for board in asked.boards]
    absent = [Absent(each.id, ("--id", each.id)) for each in missed if not names or each.board in names]
    return there or _reachable(asked.boards, now, method, found), absent


def _reachable(kinds: Sequence[Board], now: Seen, method: str, found: Sequence[Device]) -> list[Target]:
    """Boards of which nothing is seen, and that can be written all the same: by a probe that is not that of a board ``found``,
    or, where there is no probe at all, by one that only its tool sees."""
    taken = {each.port.serial or each.port.usb for each in found}
    left = replace(now, probes=tuple(each for each in now.probes if (each.id or each.usb) not in taken))
    able: list[tuple[Board, Way]] = []
    for board in kinds:
        free = [each for each in ways(board, left, only=method) if not each.obstacle and (each.place or left == now)]
        able += [(board, each) for each in free[:1]]
    names = " or ".join(board.name for board, _ in able)
    trouble = f"a probe may be that of {names}. Flash one kind at a time." if len(able) > 1 else ""
    return [Target(board, None, way.serials, trouble=trouble) for board, way in able]


async def _at(now: Seen, ports: Iterable[Port], talk: bool) -> list[Device]:
    """What is at just these ports."""
    asked = {each.url: each for each in ports}
    if not talk:
        return [Device(each, "silent" if where(each) else "gone") for each in asked.values()]
    return await look(list(asked.values()), skip=[each for each in now.ports if each.url not in asked])


def _ports_of(asked: Asked, now: Seen) -> list[Port]:
    """The ports whose USB ids are those of the links of kinds that are meant."""
    ids = {usb for board in asked.kinds for link in board.links for usb in link.usb}
    return [_spoken(each, asked.boards, asked.baud) for each in now.ports if each.usb in ids]


def _spoken(port: Port, kinds: Sequence[Board], baud: int) -> Port:
    """The port with the speeds to try: ``baud`` alone if it is given, else those of the manifests of ``kinds`` first."""
    by_manifest = [link.baud for board in kinds for link in board.links[:1]]
    return replace(port, bauds=(baud,) if baud else tuple(dict.fromkeys([*by_manifest, *port.bauds])))


def _target(asked: Asked, now: Seen, device: Device, talk: bool, saved: str = "") -> Target | None:
    """The board at a port, if it is of a kind that is meant: by what it says, else by devices.toml (``saved``), its drive, and
    its USB ids if they are of one kind."""
    every = {board.name: board for board in (*Asked().kinds, *asked.boards)}
    name = device.description.board if device.description else saved
    if name and name not in every:
        return None
    may = [every[name]] if name else _may_be(every.values(), now, device.port, device.port.serial)
    meant = [board for board in may if board in asked.kinds]
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
    return Target(meant[0], at, _own(meant[0], device.port), device, trouble, unclear)


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


def _may_be(kinds: Iterable[Board], now: Seen, at: Port | None, serial: str) -> list[Board]:
    """The kinds that what has this port, or this USB serial number, may be: by its drive's label, or else by its USB ids."""
    kinds = list(kinds)
    if by_drive := [board for board in kinds if serial and any(drive.serial == serial for drive in _drives(board))]:
        return by_drive
    usb = {at.usb} if at else set()
    if serial:
        usb |= {each.id for each in now.usb if each.serial == serial} | {
            each.usb for each in now.ports if each.serial == serial
        }
    probes = [each for each in now.probes if each.id == serial]
    return [board for board in kinds if usb & _ids(board) or any(fits(probe, board) for probe in probes)]


def _ids(board: Board) -> set[str]:
    return {*board.usb.probe, *board.usb.bootloader, *(usb for link in board.links for usb in link.usb)}


def _drives(board: Board) -> list[drives.Drive]:
    return [drive for method in board.flash if isinstance(method, Copy) for drive in drives.mounted(method.drive)]


def _own(board: Board, at: Port | None) -> tuple[str, ...]:
    """The USB serial number that the board's probe and drive share with its port, where the manifest knows the port."""
    return (at.serial,) if at and at.serial and at.usb in _ids(board) else ()


def _loose(kinds: Sequence[Board], now: Seen, taken: Iterable[str], found: Sequence[Target]) -> list[Target]:
    """Boards of which only a drive, a bootloader or a probe is there, with none of the USB serial numbers ``taken``; of those
    without a serial number, what may not be one of the boards ``found``."""
    on_drives = [(board, drive.serial) for board in kinds for drive in _drives(board)]
    serials = {each.serial for each in now.usb} | {each.serial for each in now.ports} | {each.id for each in now.probes}
    serials |= {serial for _, serial in on_drives}
    there = []
    for serial in sorted(serials - set(taken) - {""}):
        if may := _may_be(kinds, now, None, serial):
            there.append(_silent(may, (serial,)))
    known = {name for target in (*found, *there) for name in target.unclear or (target.board.name,)}
    with_port = {each.usb for each in now.ports if not each.serial}
    bare = [[board for board in kinds if usb in _ids(board)] for usb in
            sorted({each.id for each in now.usb if not each.serial} - with_port)]  # fmt: skip
    for may in [*bare, *([board] for board, serial in on_drives if not serial)]:
        if may and known.isdisjoint(names := [board.name for board in may]):
            known.update(names)
            there.append(_silent(may, ()))
    return there


def _silent(may: Sequence[Board], serials: tuple[str, ...]) -> Target:
    """What is one of the boards ``may``, and has no port to be asked at."""
    if len(may) == 1:
        return Target(may[0], None, serials)
    names = tuple(board.name for board in may)
    say = shell("--board", "NAME", *(("--probe", *serials) if serials else ()))
    return Target(may[0], None, serials, None, f"it may be {' or '.join(names)}. Say what it is: {say}", names)


def _joined(found: Sequence[Target], loose: Sequence[Target], now: Seen) -> list[Target]:
    """One board where just one does not answer at its port, and just one of its kind waits in its bootloader: it has been
    stopped, and shows itself under another USB serial number."""
    joined, left = [], list(loose)
    for target in found:
        kind = target.board
        silent = [each for each in found if each.board.name == kind.name and not each.described]
        stopped = {each.serial for each in now.usb if each.id in kind.usb.bootloader}
        waiting = [each for each in loose if each.board.name == kind.name and stopped.intersection(each.serials)]
        if silent == [target] and target.serials and len(waiting) == 1:
            target = replace(target, serials=(*target.serials, *waiting[0].serials))
            left.remove(waiting[0])
        joined.append(target)
    return [*joined, *left]
