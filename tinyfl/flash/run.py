"""Flashing: many boards side by side, each written, followed to where it comes back, and asked what it runs."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tinyfl.building.boards import Board
from tinyfl.building.build import Firmware
from tinyfl.building.toolchains import Toolchain
from tinyfl.devices import inventory
from tinyfl.devices.connected import in_loop
from tinyfl.devices.ports import Port
from tinyfl.errors import ConfigError, FlashError, TinyflError
from tinyfl.errors.words import shell, visible
from tinyfl.flash import methods, writing
from tinyfl.flash.finding import Absent, FlashSelection, Found, Target, find
from tinyfl.flash.verify import demand_same, difference, verify
from tinyfl.flash.ways import Seen, Way, demand_method, external, first, obstacles, seen, ways
from tinyfl.fleets import emulation
from tinyfl.link.board import Description
from tinyfl.system.interrupts import telling

AT_ONCE = 8
"""Boards that are written side by side."""

PAUSE_SECONDS = 1.0
"""Between two looks for boards that are waited for."""

FLASHED, UP_TO_DATE, UNVERIFIED, OFFLINE, FAILED = "flashed", "up to date", "not verified", "offline", "failed"


@dataclass(frozen=True)
class FlashResult:
    """What became of a board: "flashed" (and asked: it runs ``firmware``), "up to date", "not verified" (written, but it has no
    link to be asked on), "offline" or "failed". ``id`` is its unique id or whatever it is known by, ``before`` the version that
    it ran, ``detail`` why, or what it lost, ``retry`` the command that tries it again. What is not known is empty."""

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

    def again(self, asked: FlashSelection, devices: Path | None, *where: str) -> str:
        """The command line of this job for the boards that the options ``where`` mean, the rest as it was ``asked``."""
        given: list[tuple[str, ...]] = [("--method", self.method)] if self.method else []
        given += [("--toolchain", self.toolchain)] if self.toolchain != "zig" else []
        given += [("--source", str(source)) for source in self.sources]
        given += [("--force",)] if self.force else []
        given += [("--out", str(self.out))] if self.out else []
        given += [("--baud", str(asked.baud))] if asked.baud else []
        given += [("--inventory", str(devices))] if devices else []
        return shell("tinyfl", "flash", *where, *(word for option in given for word in option))


def flash(
    asked: FlashSelection,
    job: Job = Job(),
    *,
    wait: float = 0.0,
    devices: Path | None = None,
    tell: Callable[[FlashResult], None] = lambda outcome: None,
) -> tuple[FlashResult, ...]:
    """Flashes the boards that are meant, side by side, and says what became of each; ``tell`` is called as each is done with.

    Boards that are not there are waited for, up to ``wait`` seconds. ``devices`` is the file of ids and tags (None:
    devices.toml, if there is one). What goes wrong with one board, be it that its firmware does not build, is in its outcome;
    raises ConfigError where it is not clear which are meant, and Interrupted at Ctrl-C.
    """
    _demand_methods(asked, job)
    flashing = _Flash(asked, job, devices, tell)
    with telling(flashing.how_far):
        return in_loop(flashing.run(wait))


def demand_all(outcomes: Sequence[FlashResult]) -> None:
    """Raises FlashError where a board was not flashed."""
    left = [each for each in outcomes if not each.done]
    if left:
        names = ", ".join(f"{each.who} ({each.what})" for each in left)
        raise FlashError(f"{len(left)} of {len(outcomes)} boards could not be flashed: {names}.")


def commands(asked: FlashSelection, job: Job = Job(), *, devices: Path | None = None) -> list[str]:
    """What ``flash`` would run, as lines for a shell; no port is opened and no board touched. What cannot be had now, is not
    known before a board is asked, or would be lost, is a comment. Raises what ``flash`` does, and what building does."""
    _demand_methods(asked, job)
    now = seen()
    targets, absent = in_loop(_meant(asked, job, now, devices, talk=False))
    lines = [_comment(f"{each.name}: not connected, as far as can be seen without asking boards") for each in absent]
    for target in targets:
        lines += _plan(target, job, now)
    for board in asked.boards if not lines else ():
        lines += _plan(Target(board), job, now, there=False)
    return lines or ["# no board is connected"]


def _plan(target: Target, job: Job, now: Seen, *, there: bool = True) -> list[str]:
    who = f"{target.kind} ({target.name or 'not connected'})"
    if target.trouble:
        return [_comment(f"{who}: {target.trouble}")]
    try:
        demand_method(target.board, job.method)
    except ConfigError as error:
        return [_comment(f"{who}: {error}")]
    found = ways(target.board, now, target.port, target.spots, job.method)
    usable = [way for way in found if there and not way.obstacle][:1]
    firmware = _build(target.board, job)
    lines = [_comment(f"{who}: {firmware.version}")]
    for way in usable or found:
        shown = [shell(*argv) for argv in writing.commands(target.board, writing.image(firmware, way), way)]
        lost = methods.erases(way.method)
        lines += [_comment(f"{way.method.method} {lost}")] if lost and usable else []
        why = way.obstacle or "what is there is another board's"
        lines += shown if usable else [_comment(f"by {way.method.method}: {why}"), *(_comment(f"  {line}") for line in shown)]
    return lines


def _comment(text: str) -> str:
    """For a shell: nothing in it runs, whatever it holds."""
    return "# " + visible(text).replace("\n", "\n# ")


async def _meant(asked: FlashSelection, job: Job, now: Seen, devices: Path | None, *, talk: bool) -> Found:
    """The boards that are meant and there, and those that are not. Raises ConfigError where it is not clear which are meant."""
    saved = inventory.read_inventory(devices)
    targets, absent = await find(asked, now, saved, method=job.method, talk=talk, path=devices)
    chosen = asked.everything or asked.ids or asked.tags or asked.ports or asked.probes
    if len(targets) > 1 and not chosen and any(target.where for target in targets):
        commands = [job.again(asked, devices, "--board", _word(asked, each), *each.where) for each in targets]
        lines = "\n".join(f"  {command}" for command in commands)
        raise ConfigError(f"{len(targets)} connected boards may be meant. Give --all for all of them, or take one of\n{lines}")
    return targets, absent


def _word(asked: FlashSelection, target: Target) -> str:
    """What a command line calls the target's kind."""
    return "NAME" if target.unclear else asked.word(target.board)


def _demand_methods(asked: FlashSelection, job: Job) -> None:
    if job.method and job.method not in methods.NAMES:
        raise ConfigError(f"no flash method is called {job.method!r}. There are: {', '.join(methods.NAMES)}.")
    for board in asked.boards:
        demand_method(board, job.method)


class _Flash:
    """One run of flashing. ``cut`` are the boards that an interrupt now would find being written."""

    def __init__(self, asked: FlashSelection, job: Job, devices: Path | None, tell: Callable[[FlashResult], None]) -> None:
        self._asked, self._job, self._devices, self._tell = asked, job, devices, tell
        self._builds: dict[str, asyncio.Task[Firmware]] = {}
        self._taken: dict[str, str] = {}
        self._room, self._images = asyncio.Semaphore(AT_ONCE), asyncio.Lock()
        self.cut: list[str] = []

    def how_far(self) -> str:
        """What to do after an interrupt now."""
        cut = ", ".join(self.cut)
        return f"stopped. {f'Being written, and to be flashed again: {cut}.' if cut else 'No board was being written.'}"

    async def run(self, wait: float) -> tuple[FlashResult, ...]:
        deadline = time.monotonic() + wait
        finished: dict[str, FlashResult] = {}
        known: set[str] = set()
        now = None
        while True:
            now = await asyncio.to_thread(seen, now)
            targets, absent = await _meant(self._asked, self._job, now, self._devices, talk=True)
            new = {key: target for key, target in _keyed(targets).items() if key not in finished}
            self._taken.clear()
            finished |= dict(zip(new, await asyncio.gather(*(self._one(each, now) for each in new.values())), strict=True))
            known |= {*new, *(each.port.url for each in new.values() if each.port)} | {each.id for each in finished.values()}
            offline = [self._offline(each) for each in absent if each.name not in known]
            if not finished and not offline:
                offline = [self._none_of(board, now) for board in self._asked.boards or [None]]
            if not offline or time.monotonic() + PAUSE_SECONDS >= deadline:
                for outcome in offline:
                    self._tell(outcome)
                return (*finished.values(), *offline)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _one(self, target: Target, now: Seen) -> FlashResult:
        """One board, from what it is to what it became. An error of its own stops no other."""
        began = time.monotonic()
        before = target.described.firmware if target.described else ""
        means = target.means or ("--board", _word(self._asked, target), *target.where)
        retry = self._job.again(self._asked, self._devices, *means)
        outcome = FlashResult(target.kind, target.name, FAILED, before=before, retry=retry)
        try:
            async with self._room:
                outcome = await self._flashed(target, now, outcome)
        except (TinyflError, OSError) as error:
            outcome = replace(outcome, detail=str(error))
        outcome = replace(outcome, seconds=round(time.monotonic() - began, 3), retry="" if outcome.done else outcome.retry)
        self._tell(outcome)
        return outcome

    async def _flashed(self, target: Target, now: Seen, outcome: FlashResult) -> FlashResult:
        if target.trouble:
            raise FlashError(target.trouble)
        if target.described and target.described.board != target.board.name:
            raise FlashError(
                f"the board there says it is {target.described.board}, not {target.board.name}. Nothing was written. Name "
                f"the right board, or say --board {target.described.board}."
            )
        demand_method(target.board, self._job.method)
        firmware = await self._firmware(target.board)
        outcome = replace(outcome, firmware=firmware.version)
        if target.described and not difference(target.described, firmware) and not self._job.force:
            return replace(outcome, what=UP_TO_DATE)
        try:
            way = first(ways(target.board, now, target.port, target.spots, self._job.method))
            outcome = replace(outcome, method=way.method.method)
            self._take(way, outcome)
            await demand_same(target)
            return await self._written(target, way, firmware, outcome)
        except (TinyflError, OSError) as error:
            return replace(outcome, detail=str(error))

    def _firmware(self, board: Board) -> asyncio.Task[Firmware]:
        """Built once for all boards of a kind."""
        if board.name not in self._builds:
            self._builds[board.name] = asyncio.create_task(asyncio.to_thread(_build, board, self._job))
        return self._builds[board.name]

    def _take(self, way: Way, outcome: FlashResult) -> None:
        """Raises FlashError where another board of this look is written at the same place."""
        place = way.place or f"whatever {way.method.method} finds"
        if place in self._taken:
            raise FlashError(
                f"{place} is used for {self._taken[place]} already. Nothing was written. Say which board hangs on it, one at a "
                "time: --probe SERIAL, with --port for a board at a port of its own."
            )
        self._taken[place] = outcome.who

    async def _written(self, target: Target, way: Way, firmware: Firmware, outcome: FlashResult) -> FlashResult:
        async with self._images:
            image = await asyncio.to_thread(writing.image, firmware, way)
        self.cut.append(outcome.who)  # should an interrupt come
        try:
            await writing.write(target, way, image)
        except (TinyflError, OSError):
            self.cut.remove(outcome.who)
            raise
        self.cut.remove(outcome.who)
        # A sketch's port is not the firmware's.
        port = None if way.touch else target.port or _expected(target, self._asked.baud)
        if port is None:
            detail = "it was written, and no serial port is known to ask it on: give --port, once its adapter is connected."
            return replace(outcome, what=UNVERIFIED, detail=detail)
        before = target.described
        described = await verify(port, firmware, before.id.hex() if before else "")
        return replace(outcome, what=FLASHED, id=described.id.hex(), detail=_lost(before, described) if before else "")

    def _offline(self, absent: Absent) -> FlashResult:
        """A board that is named and not there."""
        kinds = [word for board in self._asked.boards for word in ("--board", self._asked.word(board))]
        retry = self._job.again(self._asked, self._devices, *kinds, *absent.where, "--wait", "60")
        return FlashResult("", absent.name, OFFLINE, detail="it is not connected. `tinyfl devices` shows what is.", retry=retry)

    def _none_of(self, board: Board | None, now: Seen) -> FlashResult:
        """No board of this kind is there, or none at all."""
        retry = self._job.again(self._asked, self._devices, *self._asked.options(board), "--wait", "60")
        if board is None:
            return FlashResult("", "", OFFLINE, detail="no board is connected. See: tinyfl doctor", retry=retry)
        why = obstacles(ways(board, now, only=self._job.method))
        detail = f"none is connected:\n{why}" if why else "none is connected. `tinyfl devices` shows what is."
        return FlashResult(board.name, "", OFFLINE, detail=detail, retry=retry)


def _keyed(targets: Sequence[Target]) -> dict[str, Target]:
    """By what stays of each while it is flashed; adapters that have one serial number by their ports too."""
    times = Counter(target.key for target in targets)
    return {
        target.key
        if times[target.key] == 1
        else f"{target.key} {target.port.url if target.port else target.board.name}": target
        for target in targets
    }


def _lost(before: Description, after: Description) -> str:
    """What of a board's is gone since it was flashed, and what puts it back."""
    gone = [
        f"the board's {what} is gone: tinyfl push {source} --id {after.id.hex()} puts it back."
        for what, source, there, here in (
            ("model", "RUN", before.model, after.model),
            ("int8 model", "MODEL.tflite", before.inference, after.inference),
        )
        if there and not here
    ]
    return "\n".join(gone)


def _build(board: Board, job: Job) -> Firmware:
    return emulation.firmware(board, job.toolchain, job.out / board.name if job.out else None, job.sources)


def _expected(target: Target, baud: int) -> Port | None:
    """Where a board without a serial port yet will show one: in its own USB socket. None if it has no such port."""
    board = target.board
    ids = board.links[0].usb if board.links else ()
    if not target.spots or external(board) or not set(board.usb.probe) & set(ids):
        return None
    spot = target.spots[0]
    return Port("", ids[0], spot.serial, location=spot.socket, bauds=(baud or board.links[0].baud,))
