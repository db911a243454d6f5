"""A Flower grid in this process whose nodes are parts of one fleet.

With ``gateways`` n, node k of 1 .. n serves a contiguous shard of the devices and answers with one sum or mean for all of
them, so that messages cost per gateway. With ``gateways`` None each device is a node, for strategies that judge single
updates.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MessageType, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from tinyfl import core
from tinyfl.algorithms import Inner, Updates
from tinyfl.core import F32, U32
from tinyfl.errors import ConfigError, InstallError
from tinyfl.fleet import Fleet, draw_cohort, left_out
from tinyfl.flower.messages import (
    Instructions,
    metrics_record,
    read_instructions,
    read_theta,
    sum_record,
    theta_record,
)

try:
    from flwr.supercore.task_identity import TaskIdentity
except ImportError as error:
    raise InstallError("tinyfl needs flwr 1.41.0, whose messages it can address: pip install flwr==1.41.0") from error

NO_UPDATE = 1
"""The code of an error reply from a node that has no usable update."""


class FleetGrid(Grid):
    """The grid of one fleet. ``defaults`` fill in what a message's config does not say (as in evaluate messages)."""

    def __init__(self, fleet: Fleet, gateways: int | None = 1, defaults: ConfigRecord | None = None) -> None:
        if gateways is not None and not 0 < gateways <= fleet.size:
            raise ConfigError(f"{gateways} gateways for {fleet.size:,} devices: give --nodes 1 to {fleet.size:,}, or devices.")
        self.fleet, self.gateways, self.defaults = fleet, gateways, defaults or ConfigRecord()
        self._run: Run | None = None
        # Message() asks this process-wide identity, which Flower's own runners would have set.
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        if self._run is None:
            raise RuntimeError("no run is set: this grid works without one")
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Sequence[int]:
        return range(1, (self.fleet.size if self.gateways is None else self.gateways) + 1)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise NotImplementedError("this grid answers at once: use send_and_receive")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise NotImplementedError("this grid answers at once: use send_and_receive")

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Runs each message's round on its node and returns the replies, in the messages' order."""
        sent = list(messages)
        replies: dict[int, Message] = {}
        by_content: dict[tuple[int, int, str], list[int]] = {}
        for i, message in enumerate(sent):
            content = message.content
            same_work = id(content["arrays"]), id(content["config"]), message.metadata.message_type
            by_content.setdefault(same_work, []).append(i)
        for same in by_content.values():
            arrays = sent[same[0]].content["arrays"]
            assert isinstance(arrays, ArrayRecord)
            theta = read_theta(arrays)
            answer = self._as_devices if self.gateways is None else self._as_gateways
            group = [sent[i] for i in same]
            replies.update(zip(same, answer(group, theta), strict=True))
        return [replies[i] for i in range(len(sent))]

    def _told(self, message: Message) -> Instructions:
        config = message.content["config"]
        assert isinstance(config, ConfigRecord)
        told = read_instructions({**self.defaults, **config})
        if message.metadata.message_type == MessageType.EVALUATE:
            # A rate of 0 learns nothing and measures the loss on the devices' own streams.
            inner = Inner(told.inner.samples, told.inner.batch, told.inner.passes, 0.0, told.inner.clip)
            return Instructions(inner, told.round, told.cohort, told.fleet_size, told.seed, told.exact)
        return told

    def _as_gateways(self, messages: list[Message], theta: F32) -> list[Message]:
        assert self.gateways is not None
        told = self._told(messages[0])
        cohort = draw_cohort(told.seed, told.round, told.cohort, told.fleet_size)
        edges = [self.fleet.size * k // self.gateways for k in range(self.gateways + 1)]
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            first, last = np.searchsorted(cohort, edges[node - 1 : node + 1])
            updates = self.fleet.run(cohort[first:last], told.round, theta, told.inner)
            replies.append(_reply(message, updates, told))
        return replies

    def _as_devices(self, messages: list[Message], theta: F32) -> list[Message]:
        told = self._told(messages[0])
        devices: U32 = np.array([message.metadata.dst_node_id - 1 for message in messages], np.uint32)
        phis = self.fleet.run_each(devices, told.round, theta, told.inner)
        replies = []
        for i, message in enumerate(messages):
            well = not phis.reasons[i]
            total = core.fixed(phis.phi[i], theta) if well else np.zeros(len(theta), np.int64)
            updates = Updates(theta, total, int(well), float(phis.loss[i]), left_out(phis.reasons[i : i + 1]))
            replies.append(_reply(message, updates, told))
        return replies


def _reply(message: Message, updates: Updates, told: Instructions) -> Message:
    metrics = metrics_record(updates, told.inner.samples * told.inner.passes)
    if message.metadata.message_type == MessageType.EVALUATE:
        return Message(RecordDict({"metrics": metrics}), reply_to=message)
    if told.exact:
        return Message(RecordDict({"arrays": sum_record(updates.sum), "metrics": metrics}), reply_to=message)
    if not updates.devices:
        return Message(Error(NO_UPDATE, "no device of the cohort here sent a usable update"), reply_to=message)
    arrays = theta_record(updates.mean().astype(np.float32))
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)
