"""The messages of tinyfl's group 65, exactly as in firmware/SPEC.md (wire): ``smp`` encodes, ``smpclient`` frames them.

Only ``answer`` turns a board's bytes into a message, and it enforces the bounds of the fields.
"""

from enum import IntEnum
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from smp import error, message
from smp.header import Header
from smpclient.generics import SMPRequest, TEr1, TEr2, TRep

from tinyfl.errors import Corrupt
from tinyfl.link import cbor

GROUP = 65

PROTOCOL = 4
"""The version of these messages, reported in ``describe``."""

CORE = 1
"""The version of the arithmetic, reported in ``describe``."""


class Refusal(IntEnum):
    """A board's reason for refusing a request."""

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
    Refusal.state: "wrong state: no plan, no weights, no program, or a round in progress",
    Refusal.stale: "stale: the board's weights do not have the hash of this round's base",
    Refusal.hash: "the received data do not have the announced hash",
    Refusal.numeric: "the guard: a value is not finite, or too large",
    Refusal.size: "the reply does not fit into the buffer",
    Refusal.flash: "the slot could not be erased or written",
    Refusal.source: "no source has this name, or it failed",
}
"""Explanations of each refusal (firmware/SPEC.md)."""


def _hash(data: bytes) -> bytes:
    if len(data) not in (0, 32):
        raise ValueError("a hash must have 32 bytes, or none")
    return data


Count = Annotated[int, Field(ge=0, lt=1 << 32)]
Byte = Annotated[int, Field(ge=0, lt=1 << 8)]
Signed = Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)]
Buffer = Annotated[int, Field(ge=512, le=Header.SIZE + 0xFFFF)]
"""From SPEC.md's minimum to the maximum of a header's length field."""
Word = Annotated[str, Field(max_length=256)]
Words = Annotated[list[Word], Field(max_length=64)]
Id = Annotated[bytes, Field(min_length=1, max_length=16)]
Hash = Annotated[bytes, AfterValidator(_hash)]


class _ErrorV1(error.ErrorV1):
    _GROUP_ID = GROUP


class _ErrorV2(error.ErrorV2[Refusal]):
    _GROUP_ID = GROUP


class _Reply:
    """Unknown keys are ignored; values are not converted between types."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)
    _GROUP_ID: ClassVar[int] = GROUP


class _Request:
    _GROUP_ID: ClassVar[int] = GROUP
    _ErrorV1 = _ErrorV1
    _ErrorV2 = _ErrorV2


class _Upload(message.WriteRequest, _Request):
    """A block of an upload from ``off`` on; the first has the length and the SHA-256 of the whole."""

    off: int
    data: bytes
    len: int | None = None
    sha: bytes | None = None


class _BlockRead(message.ReadRequest, _Request):
    """Asks for a block from ``off`` on."""

    off: int


class SensorRecord(BaseModel):
    """What a board declares of a sensor."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)
    name: Word
    type: Word
    channels: Byte
    rate: float
    shape: Annotated[list[Annotated[int, Field(ge=1, lt=1 << 16)]], Field(min_length=1, max_length=3)]
    outputs: Annotated[int, Field(ge=1, lt=1 << 16)]
    loss: Byte
    labels: Word
    deadline: Count


class DescribeReply(message.ReadResponse, _Reply):
    _COMMAND_ID = 0
    protocol: Count
    firmware: Word
    core: Count
    board: Word
    id: Id
    clock: Count
    arena: Count
    buffer: Buffer
    window: Count
    slot: Count
    layers: Words
    dtypes: Words
    sources: Words
    plan: Hash
    model: Hash
    store: Count = 0
    """This and the next since protocol 2; the default lets a board of protocol 1 be decoded, and refused for its version."""
    inference: Hash = b""
    inner: Words = Field(default=[], max_length=64)
    """Since protocol 3; the default is for older boards too."""
    areas: Count = 0
    classes: Words = Field(default=[], max_length=64)
    online: Words = Field(default=[], max_length=64)
    """These two since protocol 4."""
    down: Words = Field(default=[], max_length=64)
    """In protocol 4, but not of its first boards, as the next and the status' `late`, `drifts` and `wanted`."""
    sensors: list[SensorRecord] = Field(default=[], max_length=64)


class Describe(message.ReadRequest, _Request):
    _COMMAND_ID = 0
    _Response = DescribeReply


class PlanReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 1
    off: Count


class PlanWrite(_Upload):
    _COMMAND_ID = 1
    _Response = PlanReply


class WeightsReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 2
    off: Count


class WeightsWrite(_Upload):
    _COMMAND_ID = 2
    _Response = WeightsReply
    codec: int | None = None
    onto: bytes | None = None


class WeightsBlock(message.ReadResponse, _Reply):
    _COMMAND_ID = 2
    off: Count
    len: Count
    data: bytes


class WeightsRead(_BlockRead):
    _COMMAND_ID = 2
    _Response = WeightsBlock


class _Status(_Reply):
    state: Byte
    round: Count
    base: Hash
    done: Count
    loss: float
    code: Signed
    weights: Hash
    kept: Count = 0
    stack: Count
    late: Count = 0
    drifts: Count = 0
    wanted: Count = 0


class TrainReply(message.WriteResponse, _Status):
    _COMMAND_ID = 3


class Train(message.WriteRequest, _Request):
    _COMMAND_ID = 3
    _Response = TrainReply
    round: int
    device: int
    seed: int
    inner: bytes
    base: bytes
    source: str
    run: int
    saved: int


class SamplesReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 4
    off: Count


class SamplesWrite(message.WriteRequest, _Request):
    _COMMAND_ID = 4
    _Response = SamplesReply
    off: int
    data: bytes


class EvaluateReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 5
    off: Count
    samples: Count
    loss: float
    right: Count


class EvaluateWrite(message.WriteRequest, _Request):
    _COMMAND_ID = 5
    _Response = EvaluateReply
    off: int
    data: bytes


class InferReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 6
    off: Count
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
    slot: Count
    commits: Count


class Commit(message.WriteRequest, _Request):
    _COMMAND_ID = 9
    _Response = CommitReply
    sha: bytes


class ProgramReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 10
    off: Count


class ProgramWrite(_Upload):
    _COMMAND_ID = 10
    _Response = ProgramReply


class PredictReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 11
    off: Count
    len: Count | None = None
    data: bytes | None = None


class PredictWrite(message.WriteRequest, _Request):
    _COMMAND_ID = 11
    _Response = PredictReply
    off: int
    data: bytes


class PredictBlock(message.ReadResponse, _Reply):
    _COMMAND_ID = 11
    off: Count
    len: Count
    data: bytes


class PredictRead(_BlockRead):
    _COMMAND_ID = 11
    _Response = PredictBlock


class SenseReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 18
    code: Signed
    late: Count
    taken: Count = 0
    off: Count | None = None
    """Of a sample: off and len, with as much of its data as fits; of readings their data alone."""
    len: Count | None = None
    data: bytes | None = None
    loss: float | None = None
    """This and the next two of a sample that is measured."""
    right: Count | None = None
    best: Count | None = None


class SenseWrite(message.WriteRequest, _Request):
    _COMMAND_ID = 18
    _Response = SenseReply
    source: str
    readings: int
    measure: int
    at: int | None = None


class SenseBlock(message.ReadResponse, _Reply):
    _COMMAND_ID = 18
    off: Count
    len: Count
    data: bytes


class SenseRead(_BlockRead):
    _COMMAND_ID = 18
    _Response = SenseBlock


Total = Annotated[int, Field(ge=0, le=64)]
"""Of classes in a set."""


class ClassesReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 12
    off: Count


class ClassesWrite(_Upload):
    _COMMAND_ID = 12
    _Response = ClassesReply


class ClassesList(message.ReadResponse, _Reply):
    _COMMAND_ID = 12
    set: Hash
    places: Total
    next: Total
    numbers: Annotated[list[Count], Field(max_length=64)]
    counts: Annotated[list[Count], Field(max_length=64)]
    names: Words


class ClassesRead(message.ReadRequest, _Request):
    _COMMAND_ID = 12
    _Response = ClassesList
    first: int


class EnrolReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 13
    off: Count
    count: Count | None = None


class Enrol(message.WriteRequest, _Request):
    _COMMAND_ID = 13
    _Response = EnrolReply
    number: int
    count: int
    off: int
    data: bytes
    name: str | None = None


class ClassifyReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 14
    off: Count
    number: Signed | None = None
    distance: float | None = None
    name: Word | None = None


class Classify(message.WriteRequest, _Request):
    _COMMAND_ID = 14
    _Response = ClassifyReply
    off: int
    data: bytes


class ForgetReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 15
    left: Total


class Forget(message.WriteRequest, _Request):
    _COMMAND_ID = 15
    _Response = ForgetReply
    number: int | None = None


class ClassesCommitReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 16
    commits: Count


class ClassesCommit(message.WriteRequest, _Request):
    _COMMAND_ID = 16
    _Response = ClassesCommitReply


class RatesReply(message.ReadResponse, _Reply):
    _COMMAND_ID = 17
    baud: Count
    rates: Annotated[list[Count], Field(max_length=64)]


class RatesRead(message.ReadRequest, _Request):
    _COMMAND_ID = 17
    _Response = RatesReply


class RateReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 17
    baud: Count


class RateWrite(message.WriteRequest, _Request):
    _COMMAND_ID = 17
    _Response = RateReply
    baud: int


class OnlineReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 19
    off: Count


class OnlineWrite(_Upload):
    _COMMAND_ID = 19
    _Response = OnlineReply


class OnlineState(message.ReadResponse, _Reply):
    _COMMAND_ID = 19
    set: Hash
    samples: Count
    labels: Count
    confidence: float
    error: float
    drifts: Count
    drifted: Count
    wanted: Count = 0
    source: Word = ""
    code: Signed = 0
    outputs: Count
    places: Count
    next: Count
    counts: Annotated[list[Count], Field(max_length=64)]
    names: Words


class OnlineRead(message.ReadRequest, _Request):
    _COMMAND_ID = 19
    _Response = OnlineState
    first: int


class SampleReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 20
    off: Count
    number: Count | None = None
    label: Count | None = None
    name: Word | None = None
    confidence: float | None = None
    score: float | None = None
    learnt: Count | None = None


class Sample(message.WriteRequest, _Request):
    _COMMAND_ID = 20
    _Response = SampleReply
    number: int
    off: int
    data: bytes


class LabelReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 21
    outputs: Count
    loss: float


class Label(message.WriteRequest, _Request):
    _COMMAND_ID = 21
    _Response = LabelReply
    sample: int
    label: int | None = None
    name: str | None = None
    data: bytes | None = None


class ForgetOutputReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 22
    outputs: Count


class ForgetOutput(message.WriteRequest, _Request):
    _COMMAND_ID = 22
    _Response = ForgetOutputReply
    number: int | None = None
    outputs: int | None = None


class LearntReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 23
    off: Count


class LearntWrite(_Upload):
    _COMMAND_ID = 23
    _Response = LearntReply


class LearntBlock(message.ReadResponse, _Reply):
    _COMMAND_ID = 23
    off: Count
    len: Count
    data: bytes


class LearntRead(_BlockRead):
    _COMMAND_ID = 23
    _Response = LearntBlock


class OnlineCommitReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 24
    commits: Count


class OnlineCommit(message.WriteRequest, _Request):
    _COMMAND_ID = 24
    _Response = OnlineCommitReply


class RollBackReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 25
    samples: Count


class RollBack(message.WriteRequest, _Request):
    _COMMAND_ID = 25
    _Response = RollBackReply


class HeadReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 26
    off: Count


class HeadWrite(_Upload):
    _COMMAND_ID = 26
    _Response = HeadReply


class HeadBlock(message.ReadResponse, _Reply):
    _COMMAND_ID = 26
    off: Count
    len: Count
    data: bytes


class HeadRead(_BlockRead):
    _COMMAND_ID = 26
    _Response = HeadBlock


class ListenReply(message.WriteResponse, _Reply):
    _COMMAND_ID = 27
    samples: Count


class Listen(message.WriteRequest, _Request):
    _COMMAND_ID = 27
    _Response = ListenReply
    source: str
    samples: int
    labels: int


_OWN = message.Response.model_fields.keys()
"""smp's own fields in a message."""


def answer(request: SMPRequest[TRep, TEr1, TEr2], data: bytes) -> TRep | TEr1 | TEr2:
    """Decodes ``data`` as the reply to ``request``, or as an error; its header is already checked.

    Raises Corrupt for malformed data.
    """
    try:
        fields = cbor.decode(data[Header.SIZE :])
        kind: Any = request._ErrorV2 if "err" in fields else request._ErrorV1 if fields.get("rc") else request._Response
        known = {key: fields[key] for key in kind.model_fields.keys() & fields.keys() - _OWN}
        reply: TRep | TEr1 | TEr2 = kind(header=Header.loads(data[: Header.SIZE]), smp_data=data, **known)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise Corrupt(f"the board's answer to {type(request).__name__} cannot be read: {field}: {first['msg']}.") from error
    except ValueError as error:
        raise Corrupt(f"the board's answer to {type(request).__name__} cannot be read: {error}.") from error
    return reply
