"""A model to many boards at once: a run's weights to their model slots, or an int8 program to its slot.

What is there already is left alone, and a board that fails stops no other. A cut at any moment leaves a board with its old
model or with the new one: weights reach flash only by a commit, and a program counts only once it is whole (firmware/SPEC.md,
slots). A program's slot holds one, so a board whose new program does not come whole has none until it is pushed again.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyfl.devices import inventory
from tinyfl.devices.connected import Device, connect, explained, in_loop, look
from tinyfl.devices.inventory import Chosen, Saved, Selection
from tinyfl.devices.ports import Port, follow, named, port, serial_ports
from tinyfl.errors import ConfigError, Corrupt, DoesNotFit, LinkError, Refused
from tinyfl.int8.on_board import SLOWEST, demand_room, put_program
from tinyfl.link.board import WORK_SECONDS, BoardState, Description, LinkedBoard, floats
from tinyfl.link.defects import one_device
from tinyfl.link.messages import WEIGHTS_HEADER

if TYPE_CHECKING:
    from tinyfl.core import F32
    from tinyfl.int8.native import Program

ATTEMPTS = 3
"""For each board that is there: one that restarts in the middle gets the model anew."""

BACK_SECONDS = 10.0
"""What a board that restarted may take to be back."""

PAUSE_SECONDS = 1.0
"""Between two looks for boards that are waited for."""

PUSHED, UP_TO_DATE, OFFLINE, FAILED, DOES_NOT_FIT = "pushed", "up to date", "offline", "failed", "does not fit"


@dataclass(frozen=True)
class Weights:
    """A network's plan and weights (parameters,) float32, with the bytes of RAM that a board needs to learn from them."""

    plan: bytes
    theta: "F32"
    arena: int

    @property
    def sha256(self) -> bytes:
        """What a board calls its model."""
        return sha256(floats(self.theta)).digest()

    def is_on(self, described: Description) -> bool:
        """Whether the board's committed model is this one."""
        return described.model == self.sha256 and described.plan == sha256(self.plan).digest()

    def demand_fit(self, described: Description) -> None:
        """Raises DoesNotFit where the board has no room for it."""
        _demand(described, WEIGHTS_HEADER + len(self.plan) + 4 * self.theta.size, described.slot, "flash in a model's slot")
        _demand(described, self.arena, described.arena, "RAM to learn")

    async def write(self, board: LinkedBoard) -> None:
        """Into the slot that is not the newest."""
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
        """What a board calls its inference."""
        return sha256(self.program.content).digest()

    def is_on(self, described: Description) -> bool:
        """Whether the board has just this program."""
        return described.inference == self.sha256

    def demand_fit(self, described: Description) -> None:
        """Raises DoesNotFit where the board has no room for it."""
        demand_room(self.program, described)

    async def write(self, board: LinkedBoard) -> None:
        """Into the program's slot."""
        await put_program(board, self.program)


Model = Weights | Int8


@dataclass(frozen=True)
class PushResult:
    """What became of one board: "pushed", "up to date", "offline" (did not answer), "failed", or "does not fit"; ``detail``
    says why. ``board`` is its kind; what is not known is empty."""

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
    """A model's SHA-256 (hexadecimal), its kind ("weights" or "int8"), and what became of each board."""

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
    """The model that ``name`` says: a finished run's directory, an .npz file of weights, or an int8 .tflite file.

    Raises ConfigError, DataError or RunError where it is none.
    """
    path = Path(name)
    if path.suffix == ".tflite":
        from tinyfl.int8.native import load_program

        return Int8(load_program(path))
    if path.suffix == ".npz" or path.is_dir():
        from tinyfl.runs.adaptation import Initialisation

        start = Initialisation.load(path)
        return Weights(start.network.plan.bytes, start.theta, start.network.arena_bytes())
    raise ConfigError(f"{name} is no model to push. Give a finished run's directory, its .npz, or an int8 .tflite file.")


def push(
    name: str,
    asked: Selection,
    *,
    urls: Sequence[str] = (),
    baud: int = 0,
    wait: float = 0.0,
    devices: Path | None = None,
    tell: Callable[[PushResult], None] = lambda outcome: None,
) -> Pushed:
    """The model ``name`` to the boards that are meant, side by side. ``tell`` is called as each is done with.

    Boards are looked for at all ports that may have one, at those of the devices in the file ``devices`` (None:
    devices.toml, if there is one), and at ``urls``, for which ``baud`` is (0: as their manifests have it). Those that are not
    there, or fail, are tried again for ``wait`` seconds. Raises ConfigError for a selection that nothing can meet, and what
    ``load`` raises; what becomes of boards is in the result.
    """
    model = load(name)
    saved, now = inventory.read_inventory(devices), serial_ports()
    outcomes = in_loop(_Push(model, asked, saved, [port(url, baud, now) for url in urls], tell).run(wait, devices))
    return Pushed(name, "int8" if isinstance(model, Int8) else "weights", model.sha256.hex(), outcomes)


def demand_all(pushed: Pushed) -> None:
    """Raises LinkError where boards were left without the model or none was found, or DoesNotFit where all that were left are
    too small for it."""
    left = pushed.left
    if not pushed.boards:
        raise LinkError(
            "none of the boards that are meant was found. See: tinyfl devices. Boards on ptys, sockets and USB adapters are "
            "found where --port names them, or once tinyfl devices --port PORT --save has."
        )
    if not left:
        return
    what = f"{len(left)} of {len(pushed.boards)} boards are without the model: "
    what += ", ".join(f"{each.id or each.port} ({each.what})" for each in left)
    if all(each.what == DOES_NOT_FIT for each in left):
        raise DoesNotFit(f"{what}. Take a smaller model, or larger boards.")
    raise LinkError(f"{what}. See to them and push again: boards that have it are skipped. --wait SECONDS waits for them.")


class _Push:
    """One push under way."""

    def __init__(
        self,
        model: Model,
        asked: Selection,
        saved: Sequence[Saved],
        named: Sequence[Port],
        tell: Callable[[PushResult], None],
    ) -> None:
        self._model, self._asked, self._saved, self._named, self._tell = model, asked, saved, named, tell
        self._finished: dict[str, tuple[Device, PushResult]] = {}
        self._told: dict[tuple[str, str], str] = {}

    async def run(self, wait: float, devices: Path | None) -> tuple[PushResult, ...]:
        """What became of each board, those that are done with first."""
        deadline = time.monotonic() + wait
        while True:
            chosen = inventory.select(self._asked, await self._look(), self._saved, devices)
            worked = await asyncio.gather(*(self._one(each) for each in chosen.there if each.id not in self._finished))
            left = [each for each in worked if each.id not in self._finished] + _not_there(chosen)
            for each in left:
                self._say(each)
            over = time.monotonic() + PAUSE_SECONDS >= deadline
            if over or (self._finished and not left):
                return (*(outcome for _, outcome in self._finished.values()), *left)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _look(self) -> list[Device]:
        """What is there, with boards that are done with as they were found."""
        finished = [device for device, _ in self._finished.values()]
        named = {each.url: each for each in [*inventory.ports_of(self._saved), *self._named]}
        found = await look(list(named.values()), skip=[each.port for each in finished])
        return [*finished, *(each for each in found if each.id not in self._finished)]  # one may have changed its port

    async def _one(self, device: Device) -> PushResult:
        began = time.monotonic()
        try:
            with one_device():
                what, detail = await put(self._model, device), ""
        except DoesNotFit as error:
            what, detail = DOES_NOT_FIT, str(error)
        except LinkError as error:
            what, detail = FAILED, explained(device.port, error)
        outcome = PushResult(device.id, device.boards[0], device.port.url, what, detail, round(time.monotonic() - began, 3))
        if what != FAILED:
            self._finished[device.id] = device, outcome
        self._say(outcome)
        return outcome

    def _say(self, outcome: PushResult) -> None:
        """Tells what is new."""
        who = outcome.id, outcome.port
        if self._told.get(who) != outcome.what:
            self._told[who] = outcome.what
            self._tell(outcome)


async def put(model: Model, device: Device) -> str:
    """``model`` to one board that answered, wherever it is by now: PUSHED, or UP_TO_DATE where it had it.

    Raises LinkError if that fails ATTEMPTS times, and DoesNotFit.
    """
    for attempt in range(ATTEMPTS):
        try:
            at = await follow(device.port, BACK_SECONDS) if attempt else device.port
            return await _put(model, device, at)
        except LinkError:
            if attempt == ATTEMPTS - 1:
                raise
            await asyncio.sleep(PAUSE_SECONDS)
    raise AssertionError("not reached")


async def _put(model: Model, device: Device, at: Port) -> str:
    board, _ = await connect(at)
    try:
        described = board.description
        if described.id.hex() != device.id:
            raise Refused(
                f"another board, {described.id.hex()}, answers at {named(at)}, where {device.id} was. Nothing was written. "
                "Put the cables right, or leave out --port, so that boards are looked for by their ids."
            )
        if model.is_on(described):
            return UP_TO_DATE
        model.demand_fit(described)
        await model.write(board)
        if not model.is_on(await board.describe()):
            raise Corrupt(f"board {device.id} took the model, and then describes another.")
    finally:
        await board.close()
    return PUSHED


def _not_there(chosen: Chosen) -> list[PushResult]:
    outcomes = []
    for saved, at in chosen.missing:
        why = at.detail if at else "not found at any port"
        outcomes.append(PushResult(saved.id, saved.board, at.port.url if at else saved.port, _absence(at), why))
    for at in chosen.unclear:
        outcomes.append(PushResult("", " or ".join(at.boards), at.port.url, _absence(at), at.detail))
    return outcomes


def _absence(at: Device | None) -> str:
    """A board that answers, but not as it should, is there."""
    return FAILED if at and at.state in ("refused", "corrupt") else OFFLINE


def _demand(described: Description, takes: int, has: int, what: str) -> None:
    if takes > has:
        raise DoesNotFit(
            f"the model takes {takes:,} bytes of {what}; board {described.id.hex()} ({described.board}) has {has:,}. "
            "Take a smaller model, or a larger board."
        )
