"""Single devices whose answers a test makes up, and what an aggregator makes of them."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from flwr.app import Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy

from tinyfl.algorithms import State, Updates
from tinyfl.algorithms.fedavg import FedAvg
from tinyfl.config import Config, resolve
from tinyfl.core import F32
from tinyfl.flower.grid import FleetAddresses, FleetGrid
from tinyfl.flower.messages import theta_record
from tinyfl.flower.strategy import FleetStrategy
from tinyfl.networks import network
from tinyfl.simulators.native import NativeFleet
from tinyfl.tasks import load_task

logging.getLogger("flwr").setLevel(logging.ERROR)

TASK = load_task("sine", None, 3)
NET = network("mlp-8", TASK.shape, TASK.outputs, TASK.loss, TASK.activation)
FLEET = NativeFleet(TASK, NET, 40)
START = NET.initial_weights(0)
FOLLOW = FedAvg(samples=16, batch=1, rate=0.02)  # an outer step of 1: the new theta is the aggregator's phi


class Answers(FleetAddresses):
    """Single devices that answer with what they are given, in any order."""

    def __init__(self, contents: Sequence[RecordDict]) -> None:
        FleetGrid(FLEET)  # sets the identity that messages ask for
        self.contents, self.nodes = contents, len(contents)

    def devices_at(self, node: int) -> range:
        return range(node - 1, node)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return [Message(self.contents[m.metadata.dst_node_id - 1], reply_to=m) for m in messages]


def content(phi: np.ndarray, **metrics: Any) -> RecordDict:
    return RecordDict(
        {"arrays": theta_record(phi.astype(np.float32)), "metrics": MetricRecord({"num-examples": 16, "loss": 1.0, **metrics})}
    )


def aggregated(strategy: Strategy | None, theta: F32, contents: Sequence[RecordDict], rounds: int = 1) -> tuple[F32, Updates]:
    """theta after rounds on devices that answer with ``contents``, and the last round's updates."""
    seen: list[Updates] = []
    ours = FleetStrategy(
        FOLLOW, State(0, theta), cohort=len(contents), fleet_size=len(contents), seed=0, each_device=True, aggregator=strategy,
        on_round=lambda _, updates: seen.append(updates),
    )  # fmt: skip
    ours.start(Answers(contents), theta_record(theta), num_rounds=rounds)
    return ours.state.theta, seen[-1]


def config(**options: Any) -> Config:
    return resolve({"task": "sine", "nodes": "devices", "devices": 40, "cohort": 20, **options})


def phis(count: int, seed: int = 0, parameters: int = 30) -> tuple[F32, F32]:
    """A theta and what ``count`` devices made of it."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(0, 1, parameters).astype(np.float32)
    return theta, (theta + rng.normal(0, 0.3, (count, parameters))).astype(np.float32)
