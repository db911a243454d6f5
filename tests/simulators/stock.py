"""A client of the outside world: smpclient as it is installed, and a request class on top of smp for tinyfl's group."""

import asyncio
from typing import Any

import smp.error
import smp.message
from serial.urlhandler import protocol_socket
from smpclient import SMPClient
from smpclient.exceptions import SMPBadSequence
from smpclient.generics import success
from smpclient.requests.os_management import EchoWrite, MCUMgrParametersRead
from smpclient.transport.serial import Cobs, SMPSerialRawTransport

GROUP = 65


class _ErrorV1(smp.error.ErrorV1):
    _GROUP_ID = GROUP


class _ErrorV2(smp.error.ErrorV2[smp.error.MGMT_ERR]):
    _GROUP_ID = GROUP


class DescribeReply(smp.message.ReadResponse):
    _GROUP_ID, _COMMAND_ID = GROUP, 0
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
    store: int
    inference: bytes
    inner: list[str]
    areas: int
    classes: list[str]
    online: list[str]
    down: list[str]
    sensors: list[dict[str, Any]]


class Describe(smp.message.ReadRequest):
    _GROUP_ID, _COMMAND_ID = GROUP, 0
    _ErrorV1, _ErrorV2, _Response = _ErrorV1, _ErrorV2, DescribeReply


class _Socket(protocol_socket.Serial):  # type: ignore[misc]
    out_waiting = 0

    def read_all(self) -> bytes:
        return bytes(self.read(1 << 16))


class TcpTransport(SMPSerialRawTransport):
    """The same over ``socket://``: the framing is the transport's own."""

    async def connect(self, address: str, timeout_s: float) -> None:
        self._conn = _Socket(address, timeout=0)  # type: ignore[misc]


def client(url: str) -> SMPClient:
    transport = TcpTransport if url.startswith("socket:") else SMPSerialRawTransport
    return SMPClient(transport(1024, framing=Cobs()), url, 5)


async def _ask(url: str, *requests: Any) -> list[Any]:
    async with client(url) as connected:
        # A board may still be booting, and what comes before its UART is on is lost; or it answers late.
        for attempt in range(20):
            try:
                await connected.request(EchoWrite(d="hello"))
                break
            except (TimeoutError, SMPBadSequence):
                assert attempt < 19, f"nothing answers at {url}"
        return [await connected.request(request, 20) for request in requests]


def ask(url: str, *requests: Any) -> list[Any]:
    """The board's answers, all of them successes."""
    answers = asyncio.run(_ask(url, *requests))
    assert all(success(answer) for answer in answers), answers
    return answers


def demand_a_board(url: str, board: str, serial_number: int) -> None:
    """Echo, parameters and description are as SPEC.md has them."""
    echo, parameters, described = ask(url, EchoWrite(d="über"), MCUMgrParametersRead(), Describe())
    assert echo.r == "über"
    assert (parameters.buf_size, parameters.buf_count) == (1024, 4)
    assert (described.protocol, described.board, described.buffer) == (4, board, 1024)
    assert described.id == serial_number.to_bytes(8, "big")
