"""Sets of classes: enrolment and classification (firmware/SPEC.md, messages 12 to 16)."""

from typing import Annotated

from pydantic import Field
from smp import message

from tinyfl.link.messages import Count, Hash, Piece, PieceReply, Reply, Request, Signed, Upload, Word, Words

Total = Annotated[int, Field(ge=0, le=64)]


class ClassesReply(PieceReply):
    _COMMAND_ID = 12


class ClassesWrite(Upload):
    _COMMAND_ID = 12
    _Response = ClassesReply


class ClassesList(message.ReadResponse, Reply):
    _COMMAND_ID = 12
    set: Hash
    places: Total
    next: Total
    numbers: Annotated[list[Count], Field(max_length=64)]
    counts: Annotated[list[Count], Field(max_length=64)]
    names: Words


class ClassesRead(message.ReadRequest, Request):
    _COMMAND_ID = 12
    _Response = ClassesList
    first: int


class EnrolReply(PieceReply):
    _COMMAND_ID = 13
    count: Count | None = None


class Enrol(message.WriteRequest, Request):
    _COMMAND_ID = 13
    _Response = EnrolReply
    number: int
    count: int
    off: int
    data: bytes
    name: str | None = None


class ClassifyReply(PieceReply):
    _COMMAND_ID = 14
    number: Signed | None = None
    distance: float | None = None
    name: Word | None = None


class Classify(Piece):
    _COMMAND_ID = 14
    _Response = ClassifyReply


class ForgetReply(message.WriteResponse, Reply):
    _COMMAND_ID = 15
    left: Total


class Forget(message.WriteRequest, Request):
    _COMMAND_ID = 15
    _Response = ForgetReply
    number: int | None = None


class ClassesCommitReply(message.WriteResponse, Reply):
    _COMMAND_ID = 16
    commits: Count


class ClassesCommit(message.WriteRequest, Request):
    _COMMAND_ID = 16
    _Response = ClassesCommitReply
