"""Grids whose nodes are parts of one fleet, and the grid that works in this process.

With ``gateways`` n, node k of 1 .. n serves a contiguous shard of the devices and replies with one sum or mean over them, so
messages cost per gateway. With ``gateways`` None each device is a node, for strategies that inspect single updates.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from tinyfl.algorithms import Inner
from tinyfl.core import U32
from tinyfl.errors import ConfigError, InstallError
from tinyfl.fleet import Carried, Devices, Fleet, StretchFleet, carried
from tinyfl.flower.node import answer, answer_stretch, one_by_one, read_request

try:
    from flwr.supercore.task_identity import TaskIdentity
except ImportError as error:
    raise InstallError("tinyfl needs flwr 1.41.0 to address messages: pip install flwr==1.41.0") from error


def _identify() -> None:
    """Sets the process-wide identity that Message() reads, unless one of Flower's own runners has set it."""
    for name in ("task_id", "run_id", "node_id"):
        try:
            getattr(TaskIdentity, name)
        except RuntimeError:
            setattr(TaskIdentity, name, 1)


def shard(size: int, parts: int, part: int) -> range:
    """The devices of part ``part`` (from 0) of ``parts`` equal parts of a fleet of ``size`` devices."""
    return range(size * part // parts, size * (part + 1) // parts)


class FleetAddresses(Grid):
    """Nodes 1 .. n, each of which serves ``devices_at(node)``."""

    nodes: int

    @abstractmethod
    def devices_at(self, node: int) -> Devices:
        """The devices of a node."""

    def spent(self) -> Mapping[str, Mapping[str, float]]:
        """Seconds of the last exchange by node: ``seconds`` until its reply, ``work`` of its devices. Empty within one
        process."""
        return {}

    def carried(self) -> Mapping[str, Carried]:
        """What the lines of boards carried since the last call, by part of a round. Empty without boards."""
        return {}

    def parts(self) -> Mapping[str, Devices]:
        """The devices of each machine, by its name. Empty within one process."""
        return {}

    def stretch(self, inner: Inner, cohort: int) -> int:
        """The number of rounds with ``cohort`` devices and the inner loop ``inner`` that one message may ask for."""
        return 1

    def get_node_ids(self) -> Sequence[int]:
        return range(1, self.nodes + 1)

    def answers(self, messages: Sequence[Message]) -> list[RecordDict | Error]:
        """The nodes' replies to ``messages``, in their order; all messages request the same work."""
        raise NotImplementedError

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Runs each message's round on its node and returns the replies, in the messages' order."""
        sent = list(messages)
        replies: dict[int, Message] = {}
        for same in _same_work(sent).values():
            answers = self.answers([sent[i] for i in same])
            replies.update({i: Message(content, reply_to=sent[i]) for i, content in zip(same, answers, strict=True)})
        return [replies[i] for i in range(len(sent))]

    def set_run(self, run: Run) -> None:
        raise NotImplementedError("this grid works without a run")

    @property
    def run(self) -> Run:
        raise NotImplementedError("this grid works without a run")

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise NotImplementedError("this grid replies at once: use send_and_receive")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise NotImplementedError("this grid replies at once: use send_and_receive")


class FleetGrid(FleetAddresses):
    """The grid of one fleet. ``defaults`` are used for keys that a message's config lacks (as in evaluate messages)."""

    def __init__(self, fleet: Fleet, gateways: int | None = 1, defaults: ConfigRecord | None = None) -> None:
        if gateways is not None and not 0 < gateways <= fleet.size:
            raise ConfigError(f"{gateways} gateways for {fleet.size:,} devices: give --nodes 1 to {fleet.size:,}, or devices.")
        self.fleet, self.gateways, self.defaults = fleet, gateways, defaults or ConfigRecord()
        self.nodes = gateways or fleet.size
        _identify()

    def devices_at(self, node: int) -> range:
        return shard(self.fleet.size, self.nodes, node - 1)

    def carried(self) -> Mapping[str, Carried]:
        return carried([self.fleet])

    def stretch(self, inner: Inner, cohort: int) -> int:
        return self.fleet.stretch(inner, cohort) if self.gateways == 1 and isinstance(self.fleet, StretchFleet) else 1

    def answers(self, messages: Sequence[Message]) -> list[RecordDict | Error]:
        return self._of_devices(messages) if self.gateways is None else self._of_gateways(messages)

    def _of_gateways(self, messages: Sequence[Message]) -> list[RecordDict | Error]:
        request = read_request(messages[0].content, messages[0].metadata.message_type, self.defaults)
        if request.instructions.alphas and self.gateways == 1 and isinstance(self.fleet, StretchFleet):
            return [answer_stretch(self.fleet, request)]
        return [answer(self.fleet, self.devices_at(message.metadata.dst_node_id), request) for message in messages]

    def _of_devices(self, messages: Sequence[Message]) -> list[RecordDict | Error]:
        request = read_request(messages[0].content, messages[0].metadata.message_type, self.defaults)
        devices: U32 = np.array([message.metadata.dst_node_id - 1 for message in messages], np.uint32)
        told = request.instructions
        phis = self.fleet.run_each(devices, told.round, request.theta, told.inner, told.context)
        return one_by_one(devices, phis, request)


def _same_work(messages: Sequence[Message]) -> dict[tuple[int, int, str], list[int]]:
    """The indices of messages with the same content and type, in groups."""
    groups: dict[tuple[int, int, str], list[int]] = {}
    for i, message in enumerate(messages):
        content = message.content
        groups.setdefault((id(content["arrays"]), id(content["config"]), message.metadata.message_type), []).append(i)
    return groups
