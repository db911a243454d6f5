"""The ways to write to a board now: each method of its manifest, with the place where it would write or what is in the way."""

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
"""USB ids of ST-Links: of the probes that boards here have, OpenOCD heeds a USB socket with these alone."""

UNKNOWN = Spot()


@dataclass(frozen=True)
class Seen:
    """What is connected to this machine now."""

    ports: tuple[Port, ...] = ()
    probes: tuple[Probe, ...] = ()
    usb: tuple[Usb, ...] = ()


@dataclass(frozen=True)
class Way:
    """A method and where it would write: ``place`` is a probe's id, the path of a mounted drive, a bootloader's port or serial
    number or, where ``by_socket``, the USB socket of one that no serial number tells from others. ``obstacle`` says why it
    cannot be had, ``touch`` is the port that must be touched at 1200 baud first, and ``spot`` what is known of the place."""

    method: FlashMethod
    place: str = ""
    obstacle: str = ""
    drive: Drive | None = None
    touch: Port | None = None
    by_socket: bool = False
    spot: Spot = UNKNOWN


def seen(before: Seen | None = None) -> Seen:
    """What is connected. ``before`` is what was a moment ago: where ports and USB devices are as they were, probes are not
    looked for anew, since pyocd takes its time."""
    ports, usb = tuple(serial_ports()), tuple(usb_devices())
    if before and (before.ports, before.usb) == (ports, usb):
        return before
    return Seen(ports, tuple(probes(usb)), usb)


def demand_method(board: Board, only: str = "") -> None:
    """Raises ConfigError for a board that is not flashed, or not by the method ``only``."""
    if not board.flash:
        raise ConfigError(
            f"{board.name} is not flashed: its manifest has no [[flash]]. To run it: tinyfl emulate --board {board.name}"
        )
    has = [method.method for method in board.flash]
    if only and only not in has:
        raise ConfigError(f"{board.name} has no flash method {only!r}; its manifest has {', '.join(has)}.")


def ways(board: Board, now: Seen, port: Port | None = None, spots: Sequence[Spot] = (), only: str = "") -> list[Way]:
    """The methods of ``board`` in its manifest's order, or the one called ``only``.

    ``port`` is the board's serial port, where one is known, and ``spots`` what is known of its probe, drive and bootloader
    (none: whatever fits the board is taken).
    """
    chosen = [method for method in board.flash if only in ("", method.method)]
    return [_way(method, board, now, port, spots, bool(only)) for method in chosen]


def first(found: Sequence[Way]) -> Way:
    """The first way with nothing in it. Raises FlashError with what is in each."""
    for way in found:
        if not way.obstacle:
            return way
    raise FlashError("there is no way to flash it as things are:\n" + obstacles(found))


def obstacles(found: Sequence[Way]) -> str:
    """What is in the way of each method that cannot be had, a line each."""
    return "\n".join(f"  {way.method.method}: {way.obstacle}" for way in found if way.obstacle)


def _way(method: FlashMethod, board: Board, now: Seen, port: Port | None, spots: Sequence[Spot], forced: bool) -> Way:
    if not methods.tool(method.method):
        return Way(method, obstacle=f"{method.method} is not installed. Install it: {methods.INSTALL[method.method]}")
    if isinstance(method, Copy):
        return _drive(method, spots)
    if isinstance(method, Bossac):
        return _bootloader(method, board, now, port, spots)
    if isinstance(method, DfuUtil):
        return _dfu(method, board, now, spots, forced)
    return _probe(method, board, now, spots, forced)


def _dfu(method: DfuUtil, board: Board, now: Seen, spots: Sequence[Spot], forced: bool) -> Way:
    there = [each for each in now.usb if each.id in board.usb.bootloader]
    device, obstacle = _one(there, spots, "device in DFU mode")
    if device:
        return _told_apart(Way(method, spot=device.spot), [each.spot for each in there])
    lacks = "" if there or forced else f"no {board.name} is in DFU mode. Hold BOOT (or BOOT0) while you press reset."
    return Way(method, obstacle=obstacle or lacks)


def _probe(method: FlashMethod, board: Board, now: Seen, spots: Sequence[Spot], forced: bool) -> Way:
    """By a debug probe: the board's own, one that is no board's own where the board has none, or whatever ``spots`` names."""
    named = [each for each in now.probes if _is_one_of(each, spots)]
    own = [each for each in now.probes if fits(each, board)]
    loose = [each for each in now.probes if not each.boards] if external(board) else []
    probe, obstacle = _one(named or own or loose, spots, "debug probe")
    if obstacle:
        return Way(method, obstacle=obstacle)
    if probe:
        way = _told_apart(Way(method, spot=probe.spot), [each.spot for each in now.probes])
        if ":" in way.place and not way.by_socket and isinstance(method, Pyocd):
            why = f"pyocd would read the serial number {plain(probe.id)} as a kind of probe and another's number"
            return replace(way, obstacle=f"{why}. Take another --method.")
        if not way.by_socket or (way.place and isinstance(method, Openocd) and probe.usb.startswith(ST)):
            return way
        if len(now.probes) == 1:
            return Way(method, spot=probe.spot)
        lacks = f"{sum(each.id == probe.id for each in now.probes)} have {plain(probe.id)}" if probe.id else "this one has none"
        why = f"{method.method} tells such probes apart by their serial numbers only, and {lacks}. Unplug the others."
        return Way(method, obstacle=why)
    if not forced:
        seen_by_tool = f" One that only {method.method} sees: --method {method.method}." if external(board) else ""
        lacks = f"no debug probe for {board.name} is connected, or you may not use it (tinyfl doctor).{seen_by_tool}"
        return Way(method, obstacle=lacks)
    if now.probes and not spots:  # the tool would take the first that it finds
        others = ", ".join(each.id or each.name for each in now.probes)
        return Way(method, obstacle=f"the debug probes here are other boards' ({others}). Say which is meant with --probe ID.")
    return Way(method, spots[0].serial if spots else "", spot=spots[0] if spots else Spot())


def fits(probe: Probe, board: Board) -> bool:
    """Whether the probe is one that ``board`` carries, or pyocd says so."""
    return board.name in probe.boards or probe.usb in board.usb.probe


def external(board: Board) -> bool:
    """Whether the board has no probe of its own, so that any probe may hang on it."""
    return not board.usb.probe or bool(board.usb.bootloader)


def _told_apart(way: Way, others: Sequence[Spot]) -> Way:
    """``way`` to what is at its spot, by its serial number if that tells it from ``others``, else by its socket."""
    place = way.spot.word(others)
    return replace(way, place=place, by_socket=place != way.spot.serial or not place)


def _bootloader(method: Bossac, board: Board, now: Seen, port: Port | None, spots: Sequence[Spot]) -> Way:
    there = [each for each in now.ports if each.usb in board.usb.bootloader]
    own, obstacle = _one(there, spots, "bootloader's port")
    if own:
        return Way(method, own.url, spot=own.spot)
    maker = {usb[:4] for usb in board.usb.bootloader}
    if not there and port and port.usb[:4] in maker:
        return Way(method, port.url, touch=port, spot=port.spot)
    lacks = (
        f"no bootloader of {board.name} is connected. Press its reset button twice, quickly, so that a light pulses; or name "
        "the port of the sketch that runs there with --port."
    )
    return Way(method, obstacle=obstacle or lacks)


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
    """The one of ``things`` that is at one of ``spots``, or else None and what is in the way, if anything is there. What has
    neither a socket nor a serial number may be any board's."""
    exact = [each for each in things if _is_one_of(each, spots)]
    same = exact or [each for each in things if not spots or not (each.spot.socket or each.spot.serial)]
    if len(same) == 1:
        return same[0], ""
    names = ", ".join(plain(each.spot.word(other.spot for other in things)) or "one without a serial number" for each in things)
    if same:
        return None, f"there is more than one {what} ({names}). Say which with --probe."
    return None, f"the {what} there ({names}) is another board's. Say which is meant with --probe." if things else ""
