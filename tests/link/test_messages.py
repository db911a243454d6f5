"""The messages against bytes written by hand from firmware/SPEC.md and RFC 8949."""

from binascii import crc_hqx

import cbor2
import pytest
from pydantic import ValidationError
from smpclient.transport.serial import Cobs

from tinyfl.link import messages
from tinyfl.link.messages import Refusal, about, models, rounds


def text(word: str) -> str:
    return f"{0x60 + len(word):02x}{word.encode().hex()}"


BASE = b"\xab" * 32
REQUESTS = [
    (about.Describe(sequence=5), "08000001 0041 05 00" "a0"),
    (rounds.StatusRead(sequence=255), "08000001 0041 ff 07" "a0"),
    (rounds.Abort(sequence=0), "0a000001 0041 00 08" "a0"),
    (rounds.WeightsRead(sequence=1, off=300), "08000008 0041 01 02" "a1" + text("off") + "19012c"),
    (
        rounds.PlanWrite(sequence=2, off=0, data=b"\1\2", len=2, sha=BASE),
        "0a000039 0041 02 01" "a4" + text("len") + "02" + text("off") + "00" + text("sha") + "5820" + BASE.hex()
        + text("data") + "420102",
    ),
    (
        rounds.WeightsWrite(sequence=3, off=24, data=b"\0"),
        "0a00000e 0041 03 02" "a2" + text("off") + "1818" + text("data") + "4100",
    ),
    (
        rounds.Train(
            sequence=4, round=7, device=70_000, seed=2**64 - 1, inner=b"\1\2", base=BASE, source="sine", run=2**63, saved=6,
        ),
        "0a000072 0041 04 03" "a8" + text("run") + "1b8000000000000000" + text("base") + "5820" + BASE.hex()
        + text("seed") + "1bffffffffffffffff" + text("inner") + "420102" + text("round") + "07" + text("saved") + "06"
        + text("device") + "1a00011170" + text("source") + text("sine"),
    ),
    *(
        (kind(sequence=6, off=0, data=b""), f"0a00000c 0041 06 {command:02x}" "a2" + text("off") + "00" + text("data") + "40")
        for command, kind in (
            (4, rounds.SamplesWrite), (5, rounds.EvaluateWrite), (6, models.InferWrite), (11, models.PredictWrite),
        )
    ),
    (
        models.ProgramWrite(sequence=7, off=0, data=b"\1", len=1, sha=BASE),
        "0a000038 0041 07 0a" "a4" + text("len") + "01" + text("off") + "00" + text("sha") + "5820" + BASE.hex()
        + text("data") + "4101",
    ),
    (models.PredictRead(sequence=9, off=1), "08000006 0041 09 0b" "a1" + text("off") + "01"),
    (models.Commit(sequence=8, sha=b"\1"), "0a000007 0041 08 09" "a1" + text("sha") + "4101"),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "expected"), REQUESTS, ids=lambda value: type(value).__name__)
def test_request_has_the_bytes_of_the_spec(request_, expected):
    assert request_.BYTES.hex() == expected.replace(" ", "")


def test_frame_is_that_of_mcuboot():
    message = about.Describe(sequence=0).BYTES
    crc = crc_hqx(message, 0).to_bytes(2)
    assert b"".join(Cobs().encode(message)) == bytes.fromhex("0208 01 0201 0241 01 04a0") + crc + b"\0"


def reply(operation: int, command: int, payload: bytes) -> bytes:
    return bytes([8 | operation, 0, 0, len(payload), 0, 65, 9, command]) + payload


def test_keys_of_a_newer_board_are_ignored():
    assert rounds.PlanReply.loads(reply(3, 1, cbor2.dumps({"off": 3, "colour": "red"}))).off == 3


def test_indefinite_maps_and_any_width_of_number_are_read():
    payload = bytes.fromhex("bf" + text("off") + "1b0000000000000003" + "ff")
    assert rounds.WeightsReply.loads(reply(3, 2, payload)).off == 3


def test_status_is_read_in_both_replies_that_carry_it():
    payload = cbor2.dumps(
        {"state": 4, "round": 1, "base": BASE, "done": 32, "loss": 0.25, "code": 0, "weights": BASE, "stack": 880}
    )
    for kind, operation, command in ((rounds.TrainReply, 3, 3), (rounds.StatusReply, 1, 7), (rounds.AbortReply, 3, 8)):
        status = kind.loads(reply(operation, command, payload))
        assert (status.state, status.done, status.loss, status.weights, status.stack) == (4, 32, 0.25, BASE, 880)


def test_commit_tells_slot_and_count():
    answer = models.CommitReply.loads(reply(3, 9, cbor2.dumps({"slot": 1, "commits": 12})))
    assert (answer.slot, answer.commits) == (1, 12)


def test_a_prediction_under_way_has_no_output_yet():
    assert models.PredictReply.loads(reply(3, 11, cbor2.dumps({"off": 4}))).data is None
    whole = models.PredictReply.loads(reply(3, 11, cbor2.dumps({"off": 4, "len": 9, "data": b"ab"})))
    assert (whole.off, whole.len, whole.data) == (4, 9, b"ab")


def test_refusals_are_read_and_every_one_has_words():
    for refusal in Refusal:
        payload = cbor2.dumps({"err": {"group": 65, "rc": int(refusal)}})
        assert rounds.PlanWrite._ErrorV2.loads(reply(3, 1, payload)).err.rc is refusal
        assert messages.REFUSED[refusal]


def test_a_refusal_is_no_reply():
    with pytest.raises(ValidationError):
        rounds.PlanReply.loads(reply(3, 1, cbor2.dumps({"err": {"group": 65, "rc": 5}})))


def test_errors_of_mcumgr_are_read():
    assert rounds.PlanWrite._ErrorV1.loads(reply(3, 1, cbor2.dumps({"rc": 8}))).rc.name == "ENOTSUP"
