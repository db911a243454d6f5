"""Poisoned devices: a grid that alters the replies of some devices on their way to the server.

scaled         phi' = theta + 1000 (phi - theta), or another ``factor``
sign-flipped   phi' = theta - 10 (phi - theta), or another factor
nan            phi' has the right shape, but only NaN
wrong-shape    phi' lacks its last weight
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Literal, get_args

import numpy as np
from flwr.app import Message, RecordDict

from tinyfl import core
from tinyfl.core import F32, U32, Stream
from tinyfl.flower.grid import FleetAddresses, FleetGrid
from tinyfl.flower.messages import read_updates, theta_record
from tinyfl.flower.node import Request, cohort_at, read_request

Attack = Literal["scaled", "sign-flipped", "nan", "wrong-shape"]
ATTACKS: tuple[Attack, ...] = get_args(Attack)
FACTORS: dict[Attack, float] = {"scaled": 1000.0, "sign-flipped": -10.0}


def draw_poisoned(seed: int, count: int, fleet_size: int) -> frozenset[int]:
    """Draws ``count`` devices of a fleet, deterministically."""
    everyone: U32 = np.arange(fleet_size, dtype=np.uint32)
    words = core.random(seed, Stream.task, everyone, 0xBAD, words=1)[:, 0]
    return frozenset(np.argsort(words, kind="stable")[:count].tolist())


class PoisonedGrid(FleetAddresses):
    """A ``grid`` with an ``attack`` by the devices ``poisoned``. Behind gateways that reply with means, only scaling and
    flipping are possible: a gateway excludes the other attacks itself."""

    def __init__(self, grid: FleetGrid, poisoned: Collection[int], attack: Attack, factor: float | None = None) -> None:
        if grid.gateways is not None and attack not in FACTORS:
            raise ValueError(f"a gateway itself excludes {attack}: use {' or '.join(FACTORS)}, or single devices")
        self.grid, self.poisoned, self.attack = grid, frozenset(poisoned), attack
        self.factor = FACTORS.get(attack, 1.0) if factor is None else factor
        self.nodes = grid.nodes

    def devices_at(self, node: int) -> range:
        return self.grid.devices_at(node)

    def get_node_ids(self) -> Sequence[int]:
        return self.grid.get_node_ids()

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """The replies of ``grid``, the poisoned ones altered."""
        sent = list(messages)
        for message, reply in zip(sent, self.grid.send_and_receive(sent, timeout=timeout), strict=True):
            if reply.has_content() and not self.poisoned.isdisjoint(self.devices_at(message.metadata.dst_node_id)):
                request = read_request(message.content, message.metadata.message_type, self.grid.defaults)
                if not request.measure:
                    reply.content = self._poison(message.metadata.dst_node_id, reply.content, request)
            yield reply

    def _poison(self, node: int, content: RecordDict, request: Request) -> RecordDict:
        cohort = cohort_at(self.devices_at(node), request.instructions)
        updates = read_updates(request.theta, content, cohort.tolist())
        phi: F32 = updates.mean().astype(np.float32)
        if self.grid.gateways is None:
            phi = self._altered(phi, request.theta)
        else:
            poisoned = cohort[np.isin(cohort, list(self.poisoned))]
            if not len(poisoned):
                return content
            own = self.grid.fleet.run_each(poisoned, request.instructions.round, request.theta, request.instructions.inner).phi
            phi = (phi + (self._altered(own, request.theta) - own).sum(axis=0) / len(cohort)).astype(np.float32)
        return RecordDict({**content, "arrays": theta_record(phi)})

    def _altered(self, phi: F32, theta: F32) -> F32:
        if self.attack == "nan":
            return np.full_like(phi, np.nan)
        if self.attack == "wrong-shape":
            return phi[:-1]
        return (theta + self.factor * (phi - theta)).astype(np.float32)
