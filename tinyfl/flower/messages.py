"""Message contents: theta or sums in one ArrayRecord, metrics in one MetricRecord, instructions in the ConfigRecord.

Stock strategies require exactly one ArrayRecord and one MetricRecord with ``num-examples``, in Flower's NumPy serialisation.
Exact sums, used only by our strategy, travel as raw bytes: NumPy's header costs more than a small network. Text, such as the
absent devices and their reasons, travels in a further ConfigRecord, which stock strategies ignore.

Replies are untrusted. The readers here check bounds, make text safe to print, and raise Corrupt for anything else.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from functools import lru_cache
from io import BytesIO
from math import isfinite
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, MetricRecord, RecordDict

from tinyfl import __version__, core
from tinyfl.algorithms import Inner, Updates
from tinyfl.codecs import FP32, Codec
from tinyfl.codecs.down import Encoded
from tinyfl.core import F32, I64, MAX_CHANGE, U32, UNIT
from tinyfl.errors import ConfigError, Corrupt, LinkError, Numeric, Oversized
from tinyfl.errors.words import plain
from tinyfl.fleet import ALONE, Context, Devices, Event, Stretch
from tinyfl.networks import Network, from_plan

RAW, NUMPY = "tinyfl.i64le", "numpy.ndarray"
"""Serialisations of an array: of exact sums, and Flower's."""

REASON = re.compile(r"[a-z][a-z, -]{0,39}")
"""The reason for a device's absence: a word or two, used as a key in logs and checkpoints."""

MAX_REPORTED = 600
"""Maximum length of a node's error message, in characters."""

MAX_EVENTS, MAX_JSON = 4, 4000
"""Maximum events per device and round; maximum length of an event's or a board's JSON, in characters."""

BOARD = {"device": int, "id": str, "board": str, "port": str, "engine": str, "boot_seconds": float}
"""Keys of a board's record, and their types."""


class Trouble(IntEnum):
    """Codes of error replies, distinct from Flower's own. ``no_update``: the text begins with the devices' reasons.
    ``silent``: no reply, or an unreadable one. ``failed``: the node cannot do its part; the text says why."""

    no_update = 1001
    silent = 1002
    failed = 1003


ABSENT = "absent"
"""The ConfigRecord of absent devices: number to reason."""

KEPT = "kept"
"""The ConfigRecord of what devices started from, if they keep layers: their numbers, and rounds as in Updates."""

NETWORK = "network"
"""The ConfigRecord of the network."""

VERSION = "tinyfl"
"""The key of tinyfl's version in the roll call and in its answers."""

SAME_VERSION = "Install the same version of tinyfl on all machines."


@dataclass(frozen=True)
class Instructions:
    """A node's part of a round: the inner loop, the round, and the sizes and seed that determine the cohort. With ``exact`` it
    replies with int64 sums instead of the mean theta. If ``devices`` are given, it replies with their separate updates.
    ``context`` has what devices need besides. If the cohort is not drawn from the seed, ``chosen`` names its devices: uint32,
    little endian, the cohort of each round in ascending order.

    With ``alphas`` it runs as many rounds from ``round`` on, on devices that get theta ``through`` a codec, and takes the outer
    step of TowardsMean after each; only a node of this process is asked for that."""

    inner: Inner
    round: int
    cohort: int
    fleet_size: int
    seed: int
    exact: bool
    devices: tuple[int, ...] = ()
    context: Context = ALONE
    alphas: tuple[float, ...] = ()
    through: Codec = FP32
    chosen: bytes = b""

    @property
    def rounds(self) -> range:
        """The rounds to run."""
        return range(self.round, self.round + max(len(self.alphas), 1))


def instructions(
    inner: Inner, *, cohort: int, fleet_size: int, seed: int, round: int | None = None, exact: bool = False
) -> ConfigRecord:
    """The gateways' instructions as a record: pass it to a stock strategy as ``train_config``.

    Without ``round``, gateways use the ``server-round`` added by stock strategies, counted from 1.
    """
    record = ConfigRecord({"inner": inner.to_bytes(), "cohort": cohort, "fleet-size": fleet_size, "seed": seed, "exact": exact})
    if round is not None:
        record["round"] = round
    return record


def read_instructions(config: Mapping[str, Any]) -> Instructions:
    """Reads the instructions in a message's config.

    Raises ConfigError if a key is missing, or the inner loop is invalid.
    """
    try:
        return Instructions(
            Inner.from_bytes(config["inner"]),
            config["round"] if "round" in config else config["server-round"] - 1,
            config["cohort"],
            config["fleet-size"],
            config["seed"],
            config["exact"],
            tuple(config.get("devices", ())),
            Context(config.get("run", 0), config.get("saved", 0), _read_down(config)),
            tuple(config.get("alphas", ())),
            Codec.named(config.get("through", str(FP32))),
            config.get("chosen", b""),
        )
    except KeyError as error:
        raise ConfigError(
            f"the message's config lacks {error}. Start the strategy with train_config=instructions(...), "
            "from tinyfl.flower.messages."
        ) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{error}. {SAME_VERSION}") from error


def down_values(down: Encoded | None) -> dict[str, Any]:
    """The part of a message's config for boards, whose theta goes down as ``down``."""
    if down is None:
        return {}
    onto = {} if down.onto is None else {"onto": down.onto}
    return {"down": down.data, "codec": str(down.codec), **onto}


def _read_down(config: Mapping[str, Any]) -> Encoded | None:
    """Reads what ``down_values`` writes."""
    if "down" not in config:
        return None
    return Encoded(Codec.named(config["codec"]), config["down"], config.get("onto"))


def network_record(network: Network, trains: str = "task", classes: Sequence[str] = ()) -> ConfigRecord:
    """The network of a run: its plan in the boards' format, the name and input shape, which the plan omits, what the algorithm
    ``trains`` (tinyfl.algorithms.Algorithm), and the names of the outputs' ``classes``, for sensors."""
    named = {"classes": list(classes)} if classes else {}
    return ConfigRecord(
        {"name": network.name, "shape": list(network.shape), "plan": network.plan.bytes, "trains": trains, **named}
    )


def read_classes(content: RecordDict) -> tuple[str, ...]:
    """Reads the names of the network's classes in a message; empty if it has none."""
    record: Any = content.get(NETWORK)
    return tuple(map(str, (record or {}).get("classes", ())))


def read_network(content: RecordDict) -> tuple[Network, str] | None:
    """Reads the network in a message, and what the algorithm trains; None if the message has none.

    Raises ConfigError for an invalid one.
    """
    record: Any = content.get(NETWORK)
    if record is None:
        return None
    try:
        return from_plan(str(record["name"]), tuple(record["shape"]), record["plan"]), str(record["trains"])
    except (LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"the message holds no valid network ({error!r}). {SAME_VERSION}") from error


@lru_cache(maxsize=4)
def _header(parameters: int) -> bytes:
    """What NumPy writes before the values of a theta. It takes many times as long as the values, and depends on their number
    only."""
    file = BytesIO()
    np.save(file, np.zeros(parameters, "<f4"))
    return file.getvalue()[: -4 * parameters]


def theta_record(theta: F32) -> ArrayRecord:
    """A record with theta, float32 (parameters,), as its only array."""
    data = _header(len(theta)) + theta.astype("<f4", copy=False).tobytes()
    return ArrayRecord({"theta": Array("float32", theta.shape, NUMPY, data)})


def read_theta(record: ArrayRecord) -> F32:
    """Reads the only array of ``record``, float32 (parameters,)."""
    (array,) = record.values()
    values = array.shape[0] if len(array.shape) == 1 and array.stype == NUMPY else 0
    header = _header(values) if 0 < 4 * values < len(array.data) else b"\0"
    if array.data.startswith(header) and len(array.data) == len(header) + 4 * values:  # as theta_record writes it
        return np.frombuffer(array.data, "<f4", offset=len(header)).astype(np.float32)
    return np.ascontiguousarray(array.numpy(), dtype=np.float32)


def sum_record(total: I64) -> ArrayRecord:
    """A record with an exact sum, int64 (parameters,), as its only array."""
    data = total.astype("<i8").tobytes()
    return ArrayRecord({"sum": Array(dtype="int64", shape=total.shape, stype=RAW, data=data)})


def stretch_record(stretch: Stretch) -> RecordDict:
    """The reply after a stretch of rounds."""
    arrays = ArrayRecord({"theta": Array(stretch.theta), "losses": Array(stretch.loss)})
    absent = [(number, device, reason) for number, each in stretch.absent.items() for device, reason in each.items()]
    columns = zip(*absent, strict=True) if absent else ((), (), ())
    record = ConfigRecord({key: list(column) for key, column in zip(("rounds", "devices", "reasons"), columns, strict=True)})
    return RecordDict({"arrays": arrays, ABSENT: record})


def read_stretch(theta: F32, content: RecordDict, cohorts: U32) -> Stretch:
    """Reads the reply to a message for rounds with ``cohorts``, uint32 (rounds, cohort), from ``theta`` on.

    Raises Corrupt for any other reply.
    """
    absent: dict[int, dict[int, str]] = {}
    with corrupt("the reply"):
        arrays, record = content.array_records["arrays"], dict[str, Any](content.config_records[ABSENT])
        after, losses = np.asarray(arrays["theta"].numpy(), np.float32), np.asarray(arrays["losses"].numpy(), np.float64)
        for number, device, reason in zip(record["rounds"], record["devices"], record["reasons"], strict=True):
            absent.setdefault(int(number), {})[int(device)] = read_reason(reason)
    if after.shape != theta.shape or losses.shape != (len(cohorts),):
        raise Corrupt(f"the reply holds weights of shape {after.shape} and losses of shape {losses.shape}.")
    requested = range(len(cohorts))
    if not all(number in requested and np.isin(list(each), cohorts[number]).all() for number, each in absent.items()):
        raise Corrupt("the reply lists absent devices that were not requested.")
    return Stretch(after, losses, absent)


def metrics_record(updates: Updates, samples: int) -> MetricRecord:
    """The metrics of ``updates`` from devices that took ``samples`` samples each."""
    return MetricRecord({"num-examples": updates.devices * samples, "devices": updates.devices, "loss": updates.loss})


def absent_record(updates: Updates) -> dict[str, ConfigRecord]:
    """The record of absent devices under its key; empty if none are absent."""
    if not updates.absent:
        return {}
    return {ABSENT: ConfigRecord({str(device): reason for device, reason in updates.absent.items()})}


def kept_record(updates: Updates) -> dict[str, ConfigRecord]:
    """The record of what devices started from under its key; empty if they keep nothing."""
    if not updates.kept_from:
        return {}
    return {KEPT: ConfigRecord({"devices": list(updates.kept_from), "rounds": list(updates.kept_from.values())})}


def _read_kept(content: RecordDict, requested: Sequence[int]) -> Mapping[int, int]:
    """What devices among ``requested`` started from."""
    record: Any = content.config_records.get(KEPT)
    if not record:
        return {}
    kept = dict(zip(map(int, record["devices"]), map(int, record["rounds"]), strict=True))
    if not set(kept) <= {int(device) for device in requested}:
        raise Corrupt("the reply is about devices that were not requested.")
    return kept


@contextmanager
def corrupt(what: str) -> Iterator[None]:
    """Turns any exception from reading a reply into Corrupt, so that one bad node does not end a run."""
    try:
        yield
    except LinkError:
        raise
    except Exception as error:
        raise Corrupt(f"{what} cannot be read ({type(error).__name__}: {plain(error, 100)}).") from error


def read_reason(text: object) -> str:
    """The reason for a device's absence in a reply: ``text``, or ``corrupt`` if it is not a valid reason."""
    reason = str(text)[:100]
    return reason if REASON.fullmatch(reason) else Corrupt.reason


def read_error(error: Error) -> Error:
    """A node's error, with its text made safe to print."""
    return Error(error.code, plain(error.reason, MAX_REPORTED))


def _read_absent(content: RecordDict, requested: Sequence[int]) -> Mapping[int, str]:
    """The absent devices in a reply, each with its reason; all must be among ``requested``."""
    record: Mapping[str, Any] = content.config_records.get(ABSENT) or {}
    if len(record) > len(requested):
        raise Corrupt(f"the reply lists {len(record):,} absent devices, of {len(requested):,} requested.")
    absent = {int(device): read_reason(reason) for device, reason in record.items()}
    if absent and not set(absent) <= {int(device) for device in requested}:
        raise Corrupt("the reply lists absent devices that were not requested.")
    return absent


def read_phi(theta: F32, content: RecordDict) -> F32:
    """Reads the only array of a reply from any Flower client: float32 (parameters,), theta's shape.

    Raises Corrupt if the reply has no such array, Numeric if it is not finite.
    """
    with corrupt("the reply's array of weights"):
        (record,) = content.array_records.values()
        (array,) = record.values()
        phi = np.asarray(array.numpy(), dtype=np.float32)
    if phi.shape != theta.shape:
        raise Corrupt(f"the reply holds weights of shape {phi.shape}, not {theta.shape}.")
    if not np.isfinite(phi).all():
        raise Numeric("the reply holds non-finite weights.")
    return phi


def read_updates(theta: F32, content: RecordDict, requested: Sequence[int]) -> Updates:
    """Reads the updates of the devices ``requested`` from a node's reply: an exact sum over those not listed as absent, or the
    single update of a client without exact sums.

    Raises Corrupt, Numeric or Oversized for an unusable reply.
    """
    with corrupt("the reply"):
        metrics: dict[str, Any] = {key: value for record in content.metric_records.values() for key, value in record.items()}
        loss, devices = float(metrics.get("loss", float("nan"))), int(metrics.get("devices", 1))
        sums = [array for record in content.array_records.values() for array in record.values() if array.stype == RAW]
        total = np.frombuffer(sums[0].data, "<i8").astype(np.int64, copy=False) if sums else None
        absent = _read_absent(content, requested) if sums else {}
        kept = _read_kept(content, requested)
    if total is None:
        return Updates(theta, _fixed(read_phi(theta, content), theta), 1, loss, kept_from=kept)
    if total.shape != theta.shape or devices < 0 or devices + len(absent) != len(requested):
        raise Corrupt(
            f"the reply holds {total.size:,} sums over {plain(devices, 40)} devices with {len(absent)} absent, "
            f"of {len(requested)} requested."
        )
    bound = int(devices * (MAX_CHANGE / UNIT))
    if ((total > bound) | (total < -bound)).any():
        raise Oversized(f"the reply holds a sum that exceeds {devices:,} updates of at most {MAX_CHANGE:g}.")
    return Updates(theta, total, devices, loss, absent, kept)


def _fixed(phi: F32, theta: F32) -> I64:
    try:
        return core.fixed(phi, theta)
    except ValueError as error:
        raise Oversized(f"the reply holds an update out of range ({error}).") from error


def events_record(events: Sequence[Event], seconds: float) -> ConfigRecord:
    """The record of a node's events, and of the seconds that it worked."""
    short = [replace(event, detail=plain(event.detail, MAX_REPORTED)) for event in events]
    return ConfigRecord({"said": [json.dumps(asdict(event), ensure_ascii=False) for event in short], "seconds": seconds})


def read_events(content: RecordDict, devices: Devices, round: int) -> tuple[list[Event], float]:
    """Reads the events of a node's ``devices`` in this round, and the seconds that it worked. Unreadable records give none:
    they do not affect theta."""
    try:
        with corrupt("the events"):
            record: Any = content.config_records.get("events") or {"said": (), "seconds": 0.0}
            events = [_event(line) for line in record["said"][: MAX_EVENTS * len(devices)]]
            seconds = float(record["seconds"])
    except Corrupt:
        return [], 0.0
    here = [event for event in events if event.round == round and event.device in devices]
    return here, seconds if isfinite(seconds) and seconds > 0 else 0.0


def _event(line: str) -> Event:
    event = Event(**_read_json(line))
    if type(event.round) is not int or type(event.device) is not int:
        raise Corrupt("an event's round or device is not a whole number.")
    return Event(event.round, event.device, plain(event.board, 40), plain(event.what, 20), plain(event.detail, MAX_REPORTED))


def _read_json(line: str) -> dict[str, Any]:
    if len(line) > MAX_JSON:
        raise Corrupt(f"a record has {len(line):,} characters; the maximum is {MAX_JSON:,}.")
    return dict(json.loads(line))


def shard_record(name: str, devices: range, boards: Sequence[Mapping[str, Any]] = ()) -> RecordDict:
    """A node's reply to the roll call: its version, its name, its devices, and the records of its boards."""
    record: dict[str, Any] = {VERSION: __version__, "name": name, "first": devices.start, "size": len(devices)}
    record["boards"] = [json.dumps(board) for board in boards]
    return RecordDict({"shard": ConfigRecord(record)})


def read_shard(content: RecordDict) -> tuple[str, range, tuple[Mapping[str, Any], ...]]:
    """Reads a node's name, devices and boards from its reply to the roll call.

    Raises Corrupt for an invalid reply, ConfigError for a node of another version.
    """
    with corrupt("the reply to the roll call"):
        record: Any = content.config_records["shard"]
        name, version = plain(record["name"], 40), record.get(VERSION, "an older version")
        first, size = int(record["first"]), int(record["size"])
        if first < 0 or size < 1 or first + size > 1 << 32:
            raise Corrupt(f"a node claims to serve {plain(size, 40)} devices from {plain(first, 40)} on.")
        if len(record["boards"]) > size:
            raise Corrupt(f"a node claims to have {len(record['boards']):,} boards for {size:,} devices.")
        boards = tuple(map(_board, record["boards"]))
    if version != __version__:
        raise ConfigError(f"{name} has tinyfl {plain(version, 40)}, and the run is of {__version__}. {SAME_VERSION}")
    return name, range(first, first + size), boards


def _board(line: str) -> Mapping[str, Any]:
    """A board's record, without unknown keys and values of the wrong type."""
    record = {key: value for key, value in _read_json(line).items() if key in BOARD}
    valid = {key: value for key, value in record.items() if value is None or type(value) is BOARD[key]}
    return {key: plain(value, 100) if isinstance(value, str) else value for key, value in valid.items()}
