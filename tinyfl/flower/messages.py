"""What travels: theta or sums in one ArrayRecord, figures in one MetricRecord, instructions in the ConfigRecord.

Stock strategies require just one ArrayRecord and one MetricRecord with ``num-examples``, in Flower's NumPy serialisation.
Exact sums, which only our strategy asks for, travel as their raw bytes: NumPy's header costs more than a small network. What is
said in words, such as who is absent and why, stands in a ConfigRecord beside them, which stock strategies pass over.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from tinyfl import core
from tinyfl.algorithms import Inner, Updates
from tinyfl.core import F32, I64, MAX_CHANGE, UNIT
from tinyfl.errors import ConfigError
from tinyfl.link.errors import Corrupt, Numeric
from tinyfl.networks import Network, from_plan

RAW = "tinyfl.i64le"
MOST_LETTERS = 40
"""Of a reason, which goes into logs and checkpoints."""


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


def read_absent(content: RecordDict) -> Mapping[int, str]:
    """The absent devices in a reply. Raises Corrupt where they are none."""
    record = content.config_records.get(ABSENT)
    try:
        return {int(device): str(reason)[:MOST_LETTERS] for device, reason in record.items()} if record else {}
    except ValueError as error:
        raise Corrupt(f"the reply's absent devices are no numbers ({error}).") from error


def read_phi(theta: F32, content: RecordDict) -> F32:
    """The one float32 array (parameters,) of a reply, as any Flower client sends it, in theta's shape.

    Raises Corrupt where a reply has no such array, Numeric where it is not finite.
    """
    try:
        (record,) = content.array_records.values()
        (array,) = record.values()
        phi = np.asarray(array.numpy(), dtype=np.float32)
    except (ValueError, TypeError, EOFError) as error:
        raise Corrupt(f"the reply does not hold one array of weights ({error}).") from error
    if phi.shape != theta.shape:
        raise Corrupt(f"the reply holds weights of the shape {phi.shape}, not {theta.shape}.")
    if not np.isfinite(phi).all():
        raise Numeric("the reply holds weights that are not finite.")
    return phi


def read_updates(theta: F32, content: RecordDict, asked: Sequence[int]) -> Updates:
    """The updates in a reply of a node that has the devices ``asked`` of the cohort: an exact sum over them but for those that
    it says are absent; or one update of a client that knows nothing of sums.

    Raises Corrupt or Numeric for a reply that cannot be counted, ValueError for an update that is oversized.
    """
    metrics: dict[str, Any] = {key: value for record in content.metric_records.values() for key, value in record.items()}
    loss, devices = float(metrics.get("loss", float("nan"))), int(metrics.get("devices", 1))
    sums = [array for record in content.array_records.values() for array in record.values() if array.stype == RAW]
    if not sums:
        return Updates(theta, core.fixed(read_phi(theta, content), theta), 1, loss)
    total = np.frombuffer(sums[0].data, "<i8").astype(np.int64, copy=False)
    absent = read_absent(content)
    well = total.shape == theta.shape and devices >= 0 and devices + len(absent) == len(asked)
    if not well or (absent and not set(absent) <= {int(device) for device in asked}):
        raise Corrupt(f"the reply holds {total.size} sums over {devices} devices, and {len(absent)} absent, of {len(asked)}.")
    bound = int(devices * (MAX_CHANGE / UNIT))
    if ((total > bound) | (total < -bound)).any():
        raise ValueError(f"a sum that {devices} updates below {MAX_CHANGE:g} cannot have")
    return Updates(theta, total, devices, loss, absent)


def judged_record(phi: F32, *, devices: int, loss: float) -> RecordDict:
    """What a judge is shown of a node's update: under one name and with the weight of the node's devices, whatever the node
    said, since Flower ends the run over one that differs; and in float64, since Krum's distances are small differences of
    large squares."""
    arrays = ArrayRecord({"theta": Array(phi.astype(np.float64))})
    return RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": devices, "loss": loss})})


def shard_record(name: str, devices: range, boards: Sequence[Mapping[str, Any]] = ()) -> RecordDict:
    """What a node answers in the roll call: its name, its devices, and the records of its boards."""
    said: dict[str, Any] = {"name": name, "first": devices.start, "size": len(devices)}
    said["boards"] = [json.dumps(board) for board in boards]
    return RecordDict({"shard": ConfigRecord(said)})


def read_shard(content: RecordDict) -> tuple[str, range, tuple[Mapping[str, Any], ...]]:
    """Name, devices and boards of a node, from its answer in the roll call.

    Raises ConfigError where it is none.
    """
    try:
        said: Any = content.config_records["shard"]
        first, size = int(said["first"]), int(said["size"])
        if first < 0 or size < 1 or first + size > 1 << 32:
            raise ValueError(f"{size} devices from {first} on")
        return str(said["name"]), range(first, first + size), tuple(dict(json.loads(board)) for board in said["boards"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"a node does not say which devices it serves ({error!r}). Run tinyfl's ClientApp there, of this version."
        ) from error
