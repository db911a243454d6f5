"""What travels: theta or sums in one ArrayRecord, figures in one MetricRecord, instructions in the ConfigRecord.

Stock strategies require just one ArrayRecord and one MetricRecord with ``num-examples``, in Flower's NumPy serialisation.
Exact sums, which only our strategy asks for, travel as their raw bytes: NumPy's header costs more than a small network.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord

from tinyfl.algorithms import Inner, Updates
from tinyfl.core import F32, I64
from tinyfl.errors import ConfigError

LEFT_OUT = "left-out-"
RAW = "tinyfl.i64le"


@dataclass(frozen=True)
class Instructions:
    """What a node is asked to do: which inner loop, on which cohort of how large a fleet, in which round. With ``exact`` it
    answers with int64 sums in place of the mean theta."""

    inner: Inner
    round: int
    cohort: int
    fleet_size: int
    seed: int
    exact: bool


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
        return Instructions(inner, current, config["cohort"], config["fleet-size"], config["seed"], exact=config["exact"])
    except KeyError as error:
        raise ConfigError(
            f"the message's config lacks {error}. Start the strategy with train_config=instructions(...), "
            "from tinyfl.flower.messages."
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


def read_sum(record: ArrayRecord) -> I64:
    """The exact sum in ``record``, int64 (parameters,)."""
    return np.frombuffer(record["sum"].data, "<i8").astype(np.int64, copy=False)


def metrics_record(updates: Updates, samples: int) -> MetricRecord:
    """The figures of ``updates`` on devices that took ``samples`` samples each."""
    record = MetricRecord({"num-examples": updates.devices * samples, "devices": updates.devices, "loss": updates.loss})
    for reason, count in updates.left_out.items():
        record[LEFT_OUT + reason] = count
    return record


def read_updates(theta: F32, arrays: ArrayRecord, metrics: MetricRecord) -> Updates:
    """The updates in a reply that carries an exact sum."""
    left_out = {key.removeprefix(LEFT_OUT): int(metrics[key]) for key in metrics if key.startswith(LEFT_OUT)}  # type: ignore[arg-type]
    return Updates(theta, read_sum(arrays), int(metrics["devices"]), float(metrics["loss"]), left_out)  # type: ignore[arg-type]
