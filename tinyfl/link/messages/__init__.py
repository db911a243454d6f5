"""The messages of tinyfl's group 65, exactly as in firmware/SPEC.md (wire): ``smp`` encodes, ``smpclient`` frames them.

Only ``answer`` turns a board's bytes into a message, and it enforces the bounds of the fields.
"""

from enum import IntEnum
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, ConfigDict, Field, ValidationError
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


class Reply:
    """Unknown keys are ignored; values are not converted between types."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)
    _GROUP_ID: ClassVar[int] = GROUP


class Request:
    _GROUP_ID: ClassVar[int] = GROUP
    _ErrorV1 = _ErrorV1
    _ErrorV2 = _ErrorV2


class Piece(message.WriteRequest, Request):
    """A part of a whole, from ``off`` on."""

    off: int
    data: bytes


class Upload(Piece):
    """A block of an upload; the first has the length and the SHA-256 of the whole."""

    len: int | None = None
    sha: bytes | None = None


class PieceReply(message.WriteResponse, Reply):
    """How much of the whole the board has, up to ``off``."""

    off: Count


class BlockRead(message.ReadRequest, Request):
    """Asks for a block from ``off`` on."""

    off: int


class Block(message.ReadResponse, Reply):
    """The block of a whole of ``len`` bytes that begins at ``off``."""

    off: Count
    len: Count
    data: bytes


"""Of classes in a set."""


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
