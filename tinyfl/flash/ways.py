"""Ways to write to a board: each method of its manifest, with the place to write to or the obstacle."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from tinyfl.building.boards import Board, Bossac, Copy, DfuUtil, FlashMethod, Openocd, Pyocd
from tinyfl.devices.connected import Probe, Usb, probes, usb_devices
from tinyfl.devices.ports import Port, Spot, serial_ports
from tinyfl.errors import ConfigError, FlashError
from tinyfl.errors.words import plain
from tinyfl.flash import drives, methods
from tinyfl.flash.drives import Drive

ST = "0483:"
"""USB vendor id of ST-Links, the only supported probes that OpenOCD can select by USB socket."""

UNKNOWN = Spot()


@dataclass(frozen=True)
class Seen:
    """The devices connected to this machine."""

    ports: tuple[Port, ...] = ()
    probes: tuple[Probe, ...] = ()
    usb: tuple[Usb, ...] = ()


@dataclass(frozen=True)
class Way:
    """A method and the place to write to: a probe's id, the path of a mounted drive, a bootloader's port or serial number or,
    with ``by_socket``, the USB socket of a device without a unique serial number. ``obstacle`` is why the method is
    unavailable, ``touch`` the port to touch at 1200 baud first, and ``spot`` the USB identity of the place."""

    method: FlashMethod
    place: str = ""
    obstacle: str = ""
    drive: Drive | None = None
    touch: Port | None = None
    by_socket: bool = False
    spot: Spot = UNKNOWN


def seen(before: Seen | None = None) -> Seen:
    """Lists the connected devices. ``before`` is an earlier result: if ports and USB devices are unchanged it is returned,
    since searching for probes with pyocd is slow."""
    ports, usb = tuple(serial_ports()), tuple(usb_devices())
    if before and (before.ports, before.usb) == (ports, usb):
        return before
    return Seen(ports, tuple(probes(usb)), usb)


def demand_method(board: Board, only: str = "") -> None:
    """Raises ConfigError for a board that cannot be flashed, or not by the method ``only``."""
    if board.sold and not board.flash:
        raise ConfigError(
            f"{board.name} is not flashed: its firmware is a program. Build it:  tinyfl build --board {board.name}  "
            "and copy it to the device (docs/boards.md)."
        )
    if not board.flash:
        raise ConfigError(
            f"{board.name} cannot be flashed: its manifest has no [[flash]]. To run it:  tinyfl emulate --board {board.name}"
        )
    available = [method.method for method in board.flash]
    if only and only not in available:
        raise ConfigError(f"{board.name} has no flash method {only!r}; its manifest has {', '.join(available)}.")


def ways(board: Board, present: Seen, port: Port | None = None, spots: Sequence[Spot] = (), only: str = "") -> list[Way]:
    """The methods of ``board`` in the order of its manifest, or only the one called ``only``.

    ``port`` is the board's serial port, if known; ``spots`` are those of its probe, drive and bootloader (none: any that match
    the board).
    """
    selected = [method for method in board.flash if only in ("", method.method)]
    return [_way(method, board, present, port, spots, bool(only)) for method in selected]


def first(found: Sequence[Way]) -> Way:
    """The first way without an obstacle. Raises FlashError with all obstacles."""
    for way in found:
        if not way.obstacle:
            return way
    raise FlashError("no flash method is available:\n" + obstacles(found))


def obstacles(found: Sequence[Way]) -> str:
    """The obstacle of each unavailable method, one line each."""
    return "\n".join(f"  {way.method.method}: {way.obstacle}" for way in found if way.obstacle)


def _way(method: FlashMethod, board: Board, present: Seen, port: Port | None, spots: Sequence[Spot], forced: bool) -> Way:
    if not methods.tool(method.method):
        return Way(method, obstacle=f"{method.method} is not installed. Install it: {methods.INSTALL[method.method]}")
    if isinstance(method, Copy):
        return _drive(method, spots)
    if isinstance(method, Bossac):
        return _bootloader(method, board, present, port, spots)
    if isinstance(method, DfuUtil):
        return _dfu(method, board, present, spots, forced)
    return _probe(method, board, present, spots, forced)


def _dfu(method: DfuUtil, board: Board, present: Seen, spots: Sequence[Spot], forced: bool) -> Way:
    matching = [each for each in present.usb if each.id in board.usb.bootloader]
    device, obstacle = _one(matching, spots, "device in DFU mode")
    if device:
        return _addressed(Way(method, spot=device.spot), [each.spot for each in matching])
    missing = "" if matching or forced else f"no {board.name} is in DFU mode. Hold BOOT (or BOOT0) while you press reset."
    return Way(method, obstacle=obstacle or missing)


def _probe(method: FlashMethod, board: Board, present: Seen, spots: Sequence[Spot], forced: bool) -> Way:
    """The way by a debug probe: one at ``spots``, the board's own or, for a board without one, a separate probe."""
    selected = [each for each in present.probes if _is_one_of(each, spots)]
    own = [each for each in present.probes if fits(each, board)]
    loose = [each for each in present.probes if not each.boards] if external(board) else []
    probe, obstacle = _one(selected or own or loose, spots, "debug probe")
    if obstacle:
        return Way(method, obstacle=obstacle)
    if probe:
        way = _addressed(Way(method, spot=probe.spot), [each.spot for each in present.probes])
        if ":" in way.place and not way.by_socket and isinstance(method, Pyocd):
            why = f"pyocd would parse the serial number {plain(probe.id)} as a probe's kind and serial number"
            return replace(way, obstacle=f"{why}. Use another --method.")
        if not way.by_socket or (way.place and isinstance(method, Openocd) and probe.usb.startswith(ST)):
            return way
        if len(present.probes) == 1:
            return Way(method, spot=probe.spot)
        missing = (
            f"{sum(each.id == probe.id for each in present.probes)} have {plain(probe.id)}" if probe.id else "this one has none"
        )
        why = f"{method.method} selects such probes only by serial number, and {missing}. Unplug the others."
        return Way(method, obstacle=why)
    if not forced:
        seen_by_tool = f" For one that only {method.method} sees: --method {method.method}." if external(board) else ""
        missing = (
            f"no debug probe for {board.name} is connected, or you have no permission to use it (tinyfl doctor).{seen_by_tool}"
        )
        return Way(method, obstacle=missing)
    if present.probes and not spots:  # the tool would use the first it finds
        others = ", ".join(each.id or each.name for each in present.probes)
        return Way(method, obstacle=f"the debug probes belong to other boards ({others}). Select one with --probe ID.")
    return Way(method, spots[0].serial if spots else "", spot=spots[0] if spots else Spot())


def fits(probe: Probe, board: Board) -> bool:
    """Whether the probe is on-board on ``board``, or pyocd reports its target."""
    return board.name in probe.boards or probe.usb in board.usb.probe


def external(board: Board) -> bool:
    """Whether the board has no on-board probe, so that any probe may be connected to it."""
    return not board.usb.probe or bool(board.usb.bootloader)


def _addressed(way: Way, others: Sequence[Spot]) -> Way:
    """Sets the place of ``way`` from its spot: the serial number if it is unique among ``others``, else the socket."""
    place = way.spot.word(others)
    return replace(way, place=place, by_socket=place != way.spot.serial or not place)


def _bootloader(method: Bossac, board: Board, present: Seen, port: Port | None, spots: Sequence[Spot]) -> Way:
    matching = [each for each in present.ports if each.usb in board.usb.bootloader]
    own, obstacle = _one(matching, spots, "bootloader's port")
    if own:
        return Way(method, own.url, spot=own.spot)
    maker = {usb[:4] for usb in board.usb.bootloader}
    if not matching and port and port.usb[:4] in maker:
        return Way(method, port.url, touch=port, spot=port.spot)
    missing = (
        f"no bootloader of {board.name} is connected. Press its reset button twice, quickly, until an LED pulses; or give "
        "the port of its running sketch with --port."
    )
    return Way(method, obstacle=obstacle or missing)


def _drive(method: Copy, spots: Sequence[Spot]) -> Way:
    drive, obstacle = _one(drives.mounted(method.drive), spots, "drive")
    if drive:
        return Way(method, str(drive.path), drive=drive, spot=drive.spot)
    if device := drives.unmounted(method.drive):
        obstacle = f"the drive {method.drive} is not mounted. Mount it: udisksctl mount -b {device}"
    how = "Hold the board's boot button while you plug it in." if method.format == "uf2" else "Plug the board in."
    return Way(method, obstacle=obstacle or f"no drive called {method.drive} is mounted. {how}")


class _Plugged(Protocol):
    @property
    def spot(self) -> Spot: ...


T = TypeVar("T", bound=_Plugged)


def _is_one_of(thing: _Plugged, spots: Iterable[Spot]) -> bool:
    return any(thing.spot.same(spot) for spot in spots)


def _one(things: Sequence[T], spots: Sequence[Spot], what: str) -> tuple[T | None, str]:
    """The only one of ``things`` at one of ``spots``, or None and the obstacle (empty if there are no things). A thing without
    socket and serial number may belong to any board."""
    exact = [each for each in things if _is_one_of(each, spots)]
    same = exact or [each for each in things if not spots or not (each.spot.socket or each.spot.serial)]
    if len(same) == 1:
        return same[0], ""
    names = ", ".join(plain(each.spot.word(other.spot for other in things)) or "one without a serial number" for each in things)
    if same:
        return None, f"there is more than one {what} ({names}). Select one with --probe."
    return None, f"the {what} ({names}) belongs to another board. Select one with --probe." if things else ""
