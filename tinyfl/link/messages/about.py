"""Describe, and the rates of the line (firmware/SPEC.md, messages 0 and 17)."""

from typing import Annotated

from pydantic import Field
from smp import message

from tinyfl.link.messages import Buffer, Count, Hash, Id, Reply, Request, Word, Words
from tinyfl.link.messages.sensing import SensorRecord


class DescribeReply(message.ReadResponse, Reply):
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


class Describe(message.ReadRequest, Request):
    _COMMAND_ID = 0
    _Response = DescribeReply


class RatesReply(message.ReadResponse, Reply):
    _COMMAND_ID = 17
    baud: Count
    rates: Annotated[list[Count], Field(max_length=64)]


class RatesRead(message.ReadRequest, Request):
    _COMMAND_ID = 17
    _Response = RatesReply


class RateReply(message.WriteResponse, Reply):
    _COMMAND_ID = 17
    baud: Count


class RateWrite(message.WriteRequest, Request):
    _COMMAND_ID = 17
    _Response = RateReply
    baud: int
