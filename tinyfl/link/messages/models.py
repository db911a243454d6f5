"""Models on a board: inference, programs, commits (firmware/SPEC.md, messages 6 and 9 to 11)."""

from smp import message

from tinyfl.link.messages import Block, BlockRead, Count, Reply, Request, Upload


class InferReply(message.WriteResponse, Reply):
    _COMMAND_ID = 6
    off: Count
    data: bytes | None = None


class InferWrite(message.WriteRequest, Request):
    _COMMAND_ID = 6
    _Response = InferReply
    off: int
    data: bytes


class CommitReply(message.WriteResponse, Reply):
    _COMMAND_ID = 9
    slot: Count
    commits: Count


class Commit(message.WriteRequest, Request):
    _COMMAND_ID = 9
    _Response = CommitReply
    sha: bytes


class ProgramReply(message.WriteResponse, Reply):
    _COMMAND_ID = 10
    off: Count


class ProgramWrite(Upload):
    _COMMAND_ID = 10
    _Response = ProgramReply


class PredictReply(message.WriteResponse, Reply):
    _COMMAND_ID = 11
    off: Count
    len: Count | None = None
    data: bytes | None = None


class PredictWrite(message.WriteRequest, Request):
    _COMMAND_ID = 11
    _Response = PredictReply
    off: int
    data: bytes


class PredictBlock(Block):
    _COMMAND_ID = 11


class PredictRead(BlockRead):
    _COMMAND_ID = 11
    _Response = PredictBlock
