"""What travels: theta or sums in one ArrayRecord, figures in one MetricRecord, instructions in the ConfigRecord.

Stock strategies require just one ArrayRecord and one MetricRecord with ``num-examples``, in Flower's NumPy serialisation.
Exact sums, which only our strategy asks for, travel as their raw bytes: NumPy's header costs more than a small network. What is
said in words, such as who is absent and why, stands in a ConfigRecord beside them, which stock strategies pass over.

A node may send anything in them. What it sends is read here, within bounds and as words that are fit to show, or it is Corrupt.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from math import isfinite
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, MetricRecord, RecordDict

from tinyfl import core
from tinyfl.algorithms import Inner, Updates
from tinyfl.core import F32, I64, MAX_CHANGE, UNIT
from tinyfl.errors import ConfigError, Corrupt, LinkError, Numeric, Oversized
from tinyfl.errors.words import plain
from tinyfl.fleet import Event
from tinyfl.networks import Network, from_plan

RAW = "tinyfl.i64le"

REASON = re.compile(r"[a-z][a-z, -]{0,39}")
"""Why a device is absent: a short word or two, since it is counted under them in logs and checkpoints."""

MAX_REPORTED = 600
"""Characters of what a node says of its failure."""

MAX_EVENTS, MAX_JSON = 4, 4000
"""Events of a device in a round that are kept, and the characters of one, or of a board's record, as JSON."""

BOARD = {"device": int, "id": str, "board": str, "port": str, "engine": str, "boot_seconds": float}
"""What a board's record may have."""


class Trouble(IntEnum):
    """Codes of error replies, none of them one of Flower's own. ``no_update``: the reason begins with the devices' own.
    ``silent``: a node did not answer as asked. ``failed``: a node cannot do its part, and the reason says why."""

    no_update = 1001
    silent = 1002
    failed = 1003


ABSENT = "absent"
"""The ConfigRecord of devices that are absent: number to reason."""

NETWORK = "network"
"""The ConfigRecord of what is learnt."""


@dataclass(frozen=True)
class Instructions:
    """What a node is asked to do: which inner loop, on which cohort of how large a fleet, in which round. With ``exact`` it
    answers with int64 sums in place of the mean theta. A message that names ``devices`` wants just their updates, kept
    apart."""

    inner: Inner
    round: int
    cohort: int
    fleet_size: int
    seed: int
    exact: bool
    devices: tuple[int, ...] = ()


def instructions(
    inner: Inner, *, cohort: int, fleet_size: int, seed: int, round: int | None = None, exact: bool = False
) -> ConfigRecord:
    """The record that tells gateways what to do: pass it to a stock strategy as ``train_config``.

    Without ``round`` gateways go by the ``server-round`` that stock strategies add, counted from 1.
    """
    record = ConfigRecord(
        {
            "inner-samples": inner.samples,
            "inner-batch": inner.batch,
            "inner-passes": inner.passes,
            "inner-lr": inner.lr,
            "inner-clip": inner.clip,
            "cohort": cohort,
            "fleet-size": fleet_size,
            "seed": seed,
            "exact": exact,
        }
    )
    if round is not None:
        record["round"] = round
    return record


def read_instructions(config: Mapping[str, Any]) -> Instructions:
    """The instructions in a message's config.

    Raises ConfigError if a key is missing.
    """
    try:
        inner = Inner(
            samples=config["inner-samples"],
            batch=config["inner-batch"],
            passes=config["inner-passes"],
            lr=config["inner-lr"],
            clip=config["inner-clip"],
        )
        current = config["round"] if "round" in config else config["server-round"] - 1
        named = tuple(config.get("devices", ()))
        return Instructions(inner, current, config["cohort"], config["fleet-size"], config["seed"], config["exact"], named)
    except KeyError as error:
        raise ConfigError(
            f"the message's config lacks {error}. Start the strategy with train_config=instructions(...), "
            "from tinyfl.flower.messages."
        ) from error


def network_record(network: Network) -> ConfigRecord:
    """What a gateway's devices are to learn: the plan that boards take, and what it does not say."""
    return ConfigRecord({"name": network.name, "shape": list(network.shape), "plan": network.plan.bytes})


def read_network(content: RecordDict) -> Network | None:
    """The network in a message, where one is.

    Raises ConfigError where it is none.
    """
    said: Any = content.get(NETWORK)
    if said is None:
        return None
    try:
        return from_plan(str(said["name"]), tuple(said["shape"]), said["plan"])
    except (LookupError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"the message's network is none ({error!r}). tinyfl must be of one version on all machines."
        ) from error


def theta_record(theta: F32) -> ArrayRecord:
    """theta float32 (parameters,) as the one array of a record."""
    return ArrayRecord({"theta": Array(theta)})


def read_theta(record: ArrayRecord) -> F32:
    """The one array of ``record``, float32 (parameters,)."""
    (array,) = record.values()
    return np.ascontiguousarray(array.numpy(), dtype=np.float32)


def sum_record(total: I64) -> ArrayRecord:
    """An exact sum int64 (parameters,) as the one array of a record."""
    data = total.astype("<i8").tobytes()
    return ArrayRecord({"sum": Array(dtype="int64", shape=total.shape, stype=RAW, data=data)})


def metrics_record(updates: Updates, samples: int) -> MetricRecord:
    """The figures of ``updates`` on devices that took ``samples`` samples each."""
    return MetricRecord({"num-examples": updates.devices * samples, "devices": updates.devices, "loss": updates.loss})


def absent_record(updates: Updates) -> dict[str, ConfigRecord]:
    """The record of absent devices, where there are any, under its key."""
    if not updates.absent:
        return {}
    return {ABSENT: ConfigRecord({str(device): reason for device, reason in updates.absent.items()})}


@contextmanager
def corrupt(what: str) -> Iterator[None]:
    """Whatever reading made-up figures, words and arrays raises is Corrupt: one node's, and not the end of a run."""
    try:
        yield
    except LinkError:
        raise
    except Exception as error:
        raise Corrupt(f"{what} cannot be read ({type(error).__name__}: {plain(error, 100)}).") from error


def read_reason(words: object) -> str:
    """The reason why a device is absent, in a reply: ``words``, or ``corrupt`` where that is none."""
    text = str(words)[:100]
    return text if REASON.fullmatch(text) else Corrupt.reason


def read_error(error: Error) -> Error:
    """A node's error, its words fit to show."""
    return Error(error.code, plain(error.reason, MAX_REPORTED))


def _read_absent(content: RecordDict, asked: Sequence[int]) -> Mapping[int, str]:
    """The devices of ``asked`` that a reply says are absent, each with the reason."""
    record: Mapping[str, Any] = content.config_records.get(ABSENT) or {}
    if len(record) > len(asked):
        raise Corrupt(f"the reply names {len(record):,} absent devices, of {len(asked):,}.")
    absent = {int(device): read_reason(reason) for device, reason in record.items()}
    if absent and not set(absent) <= {int(device) for device in asked}:
        raise Corrupt("the reply names absent devices that were not asked.")
    return absent


def read_phi(theta: F32, content: RecordDict) -> F32:
    """The one float32 array (parameters,) of a reply, as any Flower client sends it, in theta's shape.

    Raises Corrupt where a reply has no such array, Numeric where it is not finite.
    """
    with corrupt("the reply's array of weights"):
        (record,) = content.array_records.values()
        (array,) = record.values()
        phi = np.asarray(array.numpy(), dtype=np.float32)
    if phi.shape != theta.shape:
        raise Corrupt(f"the reply holds weights of the shape {phi.shape}, not {theta.shape}.")
    if not np.isfinite(phi).all():
        raise Numeric("the reply holds weights that are not finite.")
    return phi


def read_updates(theta: F32, content: RecordDict, asked: Sequence[int]) -> Updates:
    """The updates in a reply of a node that has the devices ``asked`` of the cohort: an exact sum over them but for those that
    it says are absent; or one update of a client that knows nothing of sums.

    Raises Corrupt, Numeric or Oversized for a reply that cannot be counted.
    """
    with corrupt("the reply"):
        metrics: dict[str, Any] = {key: value for record in content.metric_records.values() for key, value in record.items()}
        loss, devices = float(metrics.get("loss", float("nan"))), int(metrics.get("devices", 1))
        sums = [array for record in content.array_records.values() for array in record.values() if array.stype == RAW]
        total = np.frombuffer(sums[0].data, "<i8").astype(np.int64, copy=False) if sums else None
        absent = _read_absent(content, asked) if sums else {}
    if total is None:
        return Updates(theta, _fixed(read_phi(theta, content), theta), 1, loss)
    if total.shape != theta.shape or devices < 0 or devices + len(absent) != len(asked):
        raise Corrupt(
            f"the reply holds {total.size:,} sums over {plain(devices, 40)} devices, and {len(absent)} absent, of {len(asked)}."
        )
    bound = int(devices * (MAX_CHANGE / UNIT))
    if ((total > bound) | (total < -bound)).any():
        raise Oversized(f"the reply holds a sum that {devices:,} updates below {MAX_CHANGE:g} cannot have.")
    return Updates(theta, total, devices, loss, absent)


def _fixed(phi: F32, theta: F32) -> I64:
    try:
        return core.fixed(phi, theta)
    except ValueError as error:
        raise Oversized(f"the reply holds an update that cannot be ({error}).") from error


def events_record(events: Sequence[Event], seconds: float) -> ConfigRecord:
    """What became of a node's devices, and the seconds of its work."""
    short = [replace(event, detail=plain(event.detail, MAX_REPORTED)) for event in events]
    return ConfigRecord({"said": [json.dumps(asdict(event), ensure_ascii=False) for event in short], "seconds": seconds})


def read_events(content: RecordDict, devices: range, round: int) -> tuple[list[Event], float]:
    """What a node says became of its ``devices`` in this round, and the seconds of its work; nothing, where it says what cannot
    be read: it decides no theta."""
    try:
        with corrupt("the events"):
            record: Any = content.config_records.get("events") or {"said": (), "seconds": 0.0}
            said = [_event(line) for line in record["said"][: MAX_EVENTS * len(devices)]]
            seconds = float(record["seconds"])
    except Corrupt:
        return [], 0.0
    here = [event for event in said if event.round == round and event.device in devices]
    return here, seconds if isfinite(seconds) and seconds > 0 else 0.0


def _event(line: str) -> Event:
    said = Event(**_read_json(line))
    if type(said.round) is not int or type(said.device) is not int:
        raise Corrupt("an event is of no round, or of no device.")
    return Event(said.round, said.device, plain(said.board, 40), plain(said.what, 20), plain(said.detail, MAX_REPORTED))


def _read_json(line: str) -> dict[str, Any]:
    if len(line) > MAX_JSON:
        raise Corrupt(f"a record of {len(line):,} characters, and {MAX_JSON:,} are the most.")
    return dict(json.loads(line))


def shard_record(name: str, devices: range, boards: Sequence[Mapping[str, Any]] = ()) -> RecordDict:
    """What a node answers in the roll call: its name, its devices, and the records of its boards."""
    said: dict[str, Any] = {"name": name, "first": devices.start, "size": len(devices)}
    said["boards"] = [json.dumps(board) for board in boards]
    return RecordDict({"shard": ConfigRecord(said)})


def read_shard(content: RecordDict) -> tuple[str, range, tuple[Mapping[str, Any], ...]]:
    """Name, devices and boards of a node, from its answer in the roll call.

    Raises Corrupt where it is none.
    """
    with corrupt("which devices a node serves"):
        said: Any = content.config_records["shard"]
        first, size = int(said["first"]), int(said["size"])
        if first < 0 or size < 1 or first + size > 1 << 32:
            raise Corrupt(f"a node says that it serves {plain(size, 40)} devices from {plain(first, 40)} on.")
        if len(said["boards"]) > size:
            raise Corrupt(f"a node says that it has {len(said['boards']):,} boards for {size:,} devices.")
        return plain(said["name"], 40), range(first, first + size), tuple(map(_board, said["boards"]))


def _board(line: str) -> Mapping[str, Any]:
    """A board's record: its known keys, where their values are of the right kind."""
    said = {key: value for key, value in _read_json(line).items() if key in BOARD}
    well = {key: value for key, value in said.items() if value is None or type(value) is BOARD[key]}
    return {key: plain(value, 100) if isinstance(value, str) else value for key, value in well.items()}
