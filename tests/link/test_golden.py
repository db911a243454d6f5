"""The host's messages, smpclient's frames and the board written from SPEC.md, against firmware/vectors.toml."""

import tomllib
from typing import Any

import cbor2
import pytest
from double import Double
from smpclient.requests.os_management import EchoWrite, MCUMgrParametersRead
from smpclient.transport.serial import Cobs

from tinyfl.building import boards
from tinyfl.link.messages import about, classes, models, rounds

VECTORS: list[dict[str, str]] = tomllib.loads((boards.data("firmware") / "vectors.toml").read_text())["exchange"]
KINDS: dict[tuple[int, int, int], Any] = {
    (2, 0, 0): EchoWrite,
    (0, 0, 6): MCUMgrParametersRead,
    **{
        (int(kind._OP), 65, int(kind._COMMAND_ID)): kind
        for kind in (
            about.Describe, rounds.PlanWrite, rounds.WeightsWrite, rounds.WeightsRead, rounds.Train,
            rounds.SamplesWrite, rounds.EvaluateWrite, models.InferWrite, rounds.StatusRead, rounds.Abort,
            models.Commit, models.ProgramWrite, models.PredictWrite, models.PredictRead, classes.ClassesWrite,
            classes.ClassesRead, classes.Enrol, classes.Classify, classes.Forget, classes.ClassesCommit,
            about.RatesRead, about.RateWrite,
        )
    },
}  # fmt: skip


def unframed(frame: str) -> bytes:
    cobs = Cobs()
    cobs.feed(bytes.fromhex(frame))
    message = cobs.take()
    assert message is not None
    return message


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["what"] for vector in VECTORS])
def test_the_hosts_messages_have_these_bytes_and_read_these_replies(vector: dict[str, str]) -> None:
    request, reply = unframed(vector["request"]), unframed(vector["reply"])
    kind = KINDS.get((request[0] & 7, int.from_bytes(request[4:6]), request[7]))
    fields = cbor2.loads(request[8:])
    if kind is None:
        assert cbor2.loads(reply[8:]) == {"rc": 8}
        return
    made = kind(sequence=request[6], **fields)
    assert request == made.BYTES
    assert b"".join(Cobs().encode(made.BYTES)).hex() == vector["request"]
    answer = cbor2.loads(reply[8:])
    if "err" in answer:
        assert made._ErrorV2.loads(reply).err.rc == answer["err"]["rc"]
    else:
        read = made._Response.loads(reply)
        assert all(getattr(read, key) == value for key, value in answer.items())


def test_a_board_written_from_the_spec_answers_the_same() -> None:
    board = Double(buffer=1024)
    for vector in VECTORS:
        reply = board.exchange(bytes.fromhex(vector["request"])).hex()
        if vector["what"] != "describe":  # it has another name
            assert reply == vector["reply"], vector["what"]
