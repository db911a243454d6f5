"""The Flower strategy that runs any of our algorithms."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from tinyfl import core
from tinyfl.aggregators import shown_record
from tinyfl.algorithms import Algorithm, Inner, State, Updates, alpha_of_stretches
from tinyfl.codecs.down import PLAIN, Down, Encoded
from tinyfl.core import F32, I64, U32
from tinyfl.errors import ConfigError, LinkError, TrainingError
from tinyfl.fleet import Event, Stretch, among, spans
from tinyfl.flower.grid import FleetAddresses
from tinyfl.flower.messages import (
    Trouble,
    down_values,
    instructions,
    metrics_record,
    read_phi,
    read_reason,
    read_stretch,
    read_updates,
    theta_record,
)
from tinyfl.sampling import Sampler, Uniform

STARTED = "started"
"""The name in the state's memory of what the devices started the last round from."""

NODE_ERROR = "node-error"
"""The reason for absence of devices whose node replied with an error, or not at all."""


class FleetStrategy(Strategy):
    """Runs ``algorithm`` from ``state`` on, over gateways that each serve a part of the fleet or, with ``each_device``,
    over one node per device. ``on_round`` receives the new state and the round's updates.

    An ``aggregator``, a Flower strategy such as FedTrimmedAvg, combines the devices' phis into one, and the algorithm takes
    its outer step towards it; without one, updates are summed exactly. Over gateways, which send sums, a round with an
    aggregator raises ConfigError.

    ``sampler`` chooses the devices of each round, by default uniformly. One that learns from updates needs ``each_device``.

    For devices that keep layers, ``run`` is the run's number, and ``saved`` tells the number of rounds in its last checkpoint.

    Devices start from what ``down`` makes of theta.

    A round with fewer than ``minimum`` updates does not count: ``on_short`` receives its updates, and the round is repeated.
    ``on_event`` receives an event for each unreadable reply.

    With ``until``, the number of the run's rounds, one message asks for a stretch of rounds where the fleet runs them by
    itself: rounds of devices simulated in this process, with the outer step of TowardsMean and no ``minimum``.
    ``on_stretch`` receives the state after it and its rounds; ``messages`` tells how many messages are left."""

    def __init__(
        self,
        algorithm: Algorithm,
        state: State,
        *,
        cohort: int,
        fleet_size: int,
        seed: int,
        each_device: bool = False,
        aggregator: Strategy | None = None,
        sampler: Sampler | None = None,
        minimum: int = 0,
        run: int = 0,
        until: int = 0,
        down: Down = PLAIN,
        saved: Callable[[], int] | None = None,
        on_round: Callable[[State, Updates], None] | None = None,
        on_short: Callable[[Updates], None] | None = None,
        on_stretch: Callable[[State, Stretch], None] | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self.algorithm, self.state = algorithm, state
        self.cohort, self.fleet_size, self.seed, self.each_device = cohort, fleet_size, seed, each_device
        self.aggregator, self.minimum, self.on_round, self.on_short = aggregator, minimum, on_round, on_short
        self.run, self.saved, self.until = run, saved, until
        self.on_event, self.on_stretch = on_event, on_stretch
        self.sampler: Sampler = sampler or Uniform(seed, cohort, fleet_size)
        if self.sampler.learns and not each_device:
            raise ConfigError(
                "gateways send sums, and a sampler learns from single updates. Give FleetStrategy each_device=True."
            )
        self.down, self._start = down, state.theta
        self._encoded: Encoded | None = None
        self._last: tuple[Inner, ConfigRecord] | None = None
        self._requested: Mapping[int, Sequence[int]] = {}
        self._asked = 0
        """The number of rounds in the last message, if it asked for a stretch."""

    def _train_config(self) -> ConfigRecord:
        """This round's instructions; rebuilt only when the inner loop changes, since Flower checks every key."""
        inner = self.algorithm.inner(self.state.round)
        if self._last is None or self._last[0] != inner:
            exact = self.aggregator is None
            config = instructions(inner, cohort=self.cohort, fleet_size=self.fleet_size, seed=self.seed, exact=exact)
            self._last = inner, config
        self._last[1]["round"] = self.state.round
        if not self.sampler.drawn and not self.each_device:  # gateways cannot draw these cohorts
            self._last[1]["chosen"] = self._cohorts().astype("<u4").tobytes()
        if inner.keeps:
            self._last[1]["run"], self._last[1]["saved"] = self.run, self.saved() if self.saved else 0
        if self._encoded:
            self._last[1].update(down_values(self._encoded))
        return self._last[1]

    def configure_train(
        self,
        server_round: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        grid: Grid,
    ) -> Iterable[Message]:
        """The messages of a round, to each gateway or to each device of the cohort."""
        alphas = self._alphas(grid)
        self._asked = len(alphas)
        if alphas:
            told = ConfigRecord({**self._train_config(), "alphas": alphas, "through": str(self.down.codec)})
            return [Message(RecordDict({"arrays": arrays, "config": told}), grid.get_node_ids()[0], MessageType.TRAIN)]  # type: ignore[index]
        self._requested = self._cohort_by_node(grid)
        self._start, self._encoded = self._started()
        if not self.down.plain:
            arrays = theta_record(self._start)
        if self.aggregator is not None:
            self._refuse_sums()
            messages = list(
                self.aggregator.configure_train(server_round, arrays, self._train_config(), _Cohort(list(self._requested)))
            )
            chosen = [message.metadata.dst_node_id for message in messages]  # an aggregator may sample fewer
            self._requested = {node: self._requested[node] for node in chosen}
            return messages
        record = RecordDict({"arrays": arrays, "config": self._train_config()})
        return [Message(record, node, MessageType.TRAIN) for node in self._requested]

    def _cohorts(self) -> U32:
        """The devices of each round that is asked for, uint32 (rounds, cohort)."""
        first = self.state.round
        return self.sampler.cohorts(range(first, first + max(self._asked, 1)), self.state)

    def _stretch(self, grid: Grid) -> int:
        """A stretch ends at a multiple of this number of rounds; 1: each round has its own messages."""
        plain = self.until and self.minimum == 0 and self.aggregator is None
        if not plain or self.down.delta or not isinstance(grid, FleetAddresses) or alpha_of_stretches(self.algorithm) is None:
            return 1
        return grid.stretch(self.algorithm.inner(0), self.cohort)

    def messages(self, grid: Grid) -> int:
        """The number of messages up to the last round, if each stretch runs to its end."""
        first, every = self.state.round, self._stretch(grid)
        return len(range(first - first % every, self.until, every)) if first < self.until else 0

    def _alphas(self, grid: Grid) -> list[float]:
        """alpha_t of the rounds to ask for in one message, which have the same inner loop; empty: one round."""
        first, every, alpha = self.state.round, self._stretch(grid), alpha_of_stretches(self.algorithm)
        if every == 1 or alpha is None:
            return []
        inner, alphas = self.algorithm.inner(first), list[float]()
        for round in range(first, min(first + every - first % every, self.until)):
            if inner.keeps or self.algorithm.inner(round) != inner:
                break
            alphas.append(float(alpha(round)))
        return alphas

    def _refuse_sums(self) -> None:
        """Raises ConfigError if a node would reply to an aggregator for several devices."""
        if any(len(devices) > 1 for devices in self._requested.values()):
            raise ConfigError(
                f"{type(self.aggregator).__name__} would get sums from gateways, and one poisoned update poisons a sum. "
                "Give FleetStrategy each_device=True, over FleetGrid(fleet, gateways=None)."
            )

    def _cohort_by_node(self, grid: Grid) -> Mapping[int, Sequence[int]]:
        """The nodes of this round, each with its devices of the cohort. A node that is not tinyfl's counts as one device."""
        nodes = grid.get_node_ids()
        in_order = nodes if isinstance(nodes, Sequence) else sorted(nodes)
        if not isinstance(grid, FleetAddresses) and not self.each_device:
            return {node: [device] for device, node in enumerate(in_order)}
        cohort = self._cohorts()[0]
        if self.each_device:
            return {in_order[device]: [device] for device in cohort.tolist()}
        assert isinstance(grid, FleetAddresses)
        shares = {node: among(cohort, grid.devices_at(node)) for node in in_order}
        return {node: share for node, share in shares.items() if len(share)}  # type: ignore[misc]

    def aggregate_train(
        self,
        server_round: int,
        replies: Iterable[Message],
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Adds the exact sums, or calls the aggregator, and takes the algorithm's outer step. Nodes with an error or an invalid
        update are left out."""
        if self._asked:
            return self._after_stretch(next(iter(replies)))
        usable, changes = list[Message](), dict[int, I64]()
        updates = Updates(self._start, np.zeros(len(self._start), np.int64), 0)
        silent = dict(self._requested)
        for reply in sorted(replies, key=lambda reply: reply.metadata.src_node_id):  # float sums depend on their order
            devices = silent.pop(reply.metadata.src_node_id, None)
            if devices is None:
                continue  # not requested, or a second reply
            read = self._read(reply, devices)
            updates = updates + read
            if read.devices:
                usable.append(reply)
                changes |= {int(devices[0]): read.sum} if self.sampler.learns else {}
        for devices in silent.values():
            updates = updates + self._without(devices, NODE_ERROR)
        if self.aggregator is not None:
            if updates.devices < self.minimum:
                # An aggregator sees no updates of a round that does not count.
                self.aggregator.aggregate_train(server_round, [])
            else:
                updates = self._aggregated(self.aggregator, server_round, usable, updates)
        inner = self.algorithm.inner(self.state.round)
        if updates.devices < self.minimum:
            if self.on_short:
                self.on_short(updates)
        else:
            self.state = self._after(updates, changes)
            if self.on_round:
                self.on_round(self.state, updates)
        return theta_record(self.state.theta), metrics_record(updates, inner.total)

    def _started(self) -> tuple[F32, Encoded | None]:
        """What the devices of this round start from, and how a board gets it.

        Raises TrainingError if it cannot be sent."""
        return self.down.sent(self.state.theta, self.state.memory.get(STARTED))

    def _after(self, updates: Updates, changes: Mapping[int, I64]) -> State:
        """The state after a round with ``updates``, whose mean change moves the server's theta, whatever devices got of it."""
        moved = self.algorithm.outer(self.state, replace(updates, theta=self.state.theta))
        after = self.sampler.after(self.state, moved, changes)
        return replace(after, memory={**after.memory, STARTED: self._start}) if self.down.delta else after

    def _after_stretch(self, reply: Message) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Takes over the state after a stretch."""
        stretch = read_stretch(self.state.theta, reply.content, self._cohorts())
        self.state = replace(self.state, round=self.state.round + self._asked, theta=stretch.theta)
        if self.on_stretch:
            self.on_stretch(self.state, stretch)
        return theta_record(stretch.theta), None

    def _read(self, reply: Message, devices: Sequence[int]) -> Updates:
        """The updates in one reply."""
        if reply.has_error():
            why = str(reply.error.reason).partition(":")[0]
            return self._without(devices, read_reason(why) if reply.error.code == Trouble.no_update else NODE_ERROR)
        try:
            read = read_updates(self._start, reply.content, devices)
            if self.aggregator is not None:
                phi = read_phi(self._start, reply.content)
                reply.content = shown_record(phi, devices=len(devices), loss=read.loss)
            return read
        except LinkError as error:
            if self.on_event:
                why = f"{error.reason}: devices {spans(map(int, devices))}: {error}"
                self.on_event(Event(self.state.round, int(devices[0]), "", "left out", why))
            return self._without(devices, error.reason)

    def _without(self, devices: Sequence[int], reason: str) -> Updates:
        theta = self._start
        absent = {int(device): reason for device in devices}
        return Updates(theta, np.zeros(len(theta), np.int64), 0, absent=absent)

    def _aggregated(self, aggregator: Strategy, server_round: int, usable: list[Message], updates: Updates) -> Updates:
        """The updates with the aggregator's phi instead of their mean; no updates if it returns none."""
        theta = self._start
        arrays, _ = aggregator.aggregate_train(server_round, usable)
        if arrays is None:
            return Updates(theta, np.zeros(len(theta), np.int64), 0, absent=updates.absent)
        try:
            total = core.fixed(read_phi(theta, RecordDict({"arrays": arrays})), theta) * updates.devices
        except (LinkError, ValueError) as error:
            raise TrainingError(
                f"{type(aggregator).__name__}'s result for round {self.state.round + 1:,} is no valid update ({error}). "
                "Give less --noise, a smaller --update-clip, or another aggregator."
            ) from error
        return replace(updates, sum=total)

    def configure_evaluate(
        self,
        server_round: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        grid: Grid,
    ) -> Iterable[Message]:
        """No messages: evaluation uses unseen devices, after adaptation (tinyfl.runs.evaluation)."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        return None

    def summary(self) -> None:
        """Adds nothing to Flower's log: the run directory holds the config."""


class _Cohort(FleetAddresses):
    """The grid as an aggregator sees it: only the nodes of this round's cohort, so that it samples no other."""

    def __init__(self, nodes: Sequence[int]) -> None:
        self._nodes = nodes

    def devices_at(self, node: int) -> range:
        raise NotImplementedError("an aggregator needs node ids only")

    def get_node_ids(self) -> Sequence[int]:
        return self._nodes
