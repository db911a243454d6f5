"""One board at the far end of a wire, with one request at a time.

Every request can be repeated safely (firmware/SPEC.md, order), so a lost or damaged frame costs only a repetition. Every wait
has a timeout, ``within``, in seconds.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from hashlib import sha256
from typing import Any, NoReturn

import numpy as np
from smp.message import WriteRequest
from smpclient import SMPClient
from smpclient.generics import SMPRequest, TEr1, TEr2, TRep, error_v1, error_v2
from smpclient.requests.os_management import EchoWrite, ResetWrite

from tinyfl.codecs import FP32
from tinyfl.codecs.down import Encoded
from tinyfl.core import F32, Code
from tinyfl.errors import Corrupt, Dead, Late, LinkError, Numeric, Refused, Stale
from tinyfl.link import messages, transfers
from tinyfl.link.defects import confined
from tinyfl.link.line import Line
from tinyfl.link.messages import CORE, PROTOCOL, REFUSED, Refusal, about, models, rounds
from tinyfl.link.rates import Rate
from tinyfl.link.sensing import raise_fault
from tinyfl.link.status import BoardState, Description, Evaluated, Status, said
from tinyfl.link.transfers import Step, Window, nothing
from tinyfl.link.wire import FIRST_PATIENCE, Opener, Overtaken, Silent, Wire, WireTransport

SENDS = 8
"""Maximum transmissions of a request."""

ANSWER_SECONDS = 5.0
"""Timeout for requests answered at once."""

WORK_SECONDS = 60.0
"""Timeout for requests that need computation."""

CHECK_LINK = "Check the cable, the baud rate, and that the board runs tinyfl's firmware."

ABORTED = -6
"""The code of an aborted round."""

MAX_WINDOW = 16
"""Maximum number of requests on their way to a board, whatever it declares."""


@dataclass(frozen=True)
class Round:
    """A request for a round. ``inner`` is the record of its inner loop (tinyfl.algorithms.Inner), ``base`` the SHA-256 of the
    initial weights; ``source`` is a name from the board's description, or empty if the host feeds the samples. ``run`` and
    ``saved`` are for what the device keeps (tinyfl.fleet.Context)."""

    round: int
    device: int
    seed: int
    inner: bytes
    base: bytes
    source: str = ""
    run: int = 0
    saved: int = 0


class LinkedBoard:
    """A board that answered and described itself. Arrays are float32; all methods may raise LinkError."""

    def __init__(self, wire: Wire, sharers: int = 1) -> None:
        self._wire, self._rate, self._sharers = wire, Rate(wire), sharers
        self._transport = WireTransport(wire)
        self._client = SMPClient(self._transport, "")
        self._sequence = secrets.randbelow(256)  # ignores answers to a coordinator that was killed
        self.description: Description

    @classmethod
    async def connect(cls, opener: Opener, within: float = ANSWER_SECONDS, sharers: int = 1) -> "LinkedBoard":
        """Opens a wire and requests the board's description; ``sharers`` are the boards on its line.

        Raises Dead without an answer, Refused for a board of another protocol or core.
        """
        try:
            with confined():
                async with limit(within):
                    board = cls(await opener(), sharers)
                    try:
                        await board.describe(within)
                    except BaseException:
                        await board.close()
                        raise
        except Late as error:
            raise Dead(f"nothing answers within {within:g} s. {CHECK_LINK}") from error
        try:
            await board._rate.raise_for(board)
        except BaseException:
            await board.close()
            raise
        return board

    async def close(self) -> None:
        """Releases the port, at its first baud rate."""
        await self._rate.lower_for(self)
        await self._wire.close()

    @property
    def line(self) -> Line:
        """What its wire has carried since it was opened."""
        return self._transport.line

    @property
    def patience(self) -> float:
        """Seconds without an answer before a request is sent again: the line may carry an exchange of each sharer first."""
        return FIRST_PATIENCE + self._sharers * (self._wire.patience - FIRST_PATIENCE)

    async def describe(self, within: float = ANSWER_SECONDS) -> Description:
        """Requests the board's description, stores it in ``description``, and sets the maximum message length to its buffer.

        Raises Dead without an answer, Refused for a board of another protocol or core.
        """
        try:
            reply = await self.request(about.Describe(sequence=self.next()), within)
        except Late as error:
            raise Dead(f"nothing answers within {within:g} s. {CHECK_LINK}") from error
        self.description = described = said(Description, reply)
        for ours, theirs, what in ((PROTOCOL, reply.protocol, "protocol"), (CORE, reply.core, "arithmetic")):
            if theirs != ours:
                raise Refused(
                    f"board {described.id.hex()} speaks {what} {theirs} (firmware {described.firmware}); this tinyfl speaks "
                    f"{ours}. Flash it with the firmware of this version."
                )
        if "dense" not in described.layers or "float32" not in described.dtypes:
            raise Refused(
                f"board {described.id.hex()} supports {', '.join(described.layers)} layers of {', '.join(described.dtypes)}, "
                "not dense layers of float32. Flash it with the firmware of this version."
            )
        self._transport.initialize(reply.buffer)
        return described

    async def put_plan(self, plan: bytes, within: float = WORK_SECONDS) -> None:
        """Sends the network's plan (tinyfl.networks.plan), which discards the board's weights."""
        await self.put(rounds.PlanWrite, plan, within)

    async def put_weights(self, theta: F32, within: float = WORK_SECONDS, held: bool = False) -> None:
        """Sends weights (parameters,), which stay in RAM; ``held``: also while the board learns. Raises Numeric if the guard
        refuses them."""
        await self.put_encoded(Encoded(FP32, floats(theta), b"" if held else None), within)

    async def put_encoded(self, weights: Encoded, within: float = WORK_SECONDS, on_last: Step = nothing) -> None:
        """Sends ``weights`` as they are encoded, and calls ``on_last`` when all are on their way. Raises Stale for a change of
        weights that the board does not hold, Numeric if the guard refuses the result."""
        form: dict[str, Any] = {} if weights.codec == FP32 else {"codec": weights.codec.kind.value}
        if weights.onto is not None:
            form["onto"] = weights.onto
        await self.put(rounds.WeightsWrite, weights.data, within, flight=self._window(on_last), **form)

    async def train(self, round: Round, within: float = WORK_SECONDS) -> Status:
        """Starts a round and, with a source on the board, waits for its end.

        Raises Stale if the board has other weights than ``base``, Numeric if the guard ended the round.
        """
        values = {field.name: getattr(round, field.name) for field in fields(Round)}
        status = said(Status, await self.request(rounds.Train(sequence=self.next(), **values), within))
        return _succeeded(status, round.source)

    async def feed(self, samples: F32, within: float = WORK_SECONDS) -> Status:
        """Learns from ``samples`` (all passes, inputs + outputs), x then y in each row, after ``train`` without a source.

        Raises Numeric if the guard ended the round.
        """
        try:
            await self.blocks(rounds.SamplesWrite, floats(samples), within)
        except Refused:
            _succeeded(await self.status())
            raise
        return _succeeded(await self.status())

    async def weights(self, status: Status | None = None, within: float = WORK_SECONDS, count: int | None = None) -> F32:
        """Reads the weights (parameters,) of ``status``, by default the board's current ones; ``count`` of them, if known.

        Raises Corrupt if the received weights do not have their hash, Stale if the board has none.
        """
        data = await self.update(status or await self.status(), within, None if count is None else 4 * count)
        if len(data) % 4:
            raise Corrupt(f"the {len(data)} bytes received are no floats.")
        return np.frombuffer(data, "<f4").astype(np.float32, copy=False)

    async def update(
        self, status: Status, within: float = WORK_SECONDS, size: int | None = None, on_last: Step = nothing
    ) -> bytes:
        """Reads the update of a round with ``status`` at its end; ``size``: its bytes, if known. Calls ``on_last`` when all are
        requested. Raises as ``weights`` does."""
        if not status.weights:
            raise Stale("the board has no weights. Put a plan and weights, and train.")
        async with limit(within):
            data = await self._read(rounds.WeightsRead, self._window(on_last), size=size)
        if sha256(data).digest() != status.weights:
            raise Corrupt(f"the {len(data)} bytes of weights received do not have the hash reported by the board.")
        return data

    async def status(self) -> Status:
        """Requests the board's status."""
        return said(Status, await self.request(rounds.StatusRead(sequence=self.next()), ANSWER_SECONDS))

    async def evaluate(self, samples: F32, within: float = WORK_SECONDS) -> Evaluated:
        """Measures the board's weights on ``samples`` (any, inputs + outputs), x then y in each row."""
        return said(Evaluated, await self.blocks(rounds.EvaluateWrite, floats(samples), within))

    async def infer(self, x: F32, within: float = WORK_SECONDS) -> F32:
        """The network's output (outputs,) for ``x`` (inputs,)."""
        reply = await self.blocks(models.InferWrite, floats(x), within)
        if not reply.data:
            raise Refused(f"{x.size} inputs are not one sample of the board's network. Give exactly one x.")
        if len(reply.data) % 4:
            raise Corrupt(f"{len(reply.data)} bytes arrived, not a multiple of 4, so not floats.")
        return np.frombuffer(reply.data, "<f4").astype(np.float32, copy=False)

    async def put_program(self, program: bytes, within: float = WORK_SECONDS) -> None:
        """Writes an int8 program (``tinyfl.int8.native.Program.content``) to its flash slot, unless it is there already."""
        await self.put(models.ProgramWrite, program, within, within)

    async def predict(self, x: bytes, within: float = WORK_SECONDS) -> bytes:
        """The raw output of the board's program for the raw input ``x``."""
        reply = await self.blocks(models.PredictWrite, x, within)
        if reply.len is None or reply.data is None:
            raise Refused(f"{len(x):,} bytes are not the complete input of the board's program. Give exactly one input.")
        async with limit(within):
            return await self._read(models.PredictRead, self._window(), reply.data, reply.len)

    async def abort(self) -> Status:
        """Aborts the current round."""
        return said(Status, await self.request(rounds.Abort(sequence=self.next()), ANSWER_SECONDS))

    async def commit(self, sha: bytes, within: float = WORK_SECONDS) -> int:
        """Writes plan and weights, whose SHA-256 must be ``sha``, to a flash slot; returns the slot."""
        return (await self.request(models.Commit(sequence=self.next(), sha=sha), within)).slot

    async def echo(self, text: str) -> str:
        """Returns ``text`` as echoed by the board."""
        return (await self.request(EchoWrite(sequence=self.next(), d=text), ANSWER_SECONDS)).r

    async def reset(self) -> None:
        """Restarts the board. Connect again afterwards."""
        await self.request(ResetWrite(sequence=self.next()), ANSWER_SECONDS)

    async def put(
        self,
        block: type[Any],
        data: bytes,
        within: float,
        each: float = ANSWER_SECONDS,
        flight: Window | None = None,
        **form: Any,
    ) -> None:
        """Sends ``data`` in blocks, the first of which announces its length, its hash and its ``form``."""
        announced = {"len": len(data), "sha": sha256(data).digest(), **form}
        await self.blocks(lambda **at: block(**at, **({} if at["off"] else announced)), data, within, each, flight)

    async def blocks(
        self, block: Callable[..., Any], data: bytes, within: float, each: float | None = None, flight: Window | None = None
    ) -> Any:
        """Sends ``data`` in blocks of the buffer's size, continuing at the board's offset, one at a time or as many as
        ``flight`` holds; ``each`` is the timeout per block, ``within`` the total. Returns the last reply."""

        def room(off: int) -> int:
            empty: WriteRequest = block(sequence=self._sequence, off=off, data=b"")
            return self._client.get_max_cbor_and_data_size(empty)[1]

        async with limit(within):
            return await transfers.write(flight or Window(self), block, room, data, each or within)

    async def read(self, block: type[Any], first: bytes, size: int, within: float) -> bytes:
        """Reads the rest of ``size`` bytes, which begin with ``first``, by requests ``block``. Raises Corrupt for others."""
        async with limit(within):
            return await self._read(block, self._window(), first, size)

    async def _read(self, block: type[Any], flight: Window, first: bytes = b"", size: int | None = None) -> bytes:
        """Reads data in blocks, after those in ``first``; ``size`` is the total length, if known."""
        return await transfers.read(flight, block, self.description.buffer, ANSWER_SECONDS, first, size)

    def _window(self, on_last: Step = nothing) -> Window:
        """As many requests on their way as the board allows."""
        return Window(self, min(max(self.description.window, 1), MAX_WINDOW), on_last)

    def next(self) -> int:
        """The next request's sequence number."""
        self._sequence = (self._sequence + 1) % 256
        return self._sequence

    async def send(self, request: SMPRequest[Any, Any, Any]) -> None:
        """Sends a request, whose reply ``request`` then waits for."""
        with confined():
            await self._transport.send(request.BYTES)

    async def request(
        self,
        request: SMPRequest[TRep, TEr1, TEr2],
        within: float,
        behind: deque[SMPRequest[Any, Any, Any]] | None = None,
        busy: float = 0.0,
    ) -> TRep:
        """Returns the board's reply, repeating the request after increasing waits until the deadline. The board may be ``busy``
        with it for so many seconds.

        If ``behind`` is given, the request was sent already, and after it those in ``behind``, which is cleared if the request
        must be repeated."""
        with confined():
            return await self._reply(request, within, behind, busy)

    async def _reply(
        self,
        request: SMPRequest[TRep, TEr1, TEr2],
        within: float,
        behind: deque[SMPRequest[Any, Any, Any]] | None,
        busy: float,
    ) -> TRep:
        loop = asyncio.get_running_loop()
        deadline, patience = loop.time() + within, self.patience + busy
        trouble: LinkError = Late(f"no answer within {within:g} s.")
        for send in range(SENDS):
            left = deadline - loop.time()
            if left <= 0:
                break
            try:
                async with asyncio.timeout(left if send == SENDS - 1 else min(left, patience)):
                    if send or behind is None:
                        await self._transport.send(request.BYTES)
                    answer = await self._transport.answer(request.BYTES, [later.BYTES for later in behind or ()])
                    reply = messages.answer(request, answer)
            except TimeoutError:
                patience *= 2
            except Silent:
                trouble = Dead(f"the board sleeps, and did not answer {send + 1} requests.")
            except Overtaken:
                pass
            except Corrupt as error:
                trouble = error
            else:
                self._rate.answered()
                if error_v1(reply):
                    raise Refused(f"the board does not support {type(request).__name__}: {reply.rc.name}.")
                if error_v2(reply):
                    _refuse(type(request).__name__, reply.err.rc)
                return reply
            if behind:
                behind.clear()
            if await self._rate.lost():
                patience = self.patience
        raise trouble


def floats(array: F32) -> bytes:
    """Encodes an array as on the wire: little-endian float32."""
    return array.astype("<f4").tobytes()


@asynccontextmanager
async def limit(seconds: float) -> AsyncIterator[asyncio.Timeout]:
    """Raises Late if the body takes longer than ``seconds``, by the clock that it gets."""
    try:
        async with asyncio.timeout(seconds) as clock:
            yield clock
    except TimeoutError as error:
        raise Late(f"not done within {seconds:g} s.") from error


def _refuse(request: str, refusal: Refusal) -> NoReturn:
    kinds: dict[Refusal, type[LinkError]] = {Refusal.stale: Stale, Refusal.numeric: Numeric, Refusal.hash: Corrupt}
    raise kinds.get(refusal, Refused)(f"the board refuses {request} ({int(refusal)}): {REFUSED[refusal]}.")


def _succeeded(status: Status, source: str = "") -> Status:
    """Returns ``status``; raises Numeric, SensorFault or Refused if its round, on samples of ``source``, failed."""
    if status.state != BoardState.failed:
        return status
    if status.code == Code.numeric:
        raise Numeric(f"a value was not finite, or too large, after {status.done} samples. Give a smaller rate, or a clip.")
    if source and status.code != ABORTED:
        raise_fault(status.code, source, status.done)
    what = "was aborted" if status.code == ABORTED else f"ended with code {status.code}"
    raise Refused(f"the round on the board {what} after {status.done} samples.")
