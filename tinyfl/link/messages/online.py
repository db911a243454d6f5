"""Online learning on a board (firmware/SPEC.md, messages 19 to 27)."""

from typing import Annotated

from pydantic import Field
from smp import message

from tinyfl.link.messages import Block, BlockRead, Count, Hash, PieceReply, Reply, Request, Signed, Upload, Word, Words


class OnlineReply(PieceReply):
    _COMMAND_ID = 19


class OnlineWrite(Upload):
    _COMMAND_ID = 19
    _Response = OnlineReply


class OnlineState(message.ReadResponse, Reply):
    _COMMAND_ID = 19
    set: Hash
    record: Annotated[bytes, Field(max_length=92)] = b""
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


class OnlineRead(message.ReadRequest, Request):
    _COMMAND_ID = 19
    _Response = OnlineState
    first: int


class SampleReply(PieceReply):
    _COMMAND_ID = 20
    number: Count | None = None
    label: Count | None = None
    name: Word | None = None
    confidence: float | None = None
    score: float | None = None
    learnt: Count | None = None


class Sample(message.WriteRequest, Request):
    _COMMAND_ID = 20
    _Response = SampleReply
    number: int
    off: int
    data: bytes


class LabelReply(message.WriteResponse, Reply):
    _COMMAND_ID = 21
    outputs: Count
    loss: float


class Label(message.WriteRequest, Request):
    _COMMAND_ID = 21
    _Response = LabelReply
    sample: int
    label: int | None = None
    name: str | None = None
    data: bytes | None = None


class ForgetOutputReply(message.WriteResponse, Reply):
    _COMMAND_ID = 22
    outputs: Count


class ForgetOutput(message.WriteRequest, Request):
    _COMMAND_ID = 22
    _Response = ForgetOutputReply
    number: int | None = None
    outputs: int | None = None


class LearntReply(PieceReply):
    _COMMAND_ID = 23


class LearntWrite(Upload):
    _COMMAND_ID = 23
    _Response = LearntReply


class LearntBlock(Block):
    _COMMAND_ID = 23


class LearntRead(BlockRead):
    _COMMAND_ID = 23
    _Response = LearntBlock


class OnlineCommitReply(message.WriteResponse, Reply):
    _COMMAND_ID = 24
    commits: Count


class OnlineCommit(message.WriteRequest, Request):
    _COMMAND_ID = 24
    _Response = OnlineCommitReply


class RollBackReply(message.WriteResponse, Reply):
    _COMMAND_ID = 25
    samples: Count


class RollBack(message.WriteRequest, Request):
    _COMMAND_ID = 25
    _Response = RollBackReply


class HeadReply(PieceReply):
    _COMMAND_ID = 26


class HeadWrite(Upload):
    _COMMAND_ID = 26
    _Response = HeadReply


class HeadBlock(Block):
    _COMMAND_ID = 26


class HeadRead(BlockRead):
    _COMMAND_ID = 26
    _Response = HeadBlock


class ListenReply(message.WriteResponse, Reply):
    _COMMAND_ID = 27
    samples: Count


class Listen(message.WriteRequest, Request):
    _COMMAND_ID = 27
    _Response = ListenReply
    source: str
    samples: int
    labels: int
