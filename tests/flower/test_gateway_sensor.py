"""A gateway's boards learn from their own sensors, as simulated devices on the same readings do."""

import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Error, MessageType, RecordDict

sys.path.insert(0, str(Path(__file__).parents[1] / "sensors"))
from imu import write_readings, write_source

from tinyfl.algorithms import Inner
from tinyfl.config.roster import Part
from tinyfl.deployment.gateway import Gateway
from tinyfl.fleets.assembly import opened
from tinyfl.flower.allowed import read_allowed
from tinyfl.flower.messages import instructions, network_record, theta_record
from tinyfl.flower.settings import to_run_config
from tinyfl.networks import network
from tinyfl.networks.layers import Activation, Loss

NET = network("mlp-4", (10, 3, 1), 3, Loss.softmax_cross_entropy, Activation.relu)
THETA = NET.initial_weights(3)


@pytest.mark.slow
def test_sums_of_two_gateways_with_boards_are_that_of_simulated_devices(tmp_path: Path) -> None:
    source, readings = write_source(tmp_path / "imu.c"), str(write_readings(tmp_path / "readings.npz"))
    content = RecordDict({"arrays": theta_record(THETA), "network": network_record(NET)})
    content["config"] = instructions(Inner(samples=5, rate=0.05), cohort=4, fleet_size=4, seed=1, round=2, exact=True)
    config = to_run_config({"task": "sensor", "sensor": "imu", "seed": 1, "data": "/where/the/coordinator/is.npz"})

    def said(part: Part, first: int) -> Any:
        with opened([part], first, [source]) as site, closing(Gateway("lab", site, read_allowed(), tell=print)) as gateway:
            reply = gateway(MessageType.TRAIN, content, config)
        assert not isinstance(reply, Error)
        return np.frombuffer(reply.array_records["arrays"]["sum"].data, "<i8")

    kind = {"sensor": "imu", "readings": readings}
    boards = [said(Part(board="posix", count=2, **kind), first) for first in (0, 2)]
    native = [said(Part(native=2, **kind), first) for first in (0, 2)]
    np.testing.assert_array_equal(boards, native)
    assert (boards[0] != boards[1]).any()


@pytest.mark.parametrize("kind", ["native", "posix"])
def test_a_gateway_refuses_classes_in_another_order_than_its_sensors(tmp_path: Path, kind: str) -> None:
    source, readings = write_source(tmp_path / "imu.c"), str(write_readings(tmp_path / "readings.npz"))
    content = RecordDict({"arrays": theta_record(THETA)})
    content["config"] = instructions(Inner(samples=5, rate=0.05), cohort=1, fleet_size=1, seed=1, round=2, exact=True)
    config = to_run_config({"task": "sensor", "sensor": "imu", "seed": 1})
    part = Part(native=1) if kind == "native" else Part(board=kind)
    said: list[str] = []
    with opened([replace(part, sensor="imu", readings=readings)], 0, [source]) as site:
        for classes in (("rest", "shake", "walk"), ("rest", "walk", "shake")):
            content["network"] = network_record(NET, classes=classes)
            with closing(Gateway("lab", site, read_allowed(), tell=said.append)) as gateway:
                gateway(MessageType.TRAIN, content, config)
    assert "numbers its classes" not in said[0]
    assert "numbers its classes rest, shake, walk, and the run's data rest, walk, shake" in said[-1]
