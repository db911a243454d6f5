"""The Flower strategy that runs any of our algorithms."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from tinyfl.algorithms import Algorithm, Inner, State, Updates
from tinyfl.fleet import draw_cohort
from tinyfl.flower.messages import instructions, metrics_record, read_updates, theta_record


class FleetStrategy(Strategy):
    """Runs ``algorithm`` from ``state`` on, over gateways that each serve a part of the fleet or, with ``each_device``,
    over nodes that are single devices. ``on_round`` is told the new state and what came back.

    A round that brings fewer than ``minimum`` updates does not count: ``on_short`` is told what came back, and the next one
    is the same round again."""

    def __init__(
        self,
        algorithm: Algorithm,
        state: State,
        *,
        cohort: int,
        fleet_size: int,
        seed: int,
        each_device: bool = False,
        minimum: int = 0,
        on_round: Callable[[State, Updates], None] | None = None,
        on_short: Callable[[Updates], None] | None = None,
    ) -> None:
        self.algorithm, self.state = algorithm, state
        self.cohort, self.fleet_size, self.seed, self.each_device = cohort, fleet_size, seed, each_device
        self.minimum, self.on_round, self.on_short = minimum, on_round, on_short
        self._last: tuple[Inner, ConfigRecord] | None = None

    def _told(self) -> ConfigRecord:
        """This round's instructions; made anew only where the inner loop changes, since Flower checks every key."""
        inner = self.algorithm.inner(self.state.round)
        if self._last is None or self._last[0] != inner:
            config = instructions(inner, cohort=self.cohort, fleet_size=self.fleet_size, seed=self.seed, exact=True)
            self._last = inner, config
        self._last[1]["round"] = self.state.round
        return self._last[1]

    def configure_train(
        self,
        server_round: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        grid: Grid,
    ) -> Iterable[Message]:
        """Asks every gateway, or every device of the cohort, for its part of the round."""
        record = RecordDict({"arrays": arrays, "config": self._told()})
        nodes = grid.get_node_ids()
        if self.each_device:
            in_order = nodes if isinstance(nodes, Sequence) else sorted(nodes)
            cohort = draw_cohort(self.seed, self.state.round, self.cohort, self.fleet_size)
            nodes = [in_order[device] for device in cohort.tolist()]
        return [Message(record, node, MessageType.TRAIN) for node in nodes]

    def aggregate_train(
        self,
        server_round: int,
        replies: Iterable[Message],
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Adds the exact sums and takes the algorithm's outer step. Nodes that answer with an error are left out."""
        theta = self.state.theta
        nothing = Updates(theta, np.zeros(len(theta), np.int64), 0)
        updates = nothing
        for reply in replies:
            if reply.has_error():
                updates = updates + replace(nothing, left_out={"node-error": 1})
                continue
            arrays, metrics = reply.content["arrays"], reply.content["metrics"]
            assert isinstance(arrays, ArrayRecord)
            assert isinstance(metrics, MetricRecord)
            updates = updates + read_updates(theta, arrays, metrics)
        inner = self.algorithm.inner(self.state.round)
        if updates.devices < self.minimum:
            if self.on_short:
                self.on_short(updates)
        else:
            self.state = self.algorithm.outer(self.state, updates)
            if self.on_round:
                self.on_round(self.state, updates)
        return theta_record(self.state.theta), metrics_record(updates, inner.samples * inner.passes)

    def configure_evaluate(
        self,
        server_round: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        grid: Grid,
    ) -> Iterable[Message]:
        """None: evaluation is on unseen devices, after adaptation (tinyfl.evaluation)."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        return None

    def summary(self) -> None:
        """Nothing to add to Flower's log: the run directory holds the config."""
