"""Which boards are to be flashed."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from tinyfl import boards, inventory
from tinyfl.boards import Board, Copy
from tinyfl.devices import Device, look
from tinyfl.errors import ConfigError
from tinyfl.flash import drives
from tinyfl.flash.ways import Seen, fits
from tinyfl.inventory import Saved, Selection
from tinyfl.link.board import Description
from tinyfl.ports import Port, port


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
    board cannot be flashed. What is not known is empty."""

    board: Board
    port: Port | None = None
    serials: tuple[str, ...] = ()
    device: Device | None = field(default=None, compare=False)
    trouble: str = ""

    @property
    def described(self) -> Description | None:
        return self.device.description if self.device else None

    @property
    def name(self) -> str:
        """What a person knows it by: its id, its USB serial number, its port."""
        return (self.device.id if self.device else "") or "".join(self.serials[:1]) or (self.port.url if self.port else "")

    @property
    def where(self) -> tuple[str, ...]:
        """The command line's option that means just this board."""
        return ("--probe", self.serials[0]) if self.serials else ("--port", self.port.url) if self.port else ()


async def find(asked: Asked, now: Seen, saved: Sequence[Saved], talk: bool = True) -> tuple[list[Target], list[str]]:
    """The boards that are meant and there, and the ids of those of devices.toml that are not. With ``talk`` each is asked to
    describe itself first; without, no port is opened.

    Raises ConfigError where it is not clear which boards are meant.
    """
    if asked.ports or asked.probes:
        return await _named(asked, now, talk), []
    if asked.ids or asked.tags:
        return await _known(asked, now, saved, talk)
    if not asked.boards and not asked.everything:
        raise ConfigError("which boards are meant? Give --board NAME, --all, or any of --id, --tag, --probe and --port.")
    return await _connected(asked, now, saved, talk)


async def _named(asked: Asked, now: Seen, talk: bool) -> list[Target]:
    """The boards of --port and --probe."""
    if len(asked.boards) > 1:
        raise ConfigError("with --port or --probe give --board once, or leave it out where the board says what it is.")
    if asked.probes and asked.ports and (len(asked.probes), len(asked.ports)) != (1, 1):
        raise ConfigError("--probe and --port together mean one board. Give each once, or several of one kind.")
    ports: list[Port | None] = [port(url, asked.baud) for url in asked.ports]
    ports = ports or [next((each for each in now.ports if each.serial == serial), None) for serial in asked.probes]
    devices = {each.port.url: each for each in await _at(now, [each for each in ports if each], talk)}
    targets = []
    for number, at in enumerate(ports):
        serial = asked.probes[number] if asked.probes else at.serial if at else ""
        device = devices[at.url] if at else None
        may = list(asked.boards) or _may_be(asked.kinds, now, at, serial)
        if device and device.description and not asked.boards:
            may = [boards.load(device.description.board)]
        if len(may) != 1:
            raise ConfigError(f"which board is at {at.url if at else serial}? Say it with --board NAME (tinyfl boards list).")
        own = (serial,) if asked.probes else _own(may[0], at)
        targets.append(Target(may[0], at, own, device, _trouble(device)))
    others = _loose([target.board for target in targets], now, [serial for target in targets for serial in target.serials])
    return _joined(targets, others, now)[: len(targets)]


async def _known(asked: Asked, now: Seen, saved: Sequence[Saved], talk: bool) -> tuple[list[Target], list[str]]:
    """The boards of --id and --tag."""
    found = await _at(now, [*_ports_of(asked.kinds, now), *inventory.ports_of(saved)], talk)
    kinds = tuple(board.name for board in asked.boards)
    chosen = inventory.select(Selection(kinds, asked.ids, asked.tags), found, saved)
    targets = [_target(asked, now, device) for device in chosen.there]
    targets += [_target(asked, now, device, each.board) for each, device in chosen.missing if device]
    return [each for each in targets if each], [each.id for each, device in chosen.missing if not device]


async def _connected(asked: Asked, now: Seen, saved: Sequence[Saved], talk: bool) -> tuple[list[Target], list[str]]:
    """The boards of --board and --all; with --all those of devices.toml are missed that are not there."""
    kinds = {each.usb_serial: each.board for each in saved if each.usb_serial}
    ports = [*_ports_of(asked.kinds, now), *(inventory.ports_of(saved) if asked.everything else ())]
    found = await _at(now, ports, talk)
    targets = [_target(asked, now, device, kinds.get(device.port.serial, "")) for device in found]
    there = [each for each in targets if each]
    there = _joined(there, _loose(asked.kinds, now, [device.port.serial for device in found]), now)
    if len(there) > 1 and not asked.everything:
        lines = "\n".join(
            "  " + shlex.join(("tinyfl", "flash", "--board", asked.word(each.board), *each.where)) for each in there
        )
        raise ConfigError(f"{len(there)} connected boards may be meant. Give --all for all of them, or take one of\n{lines}")
    here = {each.id for each in found} | {serial for each in there for serial in each.serials}
    missed = [each for each in saved if each.id not in here and each.usb_serial not in here] if asked.everything else []
    return there, [each.id for each in missed if not asked.boards or each.board in [board.name for board in asked.boards]]


async def _at(now: Seen, ports: Iterable[Port], talk: bool) -> list[Device]:
    """What is at just these ports."""
    asked = {each.url: each for each in ports}
    if not talk:
        return [Device(each, "silent") for each in asked.values()]
    return await look(list(asked.values()), skip=[each for each in now.ports if each.url not in asked])


def _ports_of(kinds: Iterable[Board], now: Seen) -> list[Port]:
    """The ports whose USB ids are those of these kinds' links."""
    ids = {usb for board in kinds for link in board.links for usb in link.usb}
    return [each for each in now.ports if each.usb in ids]


def _target(asked: Asked, now: Seen, device: Device, saved: str = "") -> Target | None:
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
    if len(may) > 1 and not trouble and (asked.everything or len(meant) > 1):
        names = " or ".join(board.name for board in may)
        trouble = f"it does not answer and may be {names}. Say what it is: --board NAME --port {device.port.url}"
    return Target(meant[0], device.port, _own(meant[0], device.port), device, trouble)


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


def _loose(kinds: Sequence[Board], now: Seen, taken: Iterable[str]) -> list[Target]:
    """Boards of which only a drive, a bootloader or a probe is there, with none of the USB serial numbers ``taken``."""
    on_drives = [(board, drive.serial) for board in kinds for drive in _drives(board)]
    serials = {each.serial for each in now.usb} | {each.serial for each in now.ports} | {each.id for each in now.probes}
    serials |= {serial for _, serial in on_drives}
    there = []
    for serial in sorted(serials - set(taken) - {""}):
        if may := _may_be(kinds, now, None, serial):
            names = " or ".join(board.name for board in may)
            trouble = f"it may be {names}. Say what it is: --board NAME --probe {serial}" if len(may) > 1 else ""
            there.append(Target(may[0], None, (serial,), None, trouble))
    # Where drives have no serial numbers to be seen, nothing tells whether this one is that of a port.
    nameless = {board.name: board for board, serial in on_drives if not serial} if not taken and not there else {}
    return [*there, *map(Target, nameless.values())]


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
