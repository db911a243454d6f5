"""A fleet on remote nodes as one grid, over a grid of Flower's: its SuperLink's or its simulation engine's.

The strategy addresses devices or gateways by number, as on a local grid. Each Flower node gets one message per round. A node
that was away gets it again within the round, as soon as it is back: its part of a round is a function of the message alone, so
a repeated reply is identical, and counts once.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from flwr.app import ConfigRecord, Error, Message, MessageType, RecordDict
from flwr.serverapp import Grid
from httpx import HTTPError

from tinyfl import __version__
from tinyfl.errors import ConfigError, Corrupt, TrainingError
from tinyfl.errors.words import plain
from tinyfl.fleet import Carried, Devices, Event, spans, summed_parts, words_for
from tinyfl.flower.grid import FleetAddresses
from tinyfl.flower.lines import read_line
from tinyfl.flower.messages import NETWORK, VERSION, Trouble, network_record, read_error, read_events, read_shard
from tinyfl.flower.node import Request, cohort_at, one_by_one, read_apart, read_request
from tinyfl.networks import Network

ROLL_SECONDS = 120.0
"""Time for all nodes to connect when a run starts."""

GRACE_SECONDS = 60.0
"""Flower's overhead for a message and its reply: the start of processes, and fixed pauses."""

WAIT_SECONDS = 15.0
"""Time without an answer after which a run says for whom it waits: never sooner than twice the time of the answers before."""

SENDS = 5
"""Maximum number of requests to a node per round."""

MAX_NAMED = 8
"""Maximum number of nodes that a message names."""

POLL_SECONDS, LOOK_SECONDS, RETRY_SECONDS = 0.1, 1.0, 3.0
"""Intervals between polls for replies, between polls for returning nodes, and from a failure to the next try."""


Note = Callable[[str], None]
OnWait = Callable[[Sequence[int], float], None]
"""Receives the nodes that have not answered, and the seconds left."""

UNREACHABLE = (HTTPError, OSError)
"""Exceptions from Flower when its SuperLink is away."""


@dataclass(frozen=True)
class RemoteNode:
    """A Flower node, its devices and its boards, from the roll call; ``name`` is for people. ``further`` records go along with
    each message to it."""

    node: int
    name: str
    devices: Devices
    boards: tuple[Mapping[str, Any], ...] = ()
    further: Mapping[str, ConfigRecord] = field(default_factory=dict)


def call_roll(
    grid: Grid, fleet_size: int, within: float = ROLL_SECONDS, on_note: Note = lambda note: None
) -> tuple[RemoteNode, ...]:
    """The nodes that serve the devices 0 to ``fleet_size`` - 1, in the devices' order. Waits until all are connected, and says
    at once for which devices.

    A node without a valid reply serves no devices. Raises ConfigError if a node refuses the run or has another version, if two
    nodes serve the same device, or a node serves one outside the fleet; TrainingError if devices have no node.
    """
    post = Post(grid)
    remotes: dict[int, RemoteNode] = {}
    deadline = time.monotonic() + within
    trouble: dict[int, str] = {}
    said = ""
    while True:
        roll = RecordDict({"config": ConfigRecord({VERSION: __version__})})
        requests = {node: roll for node in grid.get_node_ids() if node not in remotes}
        answers = post.exchange(requests, MessageType.QUERY, min(deadline, time.monotonic() + GRACE_SECONDS))
        for node, content in answers.items():
            try:
                if not isinstance(content, Error):
                    remotes[node] = _remote(node, content)
                elif content.code == Trouble.failed:
                    raise ConfigError(f"node {node} refuses the run: {content.reason}")
                elif content.code != Trouble.silent or node not in trouble:
                    trouble[node] = str(content.reason)
            except Corrupt as error:  # a node of another program, or a lying one: it serves no devices
                trouble[node] = f"{error} Run tinyfl's ClientApp there, of this version."
        in_order = sorted(remotes.values(), key=lambda remote: remote.devices[0])
        _refuse_overlaps(in_order, fleet_size)
        if sum(len(remote.devices) for remote in in_order) == fleet_size:
            _refuse_twins(in_order)
            return _with_unique_names(in_order)
        missing, left = ", ".join(_gaps(in_order, fleet_size)), deadline - time.monotonic()
        if missing != said and left > 0:
            said, here = missing, ", ".join(f"{remote.name} has {words_for(remote.devices)}" for remote in in_order)
            on_note(
                f"no gateway has devices {missing} of {fleet_size:,} yet ({plain(here, 300) or 'none is here'}): the run "
                f"waits, for at most {left:.0f} s"
            )
        if left <= 0:
            errors = [(node, text) for node, text in trouble.items() if node not in remotes]
            why = "".join(f" Node {node}: {text.rstrip('.')}." for node, text in errors[:MAX_NAMED])
            raise TrainingError(
                f"devices {missing} of {fleet_size:,} have no node after {within:g} s.{why} Start their gateways "
                "(tinyfl gateway), or check their --first-device and the run's devices."
            )
        time.sleep(LOOK_SECONDS)


def _remote(node: int, content: RecordDict) -> RemoteNode:
    name, devices, boards = read_shard(content)
    return RemoteNode(node, name or f"node {node}", devices, boards)


def _with_unique_names(remotes: Sequence[RemoteNode]) -> tuple[RemoteNode, ...]:
    """The nodes, with their devices added to names that occur twice."""
    names = Counter(remote.name for remote in remotes)
    return tuple(
        replace(remote, name=f"{remote.name} ({words_for(remote.devices)})") if names[remote.name] > 1 else remote
        for remote in remotes
    )


def _refuse_overlaps(remotes: Sequence[RemoteNode], fleet_size: int) -> None:
    for one, other in pairwise(remotes):
        if other.devices[0] <= one.devices[-1]:
            raise ConfigError(
                f"{one.name} and {other.name} both serve device {other.devices[0]}. Give each gateway a --first-device of "
                f"its own: {one.name} has devices {words_for(one.devices)}."
            )
    if remotes and remotes[-1].devices[-1] >= fleet_size:
        raise ConfigError(
            f"{remotes[-1].name} serves devices {words_for(remotes[-1].devices)}, and the run has 0 to {fleet_size - 1}. "
            "Give the run more devices, or the gateway another --first-device."
        )


def _refuse_twins(remotes: Sequence[RemoteNode]) -> None:
    """Raises ConfigError if two boards of the fleet, as reported by the nodes, have the same id."""
    whose: dict[str, str] = {}
    for remote in remotes:
        for board in remote.boards:
            id, at = plain(board.get("id") or ""), f"device {plain(board.get('device'))} of {remote.name}"
            if id and whose.setdefault(id, at) != at:
                raise ConfigError(f"board {id} is {whose[id]} and {at}, and a board counts once. Leave it out of one of them.")


def _gaps(remotes: Sequence[RemoteNode], fleet_size: int) -> list[str]:
    edges = [0, *(edge for remote in remotes for edge in (int(remote.devices[0]), int(remote.devices[-1]) + 1)), fleet_size]
    return [words_for(range(a, b)) for a, b in zip(edges[::2], edges[1::2], strict=True) if b > a]


@dataclass
class _Pending:
    """A request to a node: the number of sends, the node's last start, the last error, and the time of the next send."""

    content: RecordDict
    sends: int = 0
    started: str = ""
    trouble: Error | None = None
    retry_at: float = field(default=float("inf"))


class Post:
    """Exchanges messages with Flower nodes, with retries."""

    def __init__(self, grid: Grid) -> None:
        self._grid, self._one_by_one = grid, False
        self.seconds: dict[int, float] = {}
        """Seconds until each node's reply in the last exchange."""

    def exchange(
        self, contents: Mapping[int, RecordDict], message_type: str, deadline: float, on_wait: OnWait | None = None
    ) -> Mapping[int, RecordDict | Error]:
        """The reply of each node to its content. A node that restarted, or whose message was lost, gets the content again once
        it is connected; the code ``failed`` is final. A reply missing at ``deadline`` (of time.monotonic) is an error; one
        that is there by then counts, however long sending took. A long wait calls ``on_wait``, once."""
        patience = max(WAIT_SECONDS, 2 * max(self.seconds.values(), default=0.0))
        began, self.seconds = time.monotonic(), {}
        requests = {node: _Pending(content) for node, content in contents.items()}
        answers: dict[int, RecordDict | Error] = {}
        sent: dict[str, int] = {}
        self._send(requests, requests, message_type, deadline, sent)
        looked = time.monotonic()
        over = False
        while len(answers) < len(requests) and not over:
            over = (now := time.monotonic()) >= deadline
            one_by_one_before = self._one_by_one
            for id, reply in self._pulled(list(sent)):
                node = sent.pop(id, None)
                if node is None or node in answers:
                    continue
                self.seconds[node] = now - began
                if not isinstance(reply, Error) or reply.code == Trouble.failed or requests[node].sends == SENDS:
                    answers[node] = reply
                else:
                    requests[node].trouble, requests[node].retry_at = reply, now + RETRY_SECONDS
            if (
                self._one_by_one != one_by_one_before
            ):  # the whole batch is lost; the other nodes still have their replies in memory
                for node in sent.values():
                    requests[node].retry_at = now
            if on_wait and now - began >= patience and not over:
                on_wait([node for node in requests if node not in answers], deadline - now)
                on_wait = None
            if now - looked >= LOOK_SECONDS and not over:
                looked, connected = now, self._started()
                due = [
                    node
                    for node, each in requests.items()
                    if node not in answers and node in connected and (each.retry_at <= now or each.started != connected[node])
                ]
                self._send([node for node in due if requests[node].sends < SENDS], requests, message_type, deadline, sent)
            time.sleep(POLL_SECONDS)
        return {node: answers.get(node) or each.trouble or _silence(each) for node, each in requests.items()}

    def _pulled(self, sent: Sequence[str]) -> Iterator[tuple[str, RecordDict | Error]]:
        """The replies to the messages ``sent``, each with its message's id. Flower parses a batch at once, and one damaged
        reply loses the batch; from then on replies are fetched one by one."""
        if not self._one_by_one:
            try:
                yield from map(_opened, self._grid.pull_messages(sent))
            except UNREACHABLE:
                raise
            except Exception:
                self._one_by_one = True
        if self._one_by_one:
            for id in sent:
                try:
                    yield from map(_opened, self._grid.pull_messages([id]))
                except UNREACHABLE:
                    raise
                except Exception as error:
                    yield id, Error(Trouble.silent, f"an unreadable reply: {plain(repr(error), 100)}")

    def _send(
        self, nodes: Iterable[int], requests: Mapping[int, _Pending], message_type: str, deadline: float, sent: dict[str, int]
    ) -> None:
        if not (nodes := list(nodes)):
            return
        started = self._started()
        left = max(1.0, deadline - time.monotonic())
        messages = [Message(requests[node].content, node, message_type, ttl=left) for node in nodes]
        for node, id in zip(nodes, self._grid.push_messages(messages), strict=True):
            each = requests[node]
            each.sends, each.started, each.retry_at = each.sends + 1, started.get(node, ""), float("inf")
            if id:
                sent[id] = node
            else:
                each.retry_at = time.monotonic() + RETRY_SECONDS

    def _started(self) -> Mapping[int, str]:
        """The time of each connected node's last start, in Flower's notation."""
        return {info.node_id: str(info.last_activated_at) for info in self._grid.get_nodes()}


def _opened(reply: Message) -> tuple[str, RecordDict | Error]:
    """The id of the message that ``reply`` answers, and the reply's content."""
    content = read_error(reply.error) if reply.has_error() else reply.content if reply.has_content() else RecordDict()
    return reply.metadata.reply_to_message_id, content


def _silence(each: _Pending) -> Error:
    return Error(Trouble.silent, f"no reply after {each.sends} request{'s' * (each.sends != 1)}")


class RemoteGrid(FleetAddresses):
    """The grid of the fleet on ``remotes``, over Flower's ``grid``, with a node for each of them or, with ``each_device``, for
    each device. A remote node has ``seconds`` for its part of a round, plus Flower's overhead. Messages carry the ``network``,
    so nodes need no copy of a model file, what the algorithm ``trains``, so they need not load it, and the names of the
    ``classes``, which a sensor's must be."""

    def __init__(
        self,
        grid: Grid,
        remotes: Sequence[RemoteNode],
        network: Network,
        *,
        trains: str = "task",
        classes: Sequence[str] = (),
        each_device: bool,
        seconds: float,
        on_event: Callable[[Event], None] | None = None,
        on_note: Note = lambda note: None,
    ) -> None:
        self._post, self.remotes, self._each_device = Post(grid), tuple(remotes), each_device
        self._network = network_record(network, trains, classes)
        self._seconds, self._report, self._note = seconds, on_event or (lambda event: None), on_note
        self._spent: dict[str, Mapping[str, float]] = {}
        self._carried: Mapping[str, Carried] = {}
        self._remote_of = (
            {int(device): at for at, remote in enumerate(remotes) for device in remote.devices} if each_device else {}
        )
        self.nodes = len(self._remote_of) or len(self.remotes)

    def spent(self) -> Mapping[str, Mapping[str, float]]:
        return self._spent

    def carried(self) -> Mapping[str, Carried]:
        carried, self._carried = self._carried, {}
        return carried

    def parts(self) -> Mapping[str, Devices]:
        return {remote.name: remote.devices for remote in self.remotes}

    def devices_at(self, node: int) -> Devices:
        return range(node - 1, node) if self._each_device else self.remotes[node - 1].devices

    def answers(self, messages: Sequence[Message]) -> list[RecordDict | Error]:
        return self._of_devices(messages) if self._each_device else self._of_gateways(messages)

    def _of_gateways(self, messages: Sequence[Message]) -> list[RecordDict | Error]:
        remotes = [message.metadata.dst_node_id - 1 for message in messages]
        first = messages[0]

        def share(remote: int) -> Sequence[int]:
            told = read_request(first.content, first.metadata.message_type, {}).instructions
            return list(map(int, cohort_at(self.remotes[remote].devices, told)))

        answers = self._exchange(dict(zip(remotes, (message.content for message in messages), strict=True)), first, share)
        return [answers[remote] for remote in remotes]

    def _of_devices(self, messages: Sequence[Message]) -> list[RecordDict | Error]:
        """Sends one message to each remote node, with its devices, and splits the replies by device."""
        request = read_request(messages[0].content, messages[0].metadata.message_type, {})
        devices = [message.metadata.dst_node_id - 1 for message in messages]
        by_remote: dict[int, list[int]] = {}
        for device in devices:
            by_remote.setdefault(self._remote_of[device], []).append(device)
        content, answers = messages[0].content, dict[int, RecordDict | Error]()
        contents = {
            remote: RecordDict(
                {"arrays": content["arrays"], "config": ConfigRecord({**content.config_records["config"], "devices": named})}
            )
            for remote, named in by_remote.items()
        }
        for remote, reply in self._exchange(contents, messages[0], by_remote.__getitem__).items():
            apart = _apart(by_remote[remote], reply, replace(request, instructions=replace(request.instructions, devices=())))
            if not isinstance(reply, Error) and isinstance(apart, Error):
                self._report_trouble(request.instructions.round, self.remotes[remote], by_remote[remote], apart)
            answers.update(dict.fromkeys(by_remote[remote], apart) if isinstance(apart, Error) else apart)
        return [answers[device] for device in devices]

    def _report_trouble(self, round: int, at: RemoteNode, absent: Sequence[int], error: Error) -> None:
        why = f"node-error: {at.name}, devices {plain(spans(absent), 200)}: {error.reason}"
        first = absent[0] if absent else int(at.devices[0])  # a strategy of others may ask a node without a device in the round
        self._report(Event(round, first, "", "left out", why))

    def _exchange(
        self, contents: Mapping[int, RecordDict], message: Message, share: Callable[[int], Sequence[int]]
    ) -> Mapping[int, RecordDict | Error]:
        """The reply of each remote node, of which ``share`` gives the devices in this round. Reports its events and errors."""
        deadline = time.monotonic() + self._seconds + GRACE_SECONDS
        by_node = {
            self.remotes[remote].node: RecordDict({**content, NETWORK: self._network, **self.remotes[remote].further})
            for remote, content in contents.items()
        }
        round = int(message.content["config"].get("round", 0))  # type: ignore[arg-type]

        def on_wait(nodes: Sequence[int], left: float) -> None:
            away = [(self.remotes[remote], share(remote)) for remote in contents if self.remotes[remote].node in nodes]
            whom = ", ".join(f"{at.name} (devices {plain(spans(devices), 100)})" for at, devices in away)
            self._note(f"round {round + 1} waits for {plain(whom, 300)}, for at most {left:.0f} s")

        answers = self._post.exchange(by_node, message.metadata.message_type, deadline, on_wait)
        self._spent = {}
        for remote in contents:
            at = self.remotes[remote]
            reply = answers[at.node]
            if isinstance(reply, Error):
                self._report_trouble(round, at, share(remote), reply)
                continue
            events, work = read_events(reply, at.devices, round)
            for event in events:
                self._report(event)
            self._carried = summed_parts([self._carried, read_line(reply)])
            self._spent[at.name] = {"seconds": self._post.seconds[at.node], "work": work}
        return {remote: answers[self.remotes[remote].node] for remote in contents}


def _apart(devices: Sequence[int], reply: RecordDict | Error, request: Request) -> Mapping[int, RecordDict | Error] | Error:
    """Splits a remote node's reply by device; an Error if it is unreadable."""
    if isinstance(reply, Error):
        return reply
    try:
        order, phis = read_apart(reply, request, devices)
        return dict(zip(order.tolist(), one_by_one(order, phis, request), strict=True))
    except Corrupt as error:
        return Error(Trouble.silent, str(error))
