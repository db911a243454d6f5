"""What boards' lines carry, by part of a round: all of it, once."""

import asyncio
import json
import math
import os
from collections import Counter
from typing import Any

import numpy as np
import pytest
from double import Double
from flwr.app import ConfigRecord, RecordDict

from tinyfl.algorithms import Inner
from tinyfl.codecs import Codec
from tinyfl.fleet import PARTS, Carried, MixedFleet, carried
from tinyfl.fleets.linked import LinkFleet
from tinyfl.flower.lines import LINE, line_record, read_line
from tinyfl.link.wire import MachineWire, SerialWire, Wire
from tinyfl.networks import network
from tinyfl.runs.records import LineRecord
from tinyfl.simulators.faults import Fault, faulty
from tinyfl.simulators.native import NativeFleet
from tinyfl.tasks.sine import Sine

TASK = Sine(3)
NETWORK = network("mlp-9-9", (1,), 1, TASK.loss, TASK.activation)
THETA = NETWORK.initial_weights(3)
INNER = Inner(samples=9, rate=0.02).sent_as(Codec.named("int4"))
BAUD = 115_200


class Line:
    """A board's wire with a baud rate, which counts its bytes."""

    def __init__(self, rate: int, id: int = 1) -> None:
        self.rate, self.patience, self.bytes = rate, math.inf, Counter[str]()
        self._machine = MachineWire(Double(bytes([id])))

    async def open(self) -> Wire:
        await self._machine.open()
        return self

    async def send(self, data: bytes) -> None:
        self.bytes["sent"] += len(data)
        await self._machine.send(data)

    async def receive(self) -> bytes:
        data = await self._machine.receive()
        self.bytes["received"] += len(data)
        return data

    async def close(self) -> None:
        await self._machine.close()


def rounds(fleet: Any, cohort: list[int], count: int) -> None:
    for round in range(count):
        assert fleet.run_each(np.array(cohort, np.uint32), round, THETA, INNER).reasons == ("",) * len(cohort)


def test_the_parts_of_rounds_add_up_to_all_bytes_on_the_lines() -> None:
    lines = [Line(BAUD), Line(BAUD, 2)]
    with LinkFleet([line.open for line in lines], TASK, NETWORK) as fleet:
        rounds(fleet, [0, 1], 3)
        parts = fleet.carried()
        assert fleet.carried() == {}
    assert tuple(parts) == PARTS
    assert {part.times for part in parts.values()} == {6}
    for way in ("sent", "received"):
        assert sum(getattr(part, way) for part in parts.values()) == sum(line.bytes[way] for line in lines)
    for name, busier in {"find": "received", "down": "sent", "up": "received"}.items():
        assert parts[name].at_rate == pytest.approx(10 * getattr(parts[name], busier) / BAUD)
        assert parts[name].seconds > 0
    assert parts["down"].sent > 3 * 2 * 4 * NETWORK.parameters > 4 * parts["up"].received


def test_a_part_that_a_fault_ends_is_counted_and_so_is_a_repetition() -> None:
    lossy, silent = [Fault("to-board", 3, "drop")], [Fault("to-host", 4, "silence")]
    calm, disturbed, dead = (
        LinkFleet([opener], TASK, NETWORK)
        for opener in (Line(0).open, faulty(Line(0).open, lossy), faulty(Line(0).open, silent))
    )
    with calm, disturbed, dead:
        for fleet in (calm, disturbed):
            rounds(fleet, [0], 1)
        assert sum(part.sent for part in disturbed.carried().values()) > sum(part.sent for part in calm.carried().values())
        assert dead.run_each(np.zeros(1, np.uint32), 0, THETA, INNER).reasons == ("dead",)
        assert 1 < len(dead.carried()) < len(PARTS)


def test_a_line_without_a_rate_has_no_share_nor_have_lines_of_both_kinds() -> None:
    lines = [Line(BAUD), Line(0, 2)]
    linked = LinkFleet([line.open for line in lines], TASK, NETWORK)
    with linked:
        mixed = MixedFleet([linked, NativeFleet(TASK, NETWORK, 1, first=2)])
        rounds(mixed, [0, 1, 2], 1)
        down = mixed.carried()["down"]
    assert (down.times, math.isnan(down.at_rate)) == (2, True)
    assert LineRecord.of(down).at_rate is None
    assert carried([NativeFleet(TASK, NETWORK, 1)]) == {}


def test_a_pty_has_no_rate() -> None:
    async def script(path: str) -> int:
        wire = await SerialWire.open(path, BAUD)
        await wire.close()
        return wire.rate

    controller, pty = os.openpty()
    assert asyncio.run(script(os.ttyname(pty))) == 0
    os.close(controller)
    os.close(pty)


def test_a_gateway_says_what_its_lines_carried_and_a_liar_says_nothing() -> None:
    told = {"down": Carried(2, 900, 80, 0.5, 0.25), "up": Carried(2, 30, 500, 0.25, math.nan)}
    there = read_line(RecordDict({LINE: line_record(told)}))
    assert repr(there) == repr(told)
    assert read_line(RecordDict()) == {}
    good = {"times": 1, "sent": 1, "received": 1, "seconds": 1.0, "at_rate": None}
    assert read_line(RecordDict({LINE: ConfigRecord({"json": json.dumps({"down": good})})}))
    for lie in (
        {"sideways": good}, {"down": {**good, "sent": -1}}, {"down": {**good, "seconds": "1"}}, {"down": {"sent": 1}},
        {"down": {**good, "seconds": -1.0}}, {"down": {**good, "sent": 1 << 100}}, {"down": {**good, "more": "x" * 3000}},
        [good],
    ):  # fmt: skip
        assert read_line(RecordDict({LINE: ConfigRecord({"json": json.dumps(lie)})})) == {}, lie
    for record in ({"json": "NaN"}, {"json": b"\xff"}, {"other": 1}, {"json": [1, 2]}):
        assert read_line(RecordDict({LINE: ConfigRecord(record)})) == {}, record
