"""The ways to write to a board now: each method of its manifest, with the place where it would write or what is in the way."""

from collections.abc import Sequence
from dataclasses import dataclass

from tinyfl.boards import Board, Bossac, Copy, DfuUtil, FlashMethod, Openocd, Pyocd
from tinyfl.devices import Probe, Usb, probes, usb_devices
from tinyfl.errors import ConfigError, FlashError
from tinyfl.flash import drives, methods
from tinyfl.flash.drives import Drive
from tinyfl.ports import Port, serial_ports


@dataclass(frozen=True)
class Seen:
    """What is connected to this machine now."""

    ports: tuple[Port, ...] = ()
    probes: tuple[Probe, ...] = ()
    usb: tuple[Usb, ...] = ()


@dataclass(frozen=True)
class Way:
    """A method and where it would write: a probe's id, a mounted drive, a bootloader's port or serial number. ``obstacle`` says
    why it cannot be had, and ``touch`` is the port that must be touched at 1200 baud first."""

    method: FlashMethod
    place: str = ""
    obstacle: str = ""
    drive: Drive | None = None
    touch: Port | None = None

    @property
    def serials(self) -> tuple[str, ...]:
        """The serial number that ``place`` is, if it is one."""
        return (self.place,) if self.place and isinstance(self.method, Pyocd | Openocd | DfuUtil) else ()


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


def ways(board: Board, now: Seen, port: Port | None = None, serials: Sequence[str] = (), only: str = "") -> list[Way]:
    """The methods of ``board`` in its manifest's order, or the one called ``only``.

    ``port`` is the board's serial port, where one is known, and ``serials`` the USB serial numbers of its probe, drive and
    bootloader (none: whatever fits the board is taken).
    """
    chosen = [method for method in board.flash if only in ("", method.method)]
    return [_way(method, board, now, port, serials, bool(only)) for method in chosen]


def first(found: Sequence[Way]) -> Way:
    """The first way with nothing in it. Raises FlashError with what is in each."""
    for way in found:
        if not way.obstacle:
            return way
    raise FlashError("there is no way to flash it as things are:\n" + obstacles(found))


def obstacles(found: Sequence[Way]) -> str:
    """What is in the way of each method that cannot be had, a line each."""
    return "\n".join(f"  {way.method.method}: {way.obstacle}" for way in found if way.obstacle)


def _way(method: FlashMethod, board: Board, now: Seen, port: Port | None, serials: Sequence[str], forced: bool) -> Way:
    if not methods.tool(method.method):
        return Way(method, obstacle=f"{method.method} is not installed. Install it: {methods.INSTALL[method.method]}")
    if isinstance(method, Copy):
        return _drive(method, serials)
    if isinstance(method, Bossac):
        return _bootloader(method, board, now, port, serials)
    if isinstance(method, DfuUtil):
        there = [(each.serial, each.serial) for each in now.usb if each.id in board.usb.bootloader]
        place, obstacle = _one(there, serials, "device in DFU mode")
        lacks = "" if there or forced else f"no {board.name} is in DFU mode. Hold BOOT (or BOOT0) while you press reset."
        return Way(method, place or "", obstacle or lacks)
    return _probe(method, board, now, serials, forced)


def _probe(method: FlashMethod, board: Board, now: Seen, serials: Sequence[str], forced: bool) -> Way:
    """By a debug probe: the board's own, one that is no board's own where the board has none, or whatever ``serials`` names."""
    named = [each for each in now.probes if each.id in serials]
    own = [each for each in now.probes if fits(each, board)]
    loose = [each for each in now.probes if not each.boards] if external(board) else []
    fitting = named or own or loose
    place, obstacle = _one([(each.id, each.id) for each in fitting], serials, "debug probe")
    if place and ":" in place and isinstance(method, Pyocd):
        obstacle = f"pyocd would read the serial number {place} as a kind of probe and another's number. Take another --method."
    if place == "" and len(now.probes) > 1:
        obstacle = f"its debug probe has no serial number, and {method.method} cannot tell it from others. Unplug those."
    if place is not None or obstacle:
        return Way(method, place or "", obstacle)
    if not forced:
        seen_by_tool = f" One that only {method.method} sees: --method {method.method}." if external(board) else ""
        lacks = f"no debug probe for {board.name} is connected, or you may not use it (tinyfl doctor).{seen_by_tool}"
        return Way(method, obstacle=lacks)
    if now.probes and not serials:  # the tool would take the first that it finds
        others = ", ".join(each.id or each.name for each in now.probes)
        return Way(method, obstacle=f"the debug probes here are other boards' ({others}). Say which is meant with --probe ID.")
    return Way(method, "".join(serials[:1]))


def fits(probe: Probe, board: Board) -> bool:
    """Whether the probe is one that ``board`` carries, or pyocd says so."""
    return board.name in probe.boards or probe.usb in board.usb.probe


def external(board: Board) -> bool:
    """Whether the board has no probe of its own, so that any probe may hang on it."""
    return not board.usb.probe or bool(board.usb.bootloader)


def _bootloader(method: Bossac, board: Board, now: Seen, port: Port | None, serials: Sequence[str]) -> Way:
    there = [(each.url, each.serial) for each in now.ports if each.usb in board.usb.bootloader]
    place, obstacle = _one(there, serials, "bootloader's port")
    maker = {usb[:4] for usb in board.usb.bootloader}
    if not there and port and port.usb[:4] in maker:
        return Way(method, port.url, touch=port)
    lacks = (
        f"no bootloader of {board.name} is connected. Press its reset button twice, quickly, so that a light pulses; or name "
        "the port of the sketch that runs there with --port."
    )
    return Way(method, place or "", obstacle or ("" if place else lacks))


def _drive(method: Copy, serials: Sequence[str]) -> Way:
    there = {str(drive.path): drive for drive in drives.mounted(method.drive)}
    place, obstacle = _one([(path, drive.serial) for path, drive in there.items()], serials, "drive")
    if place:
        return Way(method, place, drive=there[place])
    if device := drives.unmounted(method.drive):
        obstacle = f"the drive {method.drive} is not mounted. Mount it: udisksctl mount -b {device}"
    how = "Hold the board's boot button while you plug it in." if method.format == "uf2" else "Plug the board in."
    return Way(method, obstacle=obstacle or f"no drive called {method.drive} is mounted. {how}")


def _one(places: Sequence[tuple[str, str]], serials: Sequence[str], what: str) -> tuple[str | None, str]:
    """The one of ``places`` (with their USB serial numbers) that has one of ``serials``, or else None and what is in the way,
    if anything is there."""
    exact = [place for place, of in places if of and of in serials]
    same = exact or [place for place, of in places if not serials or not of]
    if len(same) > 1:
        names = ", ".join(place or "one without a serial number" for place in same)
        return None, f"there is more than one {what} ({names}). Say which with --probe SERIAL."
    if places and not same:
        names = ", ".join(place for place, _ in places)
        return None, f"the {what} there ({names}) is another board's. Say which is meant with --probe SERIAL."
    return (same[0], "") if same else (None, "")
