"""A round: plan, weights, training, samples, evaluation, status, abort (firmware/SPEC.md, messages 1 to 5, 7 and 8)."""

from smp import message

from tinyfl.link.messages import Block, BlockRead, Byte, Count, Hash, Piece, PieceReply, Reply, Request, Signed, Upload


class PlanReply(PieceReply):
    _COMMAND_ID = 1


class PlanWrite(Upload):
    _COMMAND_ID = 1
    _Response = PlanReply


class WeightsReply(PieceReply):
    _COMMAND_ID = 2


class WeightsWrite(Upload):
    _COMMAND_ID = 2
    _Response = WeightsReply
    codec: int | None = None
    onto: bytes | None = None


class WeightsBlock(Block):
    _COMMAND_ID = 2


class WeightsRead(BlockRead):
    _COMMAND_ID = 2
    _Response = WeightsBlock


class _Status(Reply):
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


class Train(message.WriteRequest, Request):
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


class SamplesReply(PieceReply):
    _COMMAND_ID = 4


class SamplesWrite(Piece):
    _COMMAND_ID = 4
    _Response = SamplesReply


class EvaluateReply(PieceReply):
    _COMMAND_ID = 5
    samples: Count
    loss: float
    right: Count


class EvaluateWrite(Piece):
    _COMMAND_ID = 5
    _Response = EvaluateReply


class StatusReply(message.ReadResponse, _Status):
    _COMMAND_ID = 7


class StatusRead(message.ReadRequest, Request):
    _COMMAND_ID = 7
    _Response = StatusReply


class AbortReply(message.WriteResponse, _Status):
    _COMMAND_ID = 8


class Abort(message.WriteRequest, Request):
    _COMMAND_ID = 8
    _Response = AbortReply
