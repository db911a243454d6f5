"""Pushes a model to many boards at once: a run's weights to their model slots, or an int8 program to its slot.

Boards that have the model already are skipped, and a failing board does not stop the others. An interruption at any moment
leaves a board with its old model or the new one: weights reach flash only by a commit, and a program is valid only once it is
complete (firmware/SPEC.md, slots). The program's slot holds one program, so an incomplete one leaves the board without any.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyfl.devices import inventory
from tinyfl.devices.connected import Device, connect, explained, look
from tinyfl.devices.inventory import Chosen, Saved, Selection
from tinyfl.devices.ports import Port, follow, named, port, serial_ports
from tinyfl.errors import ConfigError, Corrupt, DoesNotFit, LinkError, Refused
from tinyfl.int8.on_board import SLOWEST, demand_room, put_program
from tinyfl.link import WEIGHTS_HEADER
from tinyfl.link.board import WORK_SECONDS, LinkedBoard, floats
from tinyfl.link.defects import confined
from tinyfl.link.status import BoardState, Description
from tinyfl.system.loop import every, in_loop

if TYPE_CHECKING:
    from tinyfl.core import F32
    from tinyfl.int8.native import Program

ATTEMPTS = 3
"""Attempts per board that answers: a board that restarts meanwhile gets the model again."""

BACK_SECONDS = 10.0
"""Timeout for a board's return after a restart."""

PAUSE_SECONDS = 1.0
"""Interval between searches for missing boards."""

PUSHED, UP_TO_DATE, OFFLINE, FAILED, DOES_NOT_FIT = "pushed", "up to date", "offline", "failed", "does not fit"


@dataclass(frozen=True)
class Weights:
    """A network's plan, its weights (parameters,) float32, and the bytes of RAM that learning needs on a board."""

    plan: bytes
    theta: "F32"
    arena: int

    @property
    def sha256(self) -> bytes:
        """The digest by which a board reports its model."""
        return sha256(floats(self.theta)).digest()

    def is_on(self, described: Description) -> bool:
        """Whether the board's committed model is this one."""
        return described.model == self.sha256 and described.plan == sha256(self.plan).digest()

    def demand_fit(self, described: Description) -> None:
        """Raises DoesNotFit if the board is too small for the model."""
        _demand(described, WEIGHTS_HEADER + len(self.plan) + 4 * self.theta.size, described.slot, "flash in a model's slot")
        _demand(described, self.arena, described.arena, "RAM to learn")

    async def write(self, board: LinkedBoard) -> None:
        """Writes to the older of the two slots."""
        if (await board.status()).state == BoardState.learning:
            await board.abort()
        within = WORK_SECONDS + 4 * self.theta.size / SLOWEST
        await board.put_plan(self.plan, within)
        await board.put_weights(self.theta, within)
        await board.commit(self.sha256)


@dataclass(frozen=True)
class Int8:
    """An int8 program."""

    program: "Program"

    @property
    def sha256(self) -> bytes:
        """The digest by which a board reports its program."""
        return sha256(self.program.content).digest()

    def is_on(self, described: Description) -> bool:
        """Whether the board has this program."""
        return described.inference == self.sha256

    def demand_fit(self, described: Description) -> None:
        """Raises DoesNotFit if the board is too small for the model."""
        demand_room(self.program, described)

    async def write(self, board: LinkedBoard) -> None:
        """Writes to the program's slot."""
        await put_program(board, self.program)


Model = Weights | Int8


@dataclass(frozen=True)
class PushResult:
    """The result for one board: "pushed", "up to date", "offline" (did not answer), "failed", or "does not fit"; ``detail``
    explains it. ``board`` is its kind. Empty: unknown."""

    id: str
    board: str
    port: str
    what: str
    detail: str = ""
    seconds: float = 0.0

    @property
    def done(self) -> bool:
        """Whether the board has the model."""
        return self.what in (PUSHED, UP_TO_DATE)


@dataclass(frozen=True)
class Pushed:
    """The model, its SHA-256 (hexadecimal) and kind ("weights" or "int8"), and the result for each board."""

    model: str
    kind: str
    sha256: str
    boards: tuple[PushResult, ...]

    @property
    def left(self) -> tuple[PushResult, ...]:
        """The boards without the model."""
        return tuple(each for each in self.boards if not each.done)

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "boards": [asdict(each) for each in self.boards], "left": len(self.left)}


def load(name: str) -> Model:
    """Loads the model ``name``: a finished run's directory, an .npz file of weights, or an int8 .tflite file.

    Raises ConfigError, DataError or RunError for anything else.
    """
    path = Path(name)
    if path.suffix == ".tflite":
        from tinyfl.int8.native import load_program

        return Int8(load_program(path))
    if path.suffix == ".npz" or path.is_dir():
        from tinyfl.runs.adaptation import Initialisation

        start = Initialisation.load(path)
        start.demand_whole(path)
        return Weights(start.network.plan.bytes, start.theta, start.network.arena_bytes())
    raise ConfigError(f"{name} is not a model to push. Give a finished run's directory, its .npz, or an int8 .tflite file.")


def push(
    name: str,
    request: Selection,
    *,
    urls: Sequence[str] = (),
    baud: int = 0,
    auto: bool = False,
    wait: float = 0.0,
    devices: Path | None = None,
    tell: Callable[[PushResult], None] = lambda outcome: None,
) -> Pushed:
    """Pushes the model ``name`` to the selected boards in parallel, and calls ``tell`` with each result.

    Searches all ports that may have a board, the ports of the devices in the file ``devices`` (None: devices.toml, if it
    exists), and ``urls``, at ``baud`` (0: from the manifest), raised to push if ``auto``. Boards that are missing or fail are
    tried again for ``wait`` seconds. Raises ConfigError for an impossible selection, and the errors of ``load``; failures of
    boards are in the result.
    """
    model = load(name)
    saved, present = inventory.read_inventory(devices), serial_ports()
    named = [port(url, baud, present) for url in urls]
    outcomes = in_loop(_Push(model, request, saved, named, tell, auto).run(wait, devices))
    return Pushed(name, "int8" if isinstance(model, Int8) else "weights", model.sha256.hex(), outcomes)


def demand_all(pushed: Pushed) -> None:
    """Raises LinkError if boards are left without the model or none was found, or DoesNotFit if all of those are too small."""
    left = pushed.left
    if not pushed.boards:
        raise LinkError(
            "none of the selected boards was found. See: tinyfl devices. For boards on ptys, sockets and USB adapters, give "
            "--port, or save them first: tinyfl devices --port PORT --save"
        )
    if not left:
        return
    what = f"{len(left)} of {len(pushed.boards)} boards are without the model: "
    what += ", ".join(f"{each.id or each.port} ({each.what})" for each in left)
    if all(each.what == DOES_NOT_FIT for each in left):
        raise DoesNotFit(f"{what}. Use a smaller model, or larger boards.")
    raise LinkError(
        f"{what}. Check them and push again: boards with the model are skipped. --wait SECONDS waits for missing boards."
    )


class _Push:
    """A push in progress."""

    def __init__(
        self,
        model: Model,
        request: Selection,
        saved: Sequence[Saved],
        named: Sequence[Port],
        tell: Callable[[PushResult], None],
        auto: bool,
    ) -> None:
        self._auto = auto
        self._model, self._request, self._saved, self._named, self._tell = model, request, saved, named, tell
        self._finished: dict[str, tuple[Device, PushResult]] = {}
        self._reported: dict[tuple[str, str], str] = {}

    async def run(self, wait: float, devices: Path | None) -> tuple[PushResult, ...]:
        """The result for each board, finished ones first."""
        deadline = time.monotonic() + wait
        while True:
            chosen = inventory.select(self._request, await self._look(), self._saved, devices)
            worked = await every(self._one(each) for each in chosen.present if each.id not in self._finished)
            left = [each for each in worked if each.id not in self._finished] + _absent(chosen)
            for each in left:
                self._report(each)
            over = time.monotonic() + PAUSE_SECONDS >= deadline
            if over or (self._finished and not left):
                return (*(outcome for _, outcome in self._finished.values()), *left)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _look(self) -> list[Device]:
        """The devices present; finished boards as they were found."""
        finished = [device for device, _ in self._finished.values()]
        named = {each.url: each for each in [*inventory.ports_of(self._saved), *self._named]}
        found = await look(list(named.values()), skip=[each.port for each in finished])
        return [
            *finished,
            *(each for each in found if each.id not in self._finished),
        ]  # a finished one may have another port now

    async def _one(self, device: Device) -> PushResult:
        began = time.monotonic()
        try:
            with confined():
                what, detail = await put(self._model, device, self._auto), ""
        except DoesNotFit as error:
            what, detail = DOES_NOT_FIT, str(error)
        except LinkError as error:
            what, detail = FAILED, explained(device.port, error)
        outcome = PushResult(device.id, device.boards[0], device.port.url, what, detail, round(time.monotonic() - began, 3))
        if what != FAILED:
            self._finished[device.id] = device, outcome
        self._report(outcome)
        return outcome

    def _report(self, outcome: PushResult) -> None:
        """Reports a board's result if it is new."""
        who = outcome.id, outcome.port
        if self._reported.get(who) != outcome.what:
            self._reported[who] = outcome.what
            self._tell(outcome)


async def put(model: Model, device: Device, auto: bool = False) -> str:
    """Pushes ``model`` to one board that answered, following it to a new port: PUSHED, or UP_TO_DATE if it had it. The link's
    rate is raised if ``auto``.

    Raises LinkError after ATTEMPTS failures, and DoesNotFit.
    """
    for attempt in range(ATTEMPTS):
        try:
            at = await follow(device.port, BACK_SECONDS) if attempt else device.port
            return await _put(model, device, at, auto)
        except LinkError:
            if attempt == ATTEMPTS - 1:
                raise
            await asyncio.sleep(PAUSE_SECONDS)
    raise AssertionError("not reached")


async def _put(model: Model, device: Device, at: Port, auto: bool) -> str:
    board, _ = await connect(at, auto=auto)
    try:
        described = board.description
        if described.id.hex() != device.id:
            raise Refused(
                f"another board, {described.id.hex()}, answers at {named(at)}, in place of {device.id}. Nothing was written. "
                "Swap the cables back, or leave out --port, so that boards are found by their ids."
            )
        if model.is_on(described):
            return UP_TO_DATE
        model.demand_fit(described)
        await model.write(board)
        if not model.is_on(await board.describe()):
            raise Corrupt(f"board {device.id} accepted the model, but then reports another.")
    finally:
        await board.close()
    return PUSHED


def _absent(chosen: Chosen) -> list[PushResult]:
    outcomes = []
    for saved, at in chosen.missing:
        why = at.detail if at else "not found at any port"
        outcomes.append(PushResult(saved.id, saved.board, at.port.url if at else saved.port, _absence(at), why))
    for at in chosen.unclear:
        outcomes.append(PushResult("", " or ".join(at.boards), at.port.url, _absence(at), at.detail))
    return outcomes


def _absence(at: Device | None) -> str:
    """FAILED for a board that answered wrongly, OFFLINE for one that did not answer."""
    return FAILED if at and at.state in ("refused", "corrupt") else OFFLINE


def _demand(described: Description, needed: int, available: int, what: str) -> None:
    if needed > available:
        raise DoesNotFit(
            f"the model needs {needed:,} bytes of {what}; board {described.id.hex()} ({described.board}) has {available:,}. "
            "Use a smaller model, or a larger board."
        )
