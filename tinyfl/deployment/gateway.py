"""A gateway: a process that keeps a fleet up and lets a SuperNode serve it to a federation.

The SuperNode is Flower's own, a child of the gateway. Flower starts a new process for each message; that one asks the gateway
(tinyfl.flower.ipc), which answers with its boards. They stay open from round to round and from run to run. A SuperNode that
dies is started again, with the boards as they are.
"""

import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flwr.app import Error, MessageType, RecordDict

from tinyfl.config import read_toml, resolve
from tinyfl.config.roster import Part, read_parts
from tinyfl.core import FASTEST
from tinyfl.errors import ConfigError, TinyflError
from tinyfl.errors.words import plain
from tinyfl.fleet import Event, Fleet
from tinyfl.fleets.assembly import Site, Training, training
from tinyfl.flower.allowed import Allowed, refuse_paths
from tinyfl.flower.messages import MAX_REPORTED, Trouble, events_record, shard_record
from tinyfl.flower.node import answer, read_request
from tinyfl.flower.settings import of_the_config
from tinyfl.networks import Network
from tinyfl.runs.learner import learner_of, refuse_misfit
from tinyfl.tasks import targets_for

CLOSE_SECONDS = 0.5
"""What a round at work may take to end where the gateway closes."""

KEYS = {"first", "data", "fleet"}


@dataclass(frozen=True)
class Holding:
    """What a gateway has: the parts of its fleet, the number of its first device, and, where its devices' samples are a file
    on this machine, that file."""

    parts: tuple[Part, ...]
    first: int
    data: str


def read_holding(file: Path, first: int | None = None) -> Holding:
    """The gateway's fleet in a TOML file; ``first`` stands in for the file's.

    Raises ConfigError where it is none.
    """
    table = read_toml(file)
    if unknown := sorted(set(table) - KEYS):
        raise ConfigError(
            f"{file} has {unknown[0]!r}. A gateway's file has {', '.join(sorted(KEYS))}; the rest comes with each run."
        )
    parts = read_parts(table.get("fleet", ()))
    if not parts:
        raise ConfigError(f"{file} has no [[fleet]] part. Write one for each kind of device there (docs/federation.md).")
    number, data = table.get("first", 0) if first is None else first, table.get("data", "")
    if type(number) is not int or number < 0 or not isinstance(data, str):
        raise ConfigError(f"{file}: first is a whole number from 0, and data a path.")
    return Holding(parts, number, str(Path(data).resolve()) if data else "")


class Gateway:
    """Answers for the devices of ``site``, one message after another. A run may read files of this machine where ``allowed``
    has their folder; ``data`` are the site's own. ``tell`` gets a line for each round, for people."""

    def __init__(self, name: str, site: Site, allowed: Allowed, data: str = "", tell: Callable[[str], None] = print) -> None:
        self.name, self._site, self._allowed, self._data, self._tell = name, site, allowed, data, tell
        self._turn = threading.Lock()
        self._events: list[Event] = []
        self._up = ExitStack()
        self._run: tuple[dict[str, Any], Network | None] | None = None
        self._fleet: Fleet
        self._last: tuple[Any, RecordDict] | None = None
        self._defect = ""

    def __call__(self, message_type: str, content: RecordDict, run_config: Mapping[str, Any]) -> RecordDict | Error:
        """The answer to a message of a run with this run config; an Error where this gateway cannot do its part, whatever the
        reason is."""
        if message_type == MessageType.QUERY:
            return shard_record(self.name, self._site.devices, self._site.boards)
        with self._turn:
            try:
                return self._answer(message_type, content, of_the_config(run_config))
            except TinyflError as error:
                self._tell(f"cannot do its part: {plain(error, MAX_REPORTED)}")
                return Error(Trouble.failed, plain(error, MAX_REPORTED))
            except Exception as error:  # a defect of ours, or of a library: the gateway goes on, and the log has all of it
                self._tell_defect(error)
                return Error(Trouble.failed, f"a defect in the gateway, whose log has more: {plain(repr(error))}")

    def close(self) -> None:
        """Lets the boards' ports go. A round at work is not waited for: it ends with the process."""
        if self._turn.acquire(timeout=CLOSE_SECONDS):
            try:
                self._up.close()
            finally:
                self._turn.release()

    def _tell_defect(self, error: Exception) -> None:
        """Tells where a defect is, once for as long as it is the same."""
        lines = [plain(line) for part in traceback.format_exception(error) for line in part.splitlines() if line.strip(" ~^")]
        text = "\n  ".join(lines)
        self._tell("the same defect again" if text == self._defect else f"a defect in this gateway:\n  {text}")
        self._defect = text

    def _answer(self, message_type: str, content: RecordDict, options: dict[str, Any]) -> RecordDict | Error:
        request = read_request(content, message_type, {})
        same = options, request.told, request.measure, request.network, request.theta.tobytes()
        if self._last and self._last[0] == same:
            self._tell(f"round {request.told.round + 1}: asked again, and answered from memory")
            return self._last[1]
        self._events.clear()
        began = time.monotonic()
        said = answer(self._fleet_of(options, request.network), self._site.devices, request)
        seconds = time.monotonic() - began
        if isinstance(said, Error):
            return said
        self._note(request.told.round, said, seconds)
        said["events"] = events_record(self._events, seconds)
        if not any(event.what == "left out" for event in self._events):
            self._last = same, said
        return said

    def _note(self, round: int, said: RecordDict, seconds: float) -> None:
        updates: Any = said.metric_records["metrics"]["devices"]
        lost = "".join(f"; device {event.device} {event.what}: {event.detail}" for event in self._events)
        self._tell(f"round {round + 1}: {updates} updates in {seconds:.1f} s{lost}")

    def _fleet_of(self, options: dict[str, Any], network: Network | None) -> Fleet:
        """The site's devices, with what a run with these options learns; kept until another comes."""
        if (options, network) != self._run:
            self._up.close()
            self._run = None
            own = {"data": self._data} if self._data else {}
            came = {**own, **({"network": network} if network else {})}  # no file of the run's is opened for these
            refuse_paths({key: value for key, value in options.items() if key not in came}, self._allowed)
            config = resolve({**options, **own})
            if network is None:
                learner = learner_of(config)
                task, net = learner.task, learner.network
            else:  # the coordinator's, which knows what y holds
                task, net = replace(config, targets=config.targets or targets_for(network.loss)).load_task(), network
                refuse_misfit(net, task, net.name)  # of a coordinator whose data are of another shape
            work = Training(task, net, FASTEST, config.seconds)
            self._fleet = self._up.enter_context(training(self._site, work, self._events.append))
            self._run = options, network
        return self._fleet
