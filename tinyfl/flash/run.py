"""Flashes many boards in parallel: writes each, follows it to its port after the restart, and verifies its firmware."""

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
from tinyfl.devices.ports import Port
from tinyfl.errors import ConfigError, FlashError, TinyflError
from tinyfl.errors.words import shell, visible
from tinyfl.flash import methods, writing
from tinyfl.flash.finding import find
from tinyfl.flash.targets import Absent, FlashSelection, Found, Target
from tinyfl.flash.verify import demand_same, difference, verify
from tinyfl.flash.ways import Seen, Way, demand_method, external, first, obstacles, seen, ways
from tinyfl.fleets import emulation
from tinyfl.link import BUILT_IN
from tinyfl.link.status import Description
from tinyfl.system.interrupts import interrupt_message
from tinyfl.system.loop import every, in_loop

AT_ONCE = 8
"""Maximum number of boards written in parallel."""

PAUSE_SECONDS = 1.0
"""Interval between searches for missing boards."""

FLASHED, UP_TO_DATE, UNVERIFIED, OFFLINE, FAILED = "flashed", "up to date", "not verified", "offline", "failed"


@dataclass(frozen=True)
class FlashResult:
    """The result for a board: "flashed" (and verified to run ``firmware``), "up to date", "not verified" (written, but without
    a link to query), "offline" or "failed". ``id`` is its unique id or another name, ``before`` the old version, ``detail`` the
    reason or the loss, ``retry`` the command for another attempt. Empty: unknown."""

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
        """Whether no further attempt is needed."""
        return self.what in (FLASHED, UP_TO_DATE, UNVERIFIED)

    @property
    def who(self) -> str:
        """The board's kind and name."""
        return " ".join(filter(None, (self.board, self.id))) or "any board"

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Job:
    """How to flash: the name of the method (empty: the first available one), the toolchain and the user's sources for the
    firmware; ``force`` includes boards that are up to date; ``out`` is the build folder (None: the user's cache)."""

    method: str = ""
    toolchain: Toolchain = "zig"
    sources: tuple[Path, ...] = ()
    force: bool = False
    out: Path | None = None

    def command_line(self, request: FlashSelection, devices: Path | None, *where: str) -> str:
        """The command line of this job for the boards of the options ``where``, otherwise as in the ``request``."""
        options: list[tuple[str, ...]] = [("--method", self.method)] if self.method else []
        options += [("--toolchain", self.toolchain)] if self.toolchain != "zig" else []
        options += [("--source", str(source)) for source in self.sources]
        options += [("--force",)] if self.force else []
        options += [("--out", str(self.out))] if self.out else []
        options += [("--baud", str(request.baud))] if request.baud else []
        options += [("--inventory", str(devices))] if devices else []
        return shell("tinyfl", "flash", *where, *(word for option in options for word in option))


def flash(
    request: FlashSelection,
    job: Job = Job(),
    *,
    wait: float = 0.0,
    devices: Path | None = None,
    tell: Callable[[FlashResult], None] = lambda outcome: None,
) -> tuple[FlashResult, ...]:
    """Flashes the requested boards in parallel, calls ``tell`` with each result, and returns all of them.

    Waits up to ``wait`` seconds for missing boards. ``devices`` is the file of ids and tags (None: devices.toml, if it exists).
    A board's failure, even to build its firmware, is in its result; raises ConfigError for an ambiguous request, and
    Interrupted at Ctrl-C.
    """
    _demand_methods(request, job)
    flashing = _Flash(request, job, devices, tell)
    with interrupt_message(flashing.progress):
        return in_loop(flashing.run(wait))


def demand_all(outcomes: Sequence[FlashResult]) -> None:
    """Raises FlashError if any board was not flashed."""
    left = [each for each in outcomes if not each.done]
    if left and not any(each.board or each.id for each in outcomes):
        raise FlashError("no board is connected, so none was flashed. `tinyfl devices` lists ports and probes.")
    if left:
        names = ", ".join(f"{each.who} ({each.what})" for each in left)
        raise FlashError(f"{len(left)} of {len(outcomes)} boards could not be flashed: {names}.")


def commands(request: FlashSelection, job: Job = Job(), *, devices: Path | None = None) -> list[str]:
    """The commands of ``flash`` as lines for a shell, without opening a port or touching a board. Comments tell what is
    unavailable, unknown before a query, or about to be lost. Raises the errors of ``flash`` and of ``build``."""
    _demand_methods(request, job)
    present = seen()
    targets, absent = in_loop(_selected(request, job, present, devices, talk=False))
    lines = [_comment(f"{each.name}: apparently not connected (boards were not queried)") for each in absent]
    for target in targets:
        lines += _plan(target, job, present)
    for board in request.boards if not lines else ():
        lines += _plan(Target(board), job, present, connected=False)
    return lines or ["# no board is connected"]


def _plan(target: Target, job: Job, present: Seen, *, connected: bool = True) -> list[str]:
    who = f"{target.kind} ({target.name or 'not connected'})"
    if target.trouble:
        return [_comment(f"{who}: {target.trouble}")]
    try:
        demand_method(target.board, job.method)
    except ConfigError as error:
        return [_comment(f"{who}: {error}")]
    found = ways(target.board, present, target.port, target.spots, job.method)
    usable = [way for way in found if connected and not way.obstacle][:1]
    firmware = _build(target.board, job)
    lines = [_comment(f"{who}: {firmware.version}")]
    for way in usable or found:
        lines_of_way = [shell(*argv) for argv in writing.commands(target.board, writing.image(firmware, way), way)]
        loss = methods.erases(way.method)
        lines += [_comment(f"{way.method.method} {loss}")] if loss and usable else []
        why = way.obstacle or "the device there belongs to another board"
        lines += lines_of_way if usable else [_comment(f"by {way.method.method}: {why}")]
        lines += [] if usable else [_comment(f"  {line}") for line in lines_of_way]
    return lines


def _comment(text: str) -> str:
    """Makes any text a shell comment, so that nothing in it runs."""
    return "# " + visible(text).replace("\n", "\n# ")


async def _selected(request: FlashSelection, job: Job, present: Seen, devices: Path | None, *, talk: bool) -> Found:
    """The requested boards: those connected, and those absent. Raises ConfigError for an ambiguous request."""
    saved = inventory.read_inventory(devices)
    targets, absent = await find(request, present, saved, method=job.method, talk=talk, path=devices)
    specific = request.everything or request.ids or request.tags or request.ports or request.probes
    if len(targets) > 1 and not specific and any(target.where for target in targets):
        commands = [job.command_line(request, devices, "--board", _word(request, each), *each.where) for each in targets]
        lines = "\n".join(f"  {command}" for command in commands)
        raise ConfigError(f"{len(targets)} connected boards match. Give --all for all of them, or use one of\n{lines}")
    return targets, absent


def _word(request: FlashSelection, target: Target) -> str:
    """The word for the target's kind on the command line."""
    return "NAME" if target.unclear else request.word(target.board)


def _demand_methods(request: FlashSelection, job: Job) -> None:
    if job.method and job.method not in methods.NAMES:
        raise ConfigError(f"no flash method is called {job.method!r}. There are: {', '.join(methods.NAMES)}.")
    for board in request.boards:
        demand_method(board, job.method)


class _Flash:
    """A flashing session. ``writing`` are the boards being written, which an interrupt would damage."""

    def __init__(self, request: FlashSelection, job: Job, devices: Path | None, tell: Callable[[FlashResult], None]) -> None:
        self._request, self._job, self._devices, self._tell = request, job, devices, tell
        self._builds: dict[str, asyncio.Task[Firmware]] = {}
        self._places: dict[str, str] = {}
        self._room, self._images = asyncio.Semaphore(AT_ONCE), asyncio.Lock()
        self.writing: list[str] = []

    def progress(self) -> str:
        """What to do after an interrupt."""
        names = ", ".join(self.writing)
        return f"stopped. {f'Flash these again, they were being written: {names}.' if names else 'No board was being written.'}"

    async def run(self, wait: float) -> tuple[FlashResult, ...]:
        deadline = time.monotonic() + wait
        finished: dict[str, FlashResult] = {}
        names: set[str] = set()
        present = None
        while True:
            present = await asyncio.to_thread(seen, present)
            targets, absent = await _selected(self._request, self._job, present, self._devices, talk=True)
            new = {key: target for key, target in _keyed(targets).items() if key not in finished}
            self._places.clear()
            finished |= dict(zip(new, await every(self._one(each, present) for each in new.values()), strict=True))
            names |= {*new, *(each.port.url for each in new.values() if each.port)} | {each.id for each in finished.values()}
            offline = [self._offline(each) for each in absent if each.name not in names]
            if not finished and not offline:
                offline = [self._none_of(board, present) for board in self._request.boards or [None]]
            if not offline or time.monotonic() + PAUSE_SECONDS >= deadline:
                for outcome in offline:
                    self._tell(outcome)
                return (*finished.values(), *offline)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _one(self, target: Target, present: Seen) -> FlashResult:
        """Flashes one board. Its errors do not stop the others."""
        began = time.monotonic()
        before = target.described.firmware if target.described else ""
        options = target.options or ("--board", _word(self._request, target), *target.where)
        retry = self._job.command_line(self._request, self._devices, *options)
        outcome = FlashResult(target.kind, target.name, FAILED, before=before, retry=retry)
        try:
            async with self._room:
                outcome = await self._flashed(target, present, outcome)
        except (TinyflError, OSError) as error:
            outcome = replace(outcome, detail=str(error))
        outcome = replace(outcome, seconds=round(time.monotonic() - began, 3), retry="" if outcome.done else outcome.retry)
        self._tell(outcome)
        return outcome

    async def _flashed(self, target: Target, present: Seen, outcome: FlashResult) -> FlashResult:
        if target.trouble:
            raise FlashError(target.trouble)
        if target.described and target.described.board != target.board.name:
            raise FlashError(
                f"by its description the board is {target.described.board}, not {target.board.name}. Nothing was "
                f"written. Give another port, or --board {target.described.board}."
            )
        demand_method(target.board, self._job.method)
        sources = self._job.sources or (inventory.sources(target.described.id.hex(), self._devices) if target.described else ())
        self._demand_no_loss(target, sources)
        firmware = await self._firmware(target.board, sources)
        outcome = replace(outcome, firmware=firmware.version)
        if target.described and not difference(target.described, firmware) and not self._job.force:
            return replace(outcome, what=UP_TO_DATE)
        try:
            way = first(ways(target.board, present, target.port, target.spots, self._job.method))
            outcome = replace(outcome, method=way.method.method)
            self._reserve(way, outcome)
            await demand_same(target)
            return await self._written(target, way, firmware, outcome)
        except (TinyflError, OSError) as error:
            return replace(outcome, detail=str(error))

    def _demand_no_loss(self, target: Target, sources: Sequence[Path]) -> None:
        """Raises FlashError for a board with a source of its own, over which plain firmware would be written unasked."""
        own = [name for name in (target.described.sources if target.described else ()) if name not in BUILT_IN]
        if own and not sources and not self._job.force:
            raise FlashError(
                f"its firmware has the source {', '.join(own)}, which plain firmware would overwrite. Nothing was written. "
                "Give its C file: --source FILE.c, or source = FILE.c in devices.toml; or --force to lose it."
            )

    def _firmware(self, board: Board, sources: tuple[Path, ...]) -> asyncio.Task[Firmware]:
        """Builds the firmware once for all boards of a kind that have the same sources."""
        key = "\0".join([board.name, *map(str, sources)])
        if key not in self._builds:
            job = replace(self._job, sources=sources)
            self._builds[key] = asyncio.create_task(asyncio.to_thread(_build, board, job))
        return self._builds[key]

    def _reserve(self, way: Way, outcome: FlashResult) -> None:
        """Raises FlashError if another board is already assigned to the same place."""
        place = way.place or f"the first device of {way.method.method}"
        if place in self._places:
            raise FlashError(
                f"{place} is already used for {self._places[place]}. Nothing was written. Flash one board at a time: --probe "
                "SERIAL, with --port for a board with its own port."
            )
        self._places[place] = outcome.who

    async def _written(self, target: Target, way: Way, firmware: Firmware, outcome: FlashResult) -> FlashResult:
        async with self._images:
            image = await asyncio.to_thread(writing.image, firmware, way)
        self.writing.append(outcome.who)
        try:
            await writing.write(target, way, image)
        except (TinyflError, OSError):
            self.writing.remove(outcome.who)
            raise
        self.writing.remove(outcome.who)
        # The port of the old Arduino sketch is not the firmware's.
        port = None if way.touch else target.port or _expected(target, self._request.baud)
        if port is None:
            detail = "it was written, but no serial port is known for verifying it: connect its adapter and give --port."
            return replace(outcome, what=UNVERIFIED, detail=detail)
        before = target.described
        described = await verify(port, firmware, before.id.hex() if before else "")
        return replace(outcome, what=FLASHED, id=described.id.hex(), detail=_lost(before, described) if before else "")

    def _offline(self, absent: Absent) -> FlashResult:
        """The result for a requested board that is not connected."""
        kinds = [word for board in self._request.boards for word in ("--board", self._request.word(board))]
        retry = self._job.command_line(self._request, self._devices, *kinds, *absent.where, "--wait", "60")
        return FlashResult(
            "", absent.name, OFFLINE, detail="it is not connected. `tinyfl devices` lists the connected boards.", retry=retry
        )

    def _none_of(self, board: Board | None, present: Seen) -> FlashResult:
        """The result if no board of this kind, or none at all, is connected."""
        retry = self._job.command_line(self._request, self._devices, *self._request.options(board), "--wait", "60")
        if board is None:
            return FlashResult("", "", OFFLINE, detail="no board is connected. See: tinyfl doctor", retry=retry)
        why = obstacles(ways(board, present, only=self._job.method))
        detail = f"none is connected:\n{why}" if why else "none is connected. `tinyfl devices` lists the connected boards."
        return FlashResult(board.name, "", OFFLINE, detail=detail, retry=retry)


def _keyed(targets: Sequence[Target]) -> dict[str, Target]:
    """Targets by a key that stays the same while flashing; adapters with a shared serial number also by their ports."""
    counts = Counter(target.key for target in targets)
    return {
        target.key
        if counts[target.key] == 1
        else f"{target.key} {target.port.url if target.port else target.board.name}": target
        for target in targets
    }


def _lost(before: Description, after: Description) -> str:
    """The models that a board lost by flashing, and the commands to restore them."""
    lost = [
        f"the board's {what} is lost. To restore it: tinyfl push {source} --id {after.id.hex()}"
        for what, source, old, new in (
            ("model", "RUN", before.model, after.model),
            ("int8 model", "MODEL.tflite", before.inference, after.inference),
        )
        if old and not new
    ]
    return "\n".join(lost)


def _build(board: Board, job: Job) -> Firmware:
    return emulation.firmware(board, job.toolchain, job.out / board.name if job.out else None, job.sources)


def _expected(target: Target, baud: int) -> Port | None:
    """The port expected to appear in the board's USB socket; None if the board has no serial port of its own."""
    board = target.board
    ids = board.links[0].usb if board.links else ()
    if not target.spots or external(board) or not set(board.usb.probe) & set(ids):
        return None
    spot = target.spots[0]
    return Port("", ids[0], spot.serial, location=spot.socket, bauds=(baud or board.links[0].baud,))
