"""Flower's grid as a test sees it, with three nodes that share the fleet of 24, and what comes of rounds over it."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from fleet_of_24 import COHORT, FLEET, NET, ROUNDS, SIZE, THETA
from flwr.app import Error, Message, MessageType, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid

from tinyfl.algorithms import State
from tinyfl.algorithms.tinyreptile import TinyReptile
from tinyfl.flower.grid import FleetGrid
from tinyfl.flower.messages import shard_record, theta_record
from tinyfl.flower.node import answer, read_request
from tinyfl.flower.remote import RemoteGrid, call_roll
from tinyfl.flower.strategy import FleetStrategy


@dataclass
class FlakyGrid(Grid):
    """Nodes that answer at once, or never, or twice, or with an error, or after a restart.

    ``fate(node, message)`` says what becomes of a message: "well", "lost", "error", "twice", or "restart", which loses it and
    starts the node anew."""

    nodes: dict[int, Callable[[Message], RecordDict | Error]]
    fate: Callable[[int, Message], str] = lambda node, message: "well"
    replies: list[Message] = field(default_factory=list)
    pushed: int = 0
    started: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        FleetGrid(FLEET)  # gives this process the identity that Message() asks for
        self._numbers = itertools.count(1)

    def set_run(self, run: Any) -> None: ...

    @property
    def run(self) -> Any: ...

    def create_message(self, *_: Any, **__: Any) -> Any: ...

    def send_and_receive(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("waits without limit; push and pull instead")

    def get_node_ids(self) -> list[int]:
        return list(self.nodes)

    def get_nodes(self) -> list[NodeInfo]:
        return [NodeInfo(node_id=node, last_activated_at=str(self.started.get(node, 0))) for node in self.nodes]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            node, id = message.metadata.dst_node_id, f"message-{next(self._numbers)}"
            message.metadata.__dict__["_message_id"] = id
            self.pushed += 1
            ids.append(id)
            fate = self.fate(node, message)
            if fate == "restart":
                self.started[node] = self.started.get(node, 0) + 1
            if fate in ("lost", "restart"):
                continue
            said = Error(0, "the ClientApp raised") if fate == "error" else self.nodes[node](message)
            self.replies += [Message(said, reply_to=message)] * (2 if fate == "twice" else 1)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        wanted = set(message_ids)
        found = [reply for reply in self.replies if reply.metadata.reply_to_message_id in wanted]
        self.replies = [reply for reply in self.replies if reply not in found]
        return found


def serving(devices: range, name: str = "") -> Callable[[Message], RecordDict | Error]:
    """A node that serves these devices of FLEET."""

    def said(message: Message) -> RecordDict | Error:
        if message.metadata.message_type == MessageType.QUERY:
            return shard_record(name, devices)
        return answer(FLEET, devices, read_request(message.content, message.metadata.message_type, {}))

    return said


def three_nodes() -> dict[int, Callable[[Message], RecordDict | Error]]:
    """As Flower numbers them: by chance, and not in the devices' order."""
    return {77: serving(range(16, SIZE), "c"), 5: serving(range(8), "a"), 900: serving(range(8, 16), "b")}


def strategy(each_device: bool = False, **options: Any) -> FleetStrategy:
    algorithm = TinyReptile(rounds=ROUNDS, samples=8, rate=0.02)
    state = State(0, THETA)
    return FleetStrategy(algorithm, state, cohort=COHORT, fleet_size=SIZE, seed=1, each_device=each_device, **options)


def theta_over(grid: Grid, each_device: bool = False, rounds: int = ROUNDS, **options: Any) -> bytes:
    run = strategy(each_device, **options)
    run.start(grid, theta_record(THETA), num_rounds=rounds)
    return run.state.theta.tobytes()


HERE = theta_over(FleetGrid(FLEET))


def remote_grid(grid: FlakyGrid, each_device: bool = False, **heard: Any) -> RemoteGrid:
    return RemoteGrid(grid, call_roll(grid, SIZE, within=1), NET, each_device=each_device, seconds=0.2, **heard)
