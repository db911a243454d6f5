"""Flashing: many boards side by side, each written, followed to where it comes back, and asked what it runs."""

import asyncio
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tinyfl import emulation, inventory
from tinyfl.boards import Board
from tinyfl.build import Firmware
from tinyfl.devices import in_loop
from tinyfl.errors import FlashError, Interrupted, TinyflError
from tinyfl.flash import methods, writing
from tinyfl.flash.finding import Asked, Target, find
from tinyfl.flash.verify import difference, verify
from tinyfl.flash.ways import Seen, Way, demand_method, first, obstacles, seen, ways
from tinyfl.inventory import DEVICES
from tinyfl.ports import Port
from tinyfl.toolchains import Toolchain

AT_ONCE = 8
"""Boards that are written side by side."""

PAUSE_SECONDS = 1.0
"""Between two looks for boards that are waited for."""

FLASHED, UP_TO_DATE, UNVERIFIED, OFFLINE, FAILED = "flashed", "up to date", "not verified", "offline", "failed"


@dataclass(frozen=True)
class Outcome:
    """What became of a board: "flashed" (and asked: it runs ``firmware``), "up to date", "not verified" (written, but it has no
    link to be asked on), "offline" or "failed". ``id`` is its unique id or whatever it is known by, ``before`` the version that
    it ran, ``detail`` why, ``retry`` the command that tries it again. What is not known is empty."""

    board: str
    id: str
    what: str
    method: str = ""
    firmware: str = ""
    before: str = ""
    detail: str = ""
    retry: str = ""
    seconds: float = 0.0

    @property
    def done(self) -> bool:
        """Whether the board needs no further try."""
        return self.what in (FLASHED, UP_TO_DATE, UNVERIFIED)

    @property
    def who(self) -> str:
        """The board's kind and what it is known by."""
        return " ".join(filter(None, (self.board, self.id))) or "any board"

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Job:
    """How to flash: by the method of this name (empty: the first that can be had), with the firmware of this toolchain and the
    user's sources, boards that are up to date too if ``force``. ``out`` is where firmware is built (None: the user's cache)."""

    method: str = ""
    toolchain: Toolchain = "zig"
    sources: tuple[Path, ...] = ()
    force: bool = False
    out: Path | None = None

    @property
    def options(self) -> tuple[str, ...]:
        """The same on a command line."""
        given = [("--method", self.method)] if self.method else []
        given += [("--toolchain", self.toolchain)] if self.toolchain != "zig" else []
        given += [("--source", str(source)) for source in self.sources]
        return tuple(word for pair in given for word in pair)


def flash(
    asked: Asked,
    job: Job = Job(),
    *,
    wait: float = 0.0,
    devices: Path = DEVICES,
    tell: Callable[[Outcome], None] = lambda outcome: None,
) -> tuple[Outcome, ...]:
    """Flashes the boards that are meant, side by side, and says what became of each; ``tell`` is called as each is done with.

    Boards that are not there are waited for, up to ``wait`` seconds. What goes wrong with one board is in its outcome; raises
    ConfigError where it is not clear which are meant, Interrupted at Ctrl-C, and what building the firmware does.
    """
    _demand_methods(asked, job)
    try:
        return in_loop(_Flash(asked, job, tell).run(wait, devices))
    except KeyboardInterrupt as error:
        raise Interrupted("stopped. What was being written is not whole: flash those boards again.") from error


def demand_all(outcomes: Sequence[Outcome]) -> None:
    """Raises FlashError where a board was not flashed."""
    left = [each for each in outcomes if not each.done]
    if left:
        names = ", ".join(f"{each.who} ({each.what})" for each in left)
        raise FlashError(f"{len(left)} of {len(outcomes)} boards could not be flashed: {names}.")


def plan(asked: Asked, job: Job = Job(), *, devices: Path = DEVICES) -> list[str]:
    """What ``flash`` would run, as lines for a shell; no port is opened and no board touched. A way that cannot be had now is
    a comment. Raises what ``flash`` does."""
    _demand_methods(asked, job)
    now = seen()
    targets, absent = in_loop(find(asked, now, inventory.read(devices), talk=False))
    lines = [f"# {name}: not connected" for name in absent]
    for target in targets or [Target(board) for board in asked.boards]:
        found = ways(target.board, now, target.port, target.serials, job.method)
        usable = [way for way in found if not way.obstacle][:1]
        firmware = _build(target.board, job)
        lines.append(f"# {target.board.name} ({target.name or 'not connected'}): {firmware.version}")
        for way in usable or found:
            shown = [methods.shown(argv) for argv in writing.commands(target.board, writing.image(firmware, way), way)]
            lines += shown if usable else [f"# by {way.method.method}: {way.obstacle}", *(f"#   {line}" for line in shown)]
    return lines


def _demand_methods(asked: Asked, job: Job) -> None:
    for board in asked.boards:
        demand_method(board, job.method)


class _Flash:
    """One run of flashing."""

    def __init__(self, asked: Asked, job: Job, tell: Callable[[Outcome], None]) -> None:
        self._asked, self._job, self._tell = asked, job, tell
        self._firmware: dict[str, Firmware] = {}
        self._room, self._images = asyncio.Semaphore(AT_ONCE), asyncio.Lock()

    async def run(self, wait: float, devices: Path) -> tuple[Outcome, ...]:
        deadline = time.monotonic() + wait
        finished: dict[str, Outcome] = {}
        while True:
            now = await asyncio.to_thread(seen)
            targets, absent = await find(self._asked, now, inventory.read(devices))
            if not targets and self._job.method:  # its tool may see a probe that we do not
                every = [(Target(board), ways(board, now, only=self._job.method)) for board in self._asked.boards]
                targets = [target for target, found in every if not found[0].obstacle]
            new = {target.name: target for target in targets if target.name not in finished}
            for board in {target.board.name: target.board for target in new.values()}.values():
                if board.name not in self._firmware:
                    self._firmware[board.name] = await asyncio.to_thread(_build, board, self._job)
            finished |= dict(zip(new, await asyncio.gather(*(self._one(each, now) for each in new.values())), strict=True))
            offline = [self._offline(id, now) for id in absent if id not in finished]
            if not finished and not offline:
                offline = [self._offline(board, now) for board in self._asked.boards or [None]]
            if not offline or time.monotonic() + PAUSE_SECONDS >= deadline:
                for outcome in offline:
                    self._tell(outcome)
                return (*finished.values(), *offline)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _one(self, target: Target, now: Seen) -> Outcome:
        """One board, from what it is to what it became. An error of its own stops no other."""
        began = time.monotonic()
        firmware = self._firmware[target.board.name]
        outcome = Outcome(
            target.board.name,
            target.name,
            FAILED,
            firmware=firmware.version,
            before=target.described.firmware if target.described else "",
            retry=shlex.join(("tinyfl", "flash", "--board", self._asked.word(target.board), *target.where, *self._job.options)),
        )
        try:
            async with self._room:
                outcome = await self._flashed(target, now, firmware, outcome)
        except (TinyflError, OSError) as error:
            outcome = replace(outcome, detail=str(error))
        outcome = replace(outcome, seconds=round(time.monotonic() - began, 3), retry="" if outcome.done else outcome.retry)
        self._tell(outcome)
        return outcome

    async def _flashed(self, target: Target, now: Seen, firmware: Firmware, outcome: Outcome) -> Outcome:
        if target.trouble:
            raise FlashError(target.trouble)
        if target.described:
            if target.described.board != target.board.name:
                raise FlashError(
                    f"the board there says it is {target.described.board}, not {target.board.name}. Nothing was written. Name "
                    f"the right board, or say --board {target.described.board}."
                )
            if not difference(target.described, firmware) and not self._job.force:
                return replace(outcome, what=UP_TO_DATE)
        way = first(ways(target.board, now, target.port, target.serials, self._job.method))
        outcome = replace(outcome, method=way.method.method)
        try:
            return await self._written(target, way, firmware, outcome)
        except (TinyflError, OSError) as error:
            return replace(outcome, detail=str(error))

    async def _written(self, target: Target, way: Way, firmware: Firmware, outcome: Outcome) -> Outcome:
        async with self._images:
            image = await asyncio.to_thread(writing.image, firmware, way)
        await writing.write(target, way, image)
        port = None if way.touch else target.port or _expected(target)  # a sketch's port is not the firmware's
        if port is None:
            detail = "it was written, and no serial port is known to ask it on: give --port, once its adapter is connected."
            return replace(outcome, what=UNVERIFIED, detail=detail)
        described = await verify(port, firmware, target.described.id.hex() if target.described else "")
        return replace(outcome, what=FLASHED, id=described.id.hex())

    def _offline(self, what: str | Board | None, now: Seen) -> Outcome:
        """A board that is not there: of this id, of this kind, or any at all."""
        options = (
            ["--all"] if what is None else ["--id", what] if isinstance(what, str) else ["--board", self._asked.word(what)]
        )
        retry = shlex.join(("tinyfl", "flash", *options, *self._job.options, "--wait", "60"))
        if isinstance(what, Board):
            detail = "none is connected:\n" + obstacles(ways(what, now, only=self._job.method))
            return Outcome(what.name, "", OFFLINE, detail=detail, retry=retry)
        detail = "it is not connected. `tinyfl devices` shows what is." if what else "no board is connected. See: tinyfl doctor"
        return Outcome("", what or "", OFFLINE, detail=detail, retry=retry)


def _build(board: Board, job: Job) -> Firmware:
    return emulation.firmware(board, job.toolchain, job.out / board.name if job.out else None, job.sources)


def _expected(target: Target) -> Port | None:
    """Where a board without a serial port yet will show one: under its own USB serial number. None if it has no such port."""
    ids = target.board.links[0].usb if target.board.links else ()
    on_board = set(target.board.usb.probe) & set(ids) and not target.board.usb.bootloader
    return Port("its serial port", ids[0], target.serials[0]) if on_board and target.serials else None
