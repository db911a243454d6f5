"""A gateway: a process that keeps a fleet open and serves it to a federation through a SuperNode.

The SuperNode is Flower's own, a child of the gateway. Flower starts a new process for each message, which forwards it to the
gateway (tinyfl.flower.ipc). The boards stay open across rounds and runs. A SuperNode that dies is restarted; the boards are
unaffected.
"""

import hashlib
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Error, MessageType, RecordDict

from tinyfl.config import read_toml, resolve
from tinyfl.config.roster import Part, read_parts
from tinyfl.core import FASTEST
from tinyfl.data.tabular import is_tabular
from tinyfl.deployment.own_data import LOOK_THERE, OwnData, read_share
from tinyfl.errors import ConfigError, DataError, TinyflError
from tinyfl.errors.words import plain
from tinyfl.fleet import Event, Fleet, carried
from tinyfl.fleets.assembly import Site, Station, Training, training
from tinyfl.flower.allowed import Allowed, refuse_extensions, refuse_paths
from tinyfl.flower.extensions import refuse_task
from tinyfl.flower.ipc import ASK
from tinyfl.flower.lines import LINE, line_record
from tinyfl.flower.messages import MAX_REPORTED, Trouble, events_record, shard_record
from tinyfl.flower.node import answer, read_request
from tinyfl.flower.settings import of_a_node
from tinyfl.flower.sites import SAID, SHARE, read_record, record
from tinyfl.networks import Network
from tinyfl.runs.learner import learner_of, refuse_misfit, task_for
from tinyfl.system import cache
from tinyfl.tasks.sensor import NAME as SENSOR
from tinyfl.tasks.sites import Share

CLOSE_SECONDS = 0.5
"""Time for a round in progress to end when the gateway closes, in seconds."""

ZIP, HDF5 = b"PK\3\4", b"\x89HDF"
"""The first bytes of an .npz file, and of a copy of FLAIR."""

KEYS = {"first", "data", "fleet"}


@dataclass(frozen=True)
class Holding:
    """A gateway's fleet: its parts, the number of its first device, and the file of its devices' samples ("" if they are not
    in a file on this machine)."""

    parts: tuple[Part, ...]
    first: int
    data: str


def read_holding(file: Path | None, first: int | None = None, data: Path | None = None) -> Holding:
    """Reads a gateway's fleet from a TOML file; ``first`` and ``data`` override the file's. With data of its own it needs no
    file.

    Raises ConfigError for an invalid file, and without file and data.
    """
    table = read_toml(file) if file else {}
    if unknown := sorted(set(table) - KEYS):
        raise ConfigError(
            f"{file} has {unknown[0]!r}. A gateway's file has {', '.join(sorted(KEYS))}; each run gives the rest."
        )
    parts = read_parts(table.get("fleet", ()))
    number, path = table.get("first", 0) if first is None else first, table.get("data", "") if data is None else str(data)
    if type(number) is not int or number < 0 or not isinstance(path, str):
        raise ConfigError(f"{file}: first must be a whole number from 0, and data a path.")
    if not parts and not path:
        what = f"{file} has no [[fleet]] part" if file else "neither --fleet nor --data is given"
        raise ConfigError(
            f"{what}. Write a part for each kind of device there; or give --data a file with the samples of this site's own "
            "devices (docs/federation.md)."
        )
    if path and not Path(path).exists():
        raise ConfigError(f"{path}: no such file. Give data or --data the file of this gateway's samples.")
    if path:
        _demand_data(Path(path))
    return Holding(parts, number, str(Path(path).resolve()) if path else "")


def _demand_data(path: Path) -> None:
    """Raises ConfigError if the file at ``path`` cannot hold samples. What is in it is seen when a run asks for them."""
    if path.is_dir() or is_tabular(path):
        return
    with path.open("rb") as file:
        start = file.read(4)
    if start not in (ZIP, HDF5):
        raise ConfigError(
            f"{path} holds no data: it is neither an .npz, a CSV, a Parquet nor a JSON lines file. Give data or --data the "
            "file of this gateway's samples."
        )


def _memory(name: str) -> Path | None:
    """The folder for what simulated devices of the gateway ``name`` keep; None, for RAM, where there is no place."""
    place = cache.place()
    return place and place / "gateways" / hashlib.sha256(name.encode()).hexdigest()[:16]


class Gateway:
    """Answers messages for the devices of ``site``, one at a time. A run may read this machine's files in the folders of
    ``allowed``; ``data`` is the site's own file. ``tell`` receives a line of text for each round.
    Results and updates of single devices of its own data leave this machine only if it ``shares`` them."""

    def __init__(
        self,
        name: str,
        site: Site,
        allowed: Allowed,
        data: str = "",
        tell: Callable[[str], None] = print,
        *,
        shares: bool = False,
    ) -> None:
        self.name, self._site, self._allowed, self._data, self._log = name, site, allowed, data, tell
        folder = allowed.folders[0] if allowed.folders else Path.cwd()
        self._own = OwnData(name, data, folder, shares, tell) if data else None
        self._shares = shares
        self._lock = threading.Lock()
        self._events: list[Event] = []
        self._resources = ExitStack()
        self._run: tuple[dict[str, Any], tuple[Network, str] | None, Any] | None = None
        self._fleet: Fleet
        self._last_reply: tuple[Any, RecordDict] | None = None
        self._defect = ""

    def __call__(self, message_type: str, content: RecordDict, run_config: Mapping[str, Any]) -> RecordDict | Error:
        """The reply to a message, given its run's config; an Error if this gateway cannot do its part, for any reason."""
        if message_type == MessageType.QUERY:
            try:
                refuse_task(content, self._allowed)
            except TinyflError as error:
                self._log(f"refuses a run: {plain(error, MAX_REPORTED)}")
                return Error(Trouble.failed, plain(f"{self.name}: {error}", MAX_REPORTED))
            if ASK not in content and not self._site.stations:
                return Error(Trouble.failed, f"{self.name} has devices of its own data alone, for runs with --task npz")
            if ASK not in content:
                return shard_record(self.name, self._site.devices, self._site.boards)
        with self._lock:
            try:
                if message_type == MessageType.QUERY:
                    return self._about_data(content, of_a_node(run_config))
                return self._answer(message_type, content, of_a_node(run_config))
            except TinyflError as error:
                self._log(f"cannot do its part: {plain(error, MAX_REPORTED)}")
                private = isinstance(error, DataError) and (ASK in content or SHARE in content)
                why = LOOK_THERE if private else plain(error, MAX_REPORTED)
                return Error(Trouble.failed, f"{self.name}: {why}" if ASK in content else why)
            except Exception as error:  # a defect here or in a library: the gateway goes on, and logs the traceback
                self._log_defect(error)
                return Error(Trouble.failed, f"a defect in the gateway, whose log has more: {plain(repr(error))}")

    def close(self) -> None:
        """Closes the boards' ports. A round in progress is not awaited: it ends with the process."""
        if self._lock.acquire(timeout=CLOSE_SECONDS):
            try:
                self._resources.close()
            finally:
                self._lock.release()

    def _log_defect(self, error: Exception) -> None:
        """Logs a defect's traceback, once while it stays the same."""
        lines = [plain(line) for part in traceback.format_exception(error) for line in part.splitlines() if line.strip(" ~^")]
        text = "\n  ".join(lines)
        self._log("the same defect again" if text == self._defect else f"a defect in this gateway:\n  {text}")
        self._defect = text

    def _about_data(self, content: RecordDict, options: dict[str, Any]) -> RecordDict:
        """The answer to a question about this gateway's own data; without any, it says that."""
        if self._own is None:
            return RecordDict({SAID: record({})})
        if self._site.boards:
            raise ConfigError(
                "it has boards, and data of its own, which are for simulated devices. Take one of them out of its --fleet file."
            )
        return self._own.answer(read_record(content, ASK) or {}, content, resolve(options, installed=True))

    def _answer(self, message_type: str, content: RecordDict, options: dict[str, Any]) -> RecordDict | Error:
        request = read_request(content, message_type, {})
        share = read_share(content)
        key = (
            options,
            request.instructions,
            request.measure,
            request.network,
            request.theta.tobytes(),
            share and share.to_json(),
        )
        if self._last_reply and self._last_reply[0] == key:
            self._log(f"round {request.instructions.round + 1}: requested again, answered from memory")
            return self._last_reply[1]
        self._events.clear()
        began = time.monotonic()
        if share and request.instructions.devices and not self._shares:
            raise ConfigError("it sends sums alone. Leave --nodes devices out, or start its gateway with --share-devices.")
        if share is None:
            reply = answer(self._fleet_of(options, request.network, request.classes), self._site.devices, request)
        else:
            reply = answer(self._fleet_with(share, options, request.network), share.devices("train").astype(np.uint32), request)
        seconds = time.monotonic() - began
        if isinstance(reply, Error):
            return reply
        self._log_round(request.instructions.round, reply, seconds)
        reply["events"] = events_record(self._events, seconds)
        if lines := carried([self._fleet]):
            reply[LINE] = line_record(lines)
        if not any(event.what == "left out" for event in self._events):
            self._last_reply = key, reply
        return reply

    def _log_round(self, round: int, reply: RecordDict, seconds: float) -> None:
        updates: Any = reply.metric_records["metrics"]["devices"]
        lost = "".join(f"; device {event.device} {event.what}: {event.detail}" for event in self._events)
        took = f"{seconds:.1f} s" if seconds >= 0.1 else "less than 0.1 s"
        self._log(f"round {round + 1}: {updates} update{'s' * (updates != 1)} in {took}{lost}")

    def _fleet_of(self, options: dict[str, Any], network: tuple[Network, str] | None, classes: tuple[str, ...]) -> Fleet:
        """The site's devices, set up for a run with these options; reused until the options change."""
        run = options, network, classes
        if run != self._run:
            self._resources.close()
            self._run = None
            own = {"data": self._data} if self._data else {}
            given = {*own, *(("network",) if network else ())}  # no file of the run is opened for these
            refuse_extensions(options, self._allowed)
            if options.get("task") == SENSOR and network:
                options = {**options, "data": ""}  # recorded samples are the coordinator's
            refuse_paths({key: value for key, value in options.items() if key not in given}, self._allowed)
            config = resolve({**options, **own}, installed=True)
            if network is None:
                learner = learner_of(config)
                task, net = learner.task, learner.network
            else:
                net, trains = network
                task = task_for(config, net, trains, classes)
            work = Training(task, net, FASTEST, config.seconds, _memory(self.name), config.seed)
            self._fleet = self._resources.enter_context(training(self._site, work, self._events.append))
            self._run = run
        return self._fleet

    def _fleet_with(self, share: Share, options: dict[str, Any], network: tuple[Network, str] | None) -> Fleet:
        """The devices of this gateway's own data, simulated, for a run with these options; reused until they change."""
        run = options, network, share.to_json()
        if run != self._run:
            self._resources.close()
            self._run = None
            if self._own is None or network is None:
                raise ConfigError("it has no data of its own any more. Give its file with data or --data, and start it again.")
            config = resolve(options, installed=True)
            net, task = network[0], self._own.task(share, config)
            refuse_misfit(net, task, net.name)
            first, last = share.devices("train")[[0, -1]].tolist()
            site = Site((Station(Part(native=last - first + 1), first, ()),), [])
            work = Training(task, net, FASTEST, config.seconds, _memory(self.name))
            self._fleet = self._resources.enter_context(training(site, work, self._events.append))
            self._run = run
        return self._fleet
