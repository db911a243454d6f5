"""One board at the far end of a wire, asked one thing at a time.

Every request may be sent again (firmware/SPEC.md, order), so a lost or damaged frame costs a repeat and nothing else. Every
wait has an end: ``within`` is in seconds.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from enum import IntEnum
from hashlib import sha256
from typing import Any, NoReturn, TypeVar

import numpy as np
from smp.message import WriteRequest
from smpclient import SMPClient
from smpclient.generics import SMPRequest, TEr1, TEr2, TRep, error_v1, error_v2
from smpclient.requests.os_management import EchoWrite, ResetWrite

from tinyfl.core import F32, Code
from tinyfl.errors import Corrupt, Dead, Late, LinkError, Numeric, Refused, Stale
from tinyfl.errors.words import plain
from tinyfl.link import messages
from tinyfl.link.defects import one_device
from tinyfl.link.messages import CORE, PROTOCOL, REFUSED, Refusal
from tinyfl.link.wire import Opener, Silent, Wire, WireTransport

SENDS = 8
"""Times that a request is sent before it is given up."""

ANSWER_SECONDS = 5.0
"""For requests that a board answers at once."""

WORK_SECONDS = 60.0
"""For requests that a board works on."""

NOT_THERE = "Check the cable, the speed, and that the board runs tinyfl's firmware."

ABORTED = -6
"""The code of a round that was ended by ``abort``."""

MAX_BYTES = 4 << 24
"""Of weights: no plan has more."""


class BoardState(IntEnum):
    """What a board holds."""

    empty = 0
    planned = 1
    ready = 2
    learning = 3
    learnt = 4
    failed = 5


@dataclass(frozen=True)
class Description:
    """What a board says of itself, its texts fit to show: sizes in bytes, clock in Hz, hashes SHA-256 or empty; ``store`` is
    the size of the slot for a program, and ``inference`` the hash of the program there."""

    protocol: int
    firmware: str
    core: int
    board: str
    id: bytes
    clock: int
    arena: int
    buffer: int
    window: int
    slot: int
    layers: tuple[str, ...]
    dtypes: tuple[str, ...]
    sources: tuple[str, ...]
    plan: bytes
    model: bytes
    store: int
    inference: bytes


@dataclass(frozen=True)
class Round:
    """A round, as a board is asked for it. ``base`` is the SHA-256 of the weights to start from; ``source`` is a name from
    the board's description, or empty for samples that are fed."""

    round: int
    device: int
    seed: int
    samples: int
    batch: int
    passes: int
    rate: float
    clip: float
    base: bytes
    source: str = ""


@dataclass(frozen=True)
class Status:
    """How a board stands: its BoardState; ``round`` and ``base`` of its last round, the samples ``done``, their mean ``loss``
    and, if it failed, the core's ``code``; the SHA-256 of the ``weights`` there, empty where they are of no use; and the most
    bytes of ``stack`` ever used (0: unknown)."""

    state: int
    round: int
    base: bytes
    done: int
    loss: float
    code: int
    weights: bytes
    stack: int


@dataclass(frozen=True)
class Evaluated:
    """The mean loss over so many samples, and how many of them were classified right."""

    samples: int
    loss: float
    right: int


T = TypeVar("T", Description, Status, Evaluated)


class LinkedBoard:
    """A board that has answered and described itself. Arrays are float32; all methods may raise LinkError."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._transport = WireTransport(wire)
        self._client = SMPClient(self._transport, "")
        self._sequence = secrets.randbelow(256)  # an answer to a coordinator that was killed is not one to this
        self.description: Description

    @classmethod
    async def connect(cls, opener: Opener, within: float = ANSWER_SECONDS) -> "LinkedBoard":
        """Opens a wire and asks the board to describe itself.

        Raises Dead where nothing answers, Refused for a board of another protocol or core.
        """
        try:
            with one_device():
                async with limit(within):
                    board = cls(await opener())
                    try:
                        await board.describe(within)
                    except BaseException:
                        await board.close()
                        raise
        except Late as error:
            raise Dead(f"nothing answers within {within:g} s. {NOT_THERE}") from error
        return board

    async def close(self) -> None:
        """Lets the port go."""
        await self._wire.close()

    async def describe(self, within: float = ANSWER_SECONDS) -> Description:
        """What the board says of itself, also in ``description``. Messages are as long as its buffer from then on.

        Raises Dead where nothing answers, Refused for a board of another protocol or core.
        """
        try:
            reply = await self._ask(messages.Describe(sequence=self._next()), within)
        except Late as error:
            raise Dead(f"nothing answers within {within:g} s. {NOT_THERE}") from error
        self.description = described = _like(Description, reply)
        for ours, theirs, what in ((PROTOCOL, reply.protocol, "protocol"), (CORE, reply.core, "arithmetic")):
            if theirs != ours:
                raise Refused(
                    f"board {described.id.hex()} speaks {what} {theirs} (firmware {described.firmware}); this tinyfl speaks "
                    f"{ours}. Flash it with the firmware of this version."
                )
        if "dense" not in described.layers or "float32" not in described.dtypes:
            raise Refused(
                f"board {described.id.hex()} learns {', '.join(described.layers)} layers of {', '.join(described.dtypes)}, not "
                "dense ones of float32. Flash it with the firmware of this version."
            )
        self._transport.initialize(reply.buffer)
        return described

    async def put_plan(self, plan: bytes, within: float = WORK_SECONDS) -> None:
        """Gives the board its network (tinyfl.networks.plan); whatever weights it had are dropped."""
        await self._put(messages.PlanWrite, plan, within)

    async def put_weights(self, theta: F32, within: float = WORK_SECONDS) -> None:
        """Gives the board weights (parameters,). They stay in RAM. Raises Numeric where the guard refuses them."""
        await self._put(messages.WeightsWrite, floats(theta), within)

    async def train(self, round: Round, within: float = WORK_SECONDS) -> Status:
        """Starts a round and, where the board has the source, waits until it is done.

        Raises Stale if the board has other weights than ``base``, Numeric if the guard ended the round.
        """
        asked = {field.name: getattr(round, field.name) for field in fields(Round)}
        asked["rate"], asked["clip"] = (float(np.float32(number)) for number in (round.rate, round.clip))
        return _well(_like(Status, await self._ask(messages.Train(sequence=self._next(), **asked), within)))

    async def feed(self, samples: F32, within: float = WORK_SECONDS) -> Status:
        """Learns from ``samples`` (all passes, inputs + outputs), x then y in each row, after ``train`` without a source.

        Raises Numeric if the guard ended the round.
        """
        try:
            await self._blocks(messages.SamplesWrite, floats(samples), within)
        except Refused:
            _well(await self.status())
            raise
        return _well(await self.status())

    async def weights(self, status: Status | None = None, within: float = WORK_SECONDS) -> F32:
        """The weights (parameters,) that ``status`` names, by default the board's own at this moment.

        Raises Corrupt where what arrives does not have their hash, Stale where the board has none.
        """
        named = (status or await self.status()).weights
        if not named:
            raise Stale("the board has no weights to give. Put a plan and weights, and train.")
        async with limit(within):
            held = await self._read(messages.WeightsRead)
        if sha256(held).digest() != named or len(held) % 4:
            raise Corrupt(f"{len(held)} bytes of weights arrived that do not have the hash the board names.")
        return np.frombuffer(held, "<f4").astype(np.float32, copy=False)

    async def status(self) -> Status:
        """How the board stands."""
        return _like(Status, await self._ask(messages.StatusRead(sequence=self._next()), ANSWER_SECONDS))

    async def evaluate(self, samples: F32, within: float = WORK_SECONDS) -> Evaluated:
        """Measures the board's weights on ``samples`` (any, inputs + outputs), x then y in each row."""
        return _like(Evaluated, await self._blocks(messages.EvaluateWrite, floats(samples), within))

    async def infer(self, x: F32, within: float = WORK_SECONDS) -> F32:
        """The network's output (outputs,) for ``x`` (inputs,)."""
        reply = await self._blocks(messages.InferWrite, floats(x), within)
        if not reply.data:
            raise Refused(f"{x.size} inputs are not one sample of the network there. Give all of one x.")
        if len(reply.data) % 4:
            raise Corrupt(f"{len(reply.data)} bytes arrived, which are no floats.")
        return np.frombuffer(reply.data, "<f4").astype(np.float32, copy=False)

    async def put_program(self, program: bytes, within: float = WORK_SECONDS) -> None:
        """Writes an int8 program (``tinyfl.int8.native.Program.content``) to its flash slot, unless it is there already."""
        await self._put(messages.ProgramWrite, program, within, within)

    async def predict(self, x: bytes, within: float = WORK_SECONDS) -> bytes:
        """The raw output of the board's program for the raw input ``x``."""
        reply = await self._blocks(messages.PredictWrite, x, within)
        if reply.len is None or reply.data is None:
            raise Refused(f"{len(x):,} bytes are not the whole input of the program there. Give all of one input.")
        async with limit(within):
            return await self._read(messages.PredictRead, reply.data, reply.len)

    async def abort(self) -> Status:
        """Ends the round under way."""
        return _like(Status, await self._ask(messages.Abort(sequence=self._next()), ANSWER_SECONDS))

    async def commit(self, sha: bytes, within: float = WORK_SECONDS) -> int:
        """Writes plan and weights, whose SHA-256 must be ``sha``, to a flash slot; returns the slot."""
        return (await self._ask(messages.Commit(sequence=self._next(), sha=sha), within)).slot

    async def echo(self, text: str) -> str:
        """``text``, from the board."""
        return (await self._ask(EchoWrite(sequence=self._next(), d=text), ANSWER_SECONDS)).r

    async def reset(self) -> None:
        """Restarts the board. Connect again afterwards."""
        await self._ask(ResetWrite(sequence=self._next()), ANSWER_SECONDS)

    async def _put(self, block: type[Any], data: bytes, within: float, each: float = ANSWER_SECONDS) -> None:
        announced = {"len": len(data), "sha": sha256(data).digest()}
        await self._blocks(lambda **at: block(**at, **({} if at["off"] else announced)), data, within, each)

    async def _read(self, block: type[Any], held: bytes = b"", whole: int | None = None) -> bytes:
        """All of what the board gives in blocks, of which ``held`` is here; ``whole`` is its length, where that is known."""
        got = bytearray(held)
        while whole is None or len(got) < whole:
            part = await self._ask(block(sequence=self._next(), off=len(got)), ANSWER_SECONDS)
            if part.off != len(got) or not part.data:
                raise Corrupt(f"asked for what comes from byte {len(got)}, got {len(part.data)} bytes from {part.off}.")
            if part.len > MAX_BYTES:
                raise Corrupt(f"the board says it has {part.len:,} bytes to give.")
            got += part.data
            whole = part.len
        return bytes(got)

    async def _blocks(self, block: Callable[..., Any], data: bytes, within: float, each: float | None = None) -> Any:
        """Sends ``data`` in blocks as long as the buffer allows, from wherever the board says that it stands; each may take
        ``each``, and all together ``within``. Returns the last reply."""
        off, setbacks = 0, 0
        async with limit(within):
            while True:
                empty: WriteRequest = block(sequence=self._sequence, off=off, data=b"")
                _, room = self._client.get_max_cbor_and_data_size(empty)
                sent = block(sequence=self._next(), off=off, data=data[off : off + room])
                reply = await self._ask(sent, each or within)
                if reply.off == len(data):
                    return reply
                setbacks += reply.off <= off
                if not 0 <= reply.off < len(data) or setbacks >= SENDS:
                    raise Corrupt(f"sent from byte {off} of {len(data)} on, and the board goes on at {reply.off}.")
                off = reply.off

    def _next(self) -> int:
        self._sequence = (self._sequence + 1) % 256
        return self._sequence

    async def _ask(self, request: SMPRequest[TRep, TEr1, TEr2], within: float) -> TRep:
        """The board's reply. A request without one is sent again after ever longer waits, and given up at the deadline."""
        with one_device():
            return await self._reply(request, within)

    async def _reply(self, request: SMPRequest[TRep, TEr1, TEr2], within: float) -> TRep:
        loop = asyncio.get_running_loop()
        deadline, patience = loop.time() + within, self._wire.patience
        trouble: LinkError = Late(f"no answer within {within:g} s.")
        for send in range(SENDS):
            left = deadline - loop.time()
            if left <= 0:
                break
            try:
                async with asyncio.timeout(left if send == SENDS - 1 else min(left, patience)):
                    reply = messages.answer(request, await self._transport.send_and_receive(request.BYTES))
            except TimeoutError:
                patience *= 2
            except Silent:
                trouble = Dead(f"the board sleeps, and left {send + 1} requests unanswered.")
            except Corrupt as error:
                trouble = error
            else:
                if error_v1(reply):
                    raise Refused(f"the board does not take {type(request).__name__}: {reply.rc.name}.")
                if error_v2(reply):
                    _refuse(type(request).__name__, reply.err.rc)
                return reply
        raise trouble


def floats(array: F32) -> bytes:
    """An array's bytes, as they travel."""
    return array.astype("<f4").tobytes()


@asynccontextmanager
async def limit(seconds: float) -> AsyncIterator[None]:
    """Raises Late where what is within is not done in time."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise Late(f"not done within {seconds:g} s.") from error


def _like(cls: type[T], reply: Any) -> T:
    """The reply's fields as ``cls``: lists as tuples, texts fit to show."""
    return cls(**{field.name: _fit(getattr(reply, field.name)) for field in fields(cls)})


def _fit(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(plain, value))
    return plain(value) if isinstance(value, str) else value


def _refuse(request: str, refusal: Refusal) -> NoReturn:
    kinds: dict[Refusal, type[LinkError]] = {Refusal.stale: Stale, Refusal.numeric: Numeric, Refusal.hash: Corrupt}
    raise kinds.get(refusal, Refused)(f"the board refuses {request} ({int(refusal)}): {REFUSED[refusal]}.")


def _well(status: Status) -> Status:
    """``status``, unless its round failed."""
    if status.state != BoardState.failed:
        return status
    if status.code == Code.numeric:
        raise Numeric(f"a value was not finite or too large after {status.done} samples. Give a smaller rate, or a clip.")
    what = "was aborted" if status.code == ABORTED else f"ended with code {status.code}"
    raise Refused(f"the round on the board {what} after {status.done} samples.")
