"""The messages of tinyfl's group 65, exactly as in firmware/SPEC.md (wire): ``smp`` encodes, ``smpclient`` sends them."""

from enum import IntEnum
from typing import ClassVar

from pydantic import ConfigDict
from smp import error, message

GROUP = 65

PROTOCOL = 2
"""The version of these messages, as ``describe`` names it."""

CORE = 1
"""The version of the arithmetic, as ``describe`` names it."""


class Refusal(IntEnum):
    """Why a board refuses a request."""

    invalid = 2
    plan = 3
    memory = 4
    state = 5
    stale = 6
    hash = 7
    numeric = 8
    size = 9
    flash = 10
    source = 11


REFUSED = {
    Refusal.invalid: "a field is missing, of the wrong type, or out of its range",
    Refusal.plan: "the core refuses the plan or the program",
    Refusal.memory: "the arena or the slot is too small",
    Refusal.state: "not now: no plan, no weights, no program, or a round is under way",
    Refusal.stale: "stale: the weights there do not have the hash of this round's base",
    Refusal.hash: "what arrived does not have the hash announced",
    Refusal.numeric: "the guard: a value is not finite or too large",
    Refusal.size: "the reply would not fit the buffer",
    Refusal.flash: "the slot could not be erased or written",
    Refusal.source: "no source has this name, or it failed",
}
"""SPEC.md's words for each."""


class _ErrorV1(error.ErrorV1):
    _GROUP_ID = GROUP


class _ErrorV2(error.ErrorV2[Refusal]):
    _GROUP_ID = GROUP


class _Reply:
    """Keys that this version does not know are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    _GROUP_ID: ClassVar[int] = GROUP


class _Request:
    _GROUP_ID: ClassVar[int] = GROUP
    _ErrorV1 = _ErrorV1
    _ErrorV2 = _ErrorV2


class DescribeReply(message.ReadResponse, _Reply):
    _COMMAND_ID = 0
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
    layers: list[str]
    dtypes: list[str]
    sources: list[str]
    plan: bytes
    model: bytes
    store: int = 0
    """Since protocol 2, as the next: a board of protocol 1 is still read, and refused for what it is."""
    inference: bytes = b""


class Describe(message.ReadRequest, _Request):
    _COMMAND_ID = 0
    _Response = DescribeReply


class PlanReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 1
    off: int


class PlanWrite(message.WriteRequest, _Request):
    _COMMAND_ID = 1
    _Response = PlanReply
    off: int
    data: bytes
    len: int | None = None
    sha: bytes | None = None


class WeightsReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 2
    off: int


class WeightsWrite(message.WriteRequest, _Request):
    _COMMAND_ID = 2
    _Response = WeightsReply
    off: int
    data: bytes
    len: int | None = None
    sha: bytes | None = None


class WeightsBlock(message.ReadResponse, _Reply):
    _COMMAND_ID = 2
    off: int
    len: int
    data: bytes


class WeightsRead(message.ReadRequest, _Request):
    _COMMAND_ID = 2
    _Response = WeightsBlock
    off: int


class _Status(_Reply):
    state: int
    round: int
    base: bytes
    done: int
    loss: float
    code: int
    weights: bytes
    stack: int


class TrainReply(message.WriteResponse, _Status):
    _COMMAND_ID = 3


class Train(message.WriteRequest, _Request):
    _COMMAND_ID = 3
    _Response = TrainReply
    round: int
    device: int
    seed: int
    samples: int
    batch: int
    passes: int
    rate: float
    clip: float
    base: bytes
    source: str


class SamplesReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 4
    off: int


class SamplesWrite(message.WriteRequest, _Request):
    _COMMAND_ID = 4
    _Response = SamplesReply
    off: int
    data: bytes


class EvaluateReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 5
    off: int
    samples: int
    loss: float
    right: int


class EvaluateWrite(message.WriteRequest, _Request):
    _COMMAND_ID = 5
    _Response = EvaluateReply
    off: int
    data: bytes


class InferReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 6
    off: int
    data: bytes | None = None


class InferWrite(message.WriteRequest, _Request):
    _COMMAND_ID = 6
    _Response = InferReply
    off: int
    data: bytes


class StatusReply(message.ReadResponse, _Status):
    _COMMAND_ID = 7


class StatusRead(message.ReadRequest, _Request):
    _COMMAND_ID = 7
    _Response = StatusReply


class AbortReply(message.WriteResponse, _Status):
    _COMMAND_ID = 8


class Abort(message.WriteRequest, _Request):
    _COMMAND_ID = 8
    _Response = AbortReply


class CommitReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 9
    slot: int
    commits: int


class Commit(message.WriteRequest, _Request):
    _COMMAND_ID = 9
    _Response = CommitReply
    sha: bytes


class ProgramReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 10
    off: int


class ProgramWrite(message.WriteRequest, _Request):
    _COMMAND_ID = 10
    _Response = ProgramReply
    off: int
    data: bytes
    len: int | None = None
    sha: bytes | None = None


class PredictReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 11
    off: int
    len: int | None = None
    data: bytes | None = None


class PredictWrite(message.WriteRequest, _Request):
    _COMMAND_ID = 11
    _Response = PredictReply
    off: int
    data: bytes


class PredictBlock(message.ReadResponse, _Reply):
    _COMMAND_ID = 11
    off: int
    len: int
    data: bytes


class PredictRead(message.ReadRequest, _Request):
    _COMMAND_ID = 11
    _Response = PredictBlock
    off: int
