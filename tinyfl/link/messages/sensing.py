"""A board's sensors (firmware/SPEC.md, message 18)."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from smp import message

from tinyfl.link.messages import Block, BlockRead, Byte, Count, Reply, Request, Signed, Word


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


class SenseReply(message.WriteResponse, Reply):
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


class SenseWrite(message.WriteRequest, Request):
    _COMMAND_ID = 18
    _Response = SenseReply
    source: str
    readings: int
    measure: int
    at: int | None = None


class SenseBlock(Block):
    _COMMAND_ID = 18


class SenseRead(BlockRead):
    _COMMAND_ID = 18
    _Response = SenseBlock
