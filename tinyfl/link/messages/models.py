"""Models on a board: inference, programs, commits (firmware/SPEC.md, messages 6 and 9 to 11)."""

from smp import message

from tinyfl.link.messages import Block, BlockRead, Count, Piece, PieceReply, Reply, Request, Upload


class InferReply(PieceReply):
    _COMMAND_ID = 6
    data: bytes | None = None


class InferWrite(Piece):
    _COMMAND_ID = 6
    _Response = InferReply


class CommitReply(message.WriteResponse, Reply):
    _COMMAND_ID = 9
    slot: Count
    commits: Count


class Commit(message.WriteRequest, Request):
    _COMMAND_ID = 9
    _Response = CommitReply
    sha: bytes


class ProgramReply(PieceReply):
    _COMMAND_ID = 10


class ProgramWrite(Upload):
    _COMMAND_ID = 10
    _Response = ProgramReply


class PredictReply(PieceReply):
    _COMMAND_ID = 11
    len: Count | None = None
    data: bytes | None = None


class PredictWrite(Piece):
    _COMMAND_ID = 11
    _Response = PredictReply


class PredictBlock(Block):
    _COMMAND_ID = 11


class PredictRead(BlockRead):
    _COMMAND_ID = 11
    _Response = PredictBlock
