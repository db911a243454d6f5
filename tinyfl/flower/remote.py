"""A fleet on nodes elsewhere, as one grid: over any grid of Flower's own, its SuperLink's or its simulation engine's.

Whoever runs the rounds sees devices or gateways by their numbers, as on a grid in this process. Underneath is one message to
each Flower node and round. A node that was away is asked again, within the round, as soon as it is back: a node's part of a
round is a function of the message alone, so an answer that comes twice is the same, and counts once.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Error, Message, MessageType, RecordDict
from flwr.serverapp import Grid
from httpx import HTTPError

from tinyfl.errors import ConfigError, Corrupt, TrainingError
from tinyfl.errors.words import plain
from tinyfl.fleet import Event
from tinyfl.flower.grid import FleetAddresses
from tinyfl.flower.messages import NETWORK, Trouble, network_record, read_error, read_events, read_shard
from tinyfl.flower.node import Request, one_by_one, read_apart, read_request
from tinyfl.networks import Network

ROLL_SECONDS = 120.0
"""What nodes may take to be there, all of them, when a run starts."""

GRACE_SECONDS = 60.0
"""What Flower may take for a message, there and back, beside the work: processes that start, and fixed pauses."""

SENDS = 5
"""Times that a node is asked within a round."""

MAX_NAMED = 8
"""Nodes whose trouble is told where a roll call fails."""

POLL_SECONDS, LOOK_SECONDS, RETRY_SECONDS = 0.1, 1.0, 3.0
"""From one look for answers to the next; for nodes that are back; and from a failure to the next try."""


UNREACHABLE = (HTTPError, OSError)
"""What Flower raises where its own SuperLink is away."""


@dataclass(frozen=True)
class RemoteNode:
    """A Flower node and the devices it serves, as it said in the roll call; ``name`` is for people."""

    node: int
    name: str
    devices: range
    boards: tuple[Mapping[str, Any], ...] = ()


def call_roll(grid: Grid, fleet_size: int, within: float = ROLL_SECONDS) -> tuple[RemoteNode, ...]:
    """The nodes that serve the devices 0 to ``fleet_size`` - 1, in the devices' order. Waits for those that are not there yet.

    A node that does not say which devices it serves has none of them. Raises ConfigError where two serve the same devices, or
    one serves others; TrainingError for devices that nobody serves.
    """
    post = Post(grid)
    seats: dict[int, RemoteNode] = {}
    deadline = time.monotonic() + within
    trouble: dict[int, str] = {}
    while True:
        asked = {node: RecordDict({"config": ConfigRecord()}) for node in grid.get_node_ids() if node not in seats}
        answers = post.exchange(asked, MessageType.QUERY, min(deadline, time.monotonic() + GRACE_SECONDS))
        for node, content in answers.items():
            try:
                if not isinstance(content, Error):
                    seats[node] = _seat(node, content)
                elif content.code != Trouble.silent or node not in trouble:
                    trouble[node] = str(content.reason)
            except Corrupt as error:  # a node of another program, or one that lies: it has no seat
                trouble[node] = f"{error} Run tinyfl's ClientApp there, of this version."
        in_order = sorted(seats.values(), key=lambda seat: seat.devices.start)
        _refuse_overlaps(in_order, fleet_size)
        if sum(len(seat.devices) for seat in in_order) == fleet_size:
            _refuse_twins(in_order)
            return _told_apart(in_order)
        if time.monotonic() >= deadline:
            missing = ", ".join(_gaps(in_order, fleet_size))
            said = [(node, text) for node, text in trouble.items() if node not in seats]
            why = "".join(f" Node {node}: {text.rstrip('.')}." for node, text in said[:MAX_NAMED])
            raise TrainingError(
                f"devices {missing} of {fleet_size:,} have no node after {within:g} s.{why} Start their gateways "
                "(tinyfl gateway), or see that their --first-device and the run's devices are right."
            )
        time.sleep(LOOK_SECONDS)


def _seat(node: int, content: RecordDict) -> RemoteNode:
    name, devices, boards = read_shard(content)
    return RemoteNode(node, name or f"node {node}", devices, boards)


def _told_apart(seats: Sequence[RemoteNode]) -> tuple[RemoteNode, ...]:
    """The seats, those of one name with their devices in it."""
    names = Counter(seat.name for seat in seats)
    return tuple(
        replace(seat, name=f"{seat.name} ({_range(seat.devices)})") if names[seat.name] > 1 else seat for seat in seats
    )


def _refuse_overlaps(seats: Sequence[RemoteNode], fleet_size: int) -> None:
    for one, other in pairwise(seats):
        if other.devices.start < one.devices.stop:
            raise ConfigError(
                f"{one.name} and {other.name} both serve device {other.devices.start}. Give each gateway a --first-device of "
                f"its own: {one.name} has devices {_range(one.devices)}."
            )
    if seats and seats[-1].devices.stop > fleet_size:
        raise ConfigError(
            f"{seats[-1].name} serves devices {_range(seats[-1].devices)}, and the run has 0 to {fleet_size - 1}. "
            "Give the run more devices, or the gateway another --first-device."
        )


def _refuse_twins(seats: Sequence[RemoteNode]) -> None:
    """Raises ConfigError where two boards of the fleet have one id, as far as the nodes know their boards."""
    whose: dict[str, str] = {}
    for seat in seats:
        for board in seat.boards:
            id, at = plain(board.get("id") or ""), f"device {plain(board.get('device'))} of {seat.name}"
            if id and whose.setdefault(id, at) != at:
                raise ConfigError(f"board {id} is {whose[id]} and {at}, and a board counts once. Leave it out of one of them.")


def _gaps(seats: Sequence[RemoteNode], fleet_size: int) -> list[str]:
    edges = [0, *(edge for seat in seats for edge in (seat.devices.start, seat.devices.stop)), fleet_size]
    return [_range(range(a, b)) for a, b in zip(edges[::2], edges[1::2], strict=True) if b > a]


def _range(devices: range) -> str:
    return f"{devices.start}" if len(devices) == 1 else f"{devices.start} to {devices.stop - 1}"


@dataclass
class _Sent:
    """A node that is being asked: how often so far, when it was last started, and what went wrong, if anything."""

    content: RecordDict
    sends: int = 0
    started: str = ""
    trouble: Error | None = None
    again: float = field(default=float("inf"))


class Post:
    """Messages to Flower nodes and their answers, patiently."""

    def __init__(self, grid: Grid) -> None:
        self._grid, self._singly = grid, False
        self.seconds: dict[int, float] = {}
        """To each node's answer, in the last exchange."""

    def exchange(
        self, contents: Mapping[int, RecordDict], message_type: str, deadline: float
    ) -> Mapping[int, RecordDict | Error]:
        """The answer of each node to its content. A node that was restarted since it was asked, or whose message got lost, is
        asked again once it is there; one that says that it cannot do its part is believed. What has not come by ``deadline``
        (of time.monotonic) is an error."""
        began, self.seconds = time.monotonic(), {}
        asked = {node: _Sent(content) for node, content in contents.items()}
        answers: dict[int, RecordDict | Error] = {}
        sent: dict[str, int] = {}
        self._send(asked, asked, message_type, deadline, sent)
        looked = time.monotonic()
        while len(answers) < len(asked) and (now := time.monotonic()) < deadline:
            singly = self._singly
            for id, said in self._pulled(list(sent)):
                node = sent.pop(id, None)
                if node is None or node in answers:
                    continue
                self.seconds[node] = now - began
                if not isinstance(said, Error) or said.code == Trouble.failed or asked[node].sends == SENDS:
                    answers[node] = said
                else:
                    asked[node].trouble, asked[node].again = said, now + RETRY_SECONDS
            if self._singly != singly:  # the whole batch is lost, others' answers too, which they have in memory
                for node in sent.values():
                    asked[node].again = now
            if now - looked >= LOOK_SECONDS:
                looked, there = now, self._started()
                due = [
                    node
                    for node, each in asked.items()
                    if node not in answers and node in there and (each.again <= now or each.started != there[node])
                ]
                self._send([node for node in due if asked[node].sends < SENDS], asked, message_type, deadline, sent)
            time.sleep(POLL_SECONDS)
        return {node: answers.get(node) or each.trouble or _silence(each) for node, each in asked.items()}

    def _pulled(self, sent: Sequence[str]) -> Iterator[tuple[str, RecordDict | Error]]:
        """What has come for the messages ``sent``, each with the one that it answers. Flower takes a whole batch of answers
        apart, and loses all where one is damaged; from then on they are fetched one by one."""
        if not self._singly:
            try:
                yield from map(_opened, self._grid.pull_messages(sent))
            except UNREACHABLE:
                raise
            except Exception:
                self._singly = True
        if self._singly:
            for id in sent:
                try:
                    yield from map(_opened, self._grid.pull_messages([id]))
                except UNREACHABLE:
                    raise
                except Exception as error:
                    yield id, Error(Trouble.silent, f"an answer that cannot be taken apart: {plain(repr(error), 100)}")

    def _send(
        self, nodes: Iterable[int], asked: Mapping[int, _Sent], message_type: str, deadline: float, sent: dict[str, int]
    ) -> None:
        if not (nodes := list(nodes)):
            return
        started = self._started()
        left = max(1.0, deadline - time.monotonic())
        messages = [Message(asked[node].content, node, message_type, ttl=left) for node in nodes]
        for node, id in zip(nodes, self._grid.push_messages(messages), strict=True):
            each = asked[node]
            each.sends, each.started, each.again = each.sends + 1, started.get(node, ""), float("inf")
            if id:
                sent[id] = node
            else:
                each.again = time.monotonic() + RETRY_SECONDS

    def _started(self) -> Mapping[int, str]:
        """When each node that is there was last started, as Flower puts it."""
        return {info.node_id: str(info.last_activated_at) for info in self._grid.get_nodes()}


def _opened(reply: Message) -> tuple[str, RecordDict | Error]:
    """The number of the message that ``reply`` answers, and what it says."""
    said = read_error(reply.error) if reply.has_error() else reply.content if reply.has_content() else RecordDict()
    return reply.metadata.reply_to_message_id, said


def _silence(each: _Sent) -> Error:
    return Error(Trouble.silent, f"no answer, asked {each.sends} times")


class RemoteGrid(FleetAddresses):
    """The grid of the fleet on ``seats``, over Flower's ``grid``: each seat is a node, or, with ``each_device``, each device. A
    node may take ``seconds`` for its part of a round, and what Flower takes. Messages tell nodes the ``network``, so that a
    model from a file need not be there."""

    def __init__(
        self,
        grid: Grid,
        seats: Sequence[RemoteNode],
        network: Network,
        *,
        each_device: bool,
        seconds: float,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self._post, self.seats, self._each_device = Post(grid), tuple(seats), each_device
        self._network = network_record(network)
        self._seconds, self._tell = seconds, on_event or (lambda event: None)
        self._spent: dict[str, Mapping[str, float]] = {}
        self._starts = [seat.devices.start for seat in self.seats]
        self.nodes = self.seats[-1].devices.stop if each_device else len(self.seats)

    def spent(self) -> Mapping[str, Mapping[str, float]]:
        return self._spent

    def parts(self) -> Mapping[str, range]:
        return {seat.name: seat.devices for seat in self.seats}

    def devices_at(self, node: int) -> range:
        return range(node - 1, node) if self._each_device else self.seats[node - 1].devices

    def answers(self, messages: Sequence[Message]) -> list[RecordDict | Error]:
        return self._of_devices(messages) if self._each_device else self._of_gateways(messages)

    def _of_gateways(self, messages: Sequence[Message]) -> list[RecordDict | Error]:
        seats = [message.metadata.dst_node_id - 1 for message in messages]
        answers = self._exchange(dict(zip(seats, (message.content for message in messages), strict=True)), messages[0])
        return [answers[seat] for seat in seats]

    def _of_devices(self, messages: Sequence[Message]) -> list[RecordDict | Error]:
        """One message to each seat, which names its devices, and each device's answer out of what comes back."""
        asked = read_request(messages[0].content, messages[0].metadata.message_type, {})
        devices = [message.metadata.dst_node_id - 1 for message in messages]
        by_seat: dict[int, list[int]] = {}
        for device in devices:
            by_seat.setdefault(int(np.searchsorted(self._starts, device, "right")) - 1, []).append(device)
        content, answers = messages[0].content, dict[int, RecordDict | Error]()
        contents = {
            seat: RecordDict(
                {"arrays": content["arrays"], "config": ConfigRecord({**content.config_records["config"], "devices": named})}
            )
            for seat, named in by_seat.items()
        }
        for seat, said in self._exchange(contents, messages[0]).items():
            apart = _apart(by_seat[seat], said, replace(asked, told=replace(asked.told, devices=())))
            if not isinstance(said, Error) and isinstance(apart, Error):
                self._tell_trouble(asked.told.round, self.seats[seat], apart)
            answers.update(dict.fromkeys(by_seat[seat], apart) if isinstance(apart, Error) else apart)
        return [answers[device] for device in devices]

    def _tell_trouble(self, round: int, at: RemoteNode, error: Error) -> None:
        why = f"node-error: {at.name}, devices {_range(at.devices)}: {error.reason}"
        self._tell(Event(round, at.devices.start, "", "left out", why))

    def _exchange(self, contents: Mapping[int, RecordDict], message: Message) -> Mapping[int, RecordDict | Error]:
        """Each seat's answer; what it says of its boards, and whatever went wrong, is told."""
        deadline = time.monotonic() + self._seconds + GRACE_SECONDS
        by_node = {self.seats[seat].node: RecordDict({**content, NETWORK: self._network}) for seat, content in contents.items()}
        answers = self._post.exchange(by_node, message.metadata.message_type, deadline)
        round = int(message.content["config"].get("round", 0))  # type: ignore[arg-type]
        self._spent = {}
        for at in (self.seats[seat] for seat in contents):
            said = answers[at.node]
            if isinstance(said, Error):
                self._tell_trouble(round, at, said)
                continue
            events, work = read_events(said, at.devices, round)
            for event in events:
                self._tell(event)
            self._spent[at.name] = {"seconds": self._post.seconds[at.node], "work": work}
        return {seat: answers[self.seats[seat].node] for seat in contents}


def _apart(devices: Sequence[int], said: RecordDict | Error, asked: Request) -> Mapping[int, RecordDict | Error] | Error:
    """Each device's answer out of its seat's; an Error where that has none for them."""
    if isinstance(said, Error):
        return said
    try:
        of, phis = read_apart(said, asked, devices)
        return dict(zip(of.tolist(), one_by_one(of, phis, asked), strict=True))
    except Corrupt as error:
        return Error(Trouble.silent, str(error))
