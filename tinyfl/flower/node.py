"""What a node of the federation answers: its devices' part of a round, in one message.

A gateway answers with one sum or mean for all of its devices. Where a message names devices, or a node is a single one, each
update is kept apart, for strategies that look at them one by one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, MessageType, RecordDict

from tinyfl import core
from tinyfl.algorithms import Updates
from tinyfl.core import F32, U32, Code
from tinyfl.errors import Corrupt
from tinyfl.fleet import Fleet, Phis, absent, draw_cohort
from tinyfl.flower.messages import (
    Instructions,
    Trouble,
    absent_record,
    corrupt,
    metrics_record,
    read_instructions,
    read_network,
    read_reason,
    read_theta,
    sum_record,
    theta_record,
)
from tinyfl.networks import Network

APART = "apart"
"""The ConfigRecord of updates that are kept apart: their devices, losses and reasons."""


@dataclass(frozen=True)
class Request:
    """A message to a node, read: theta float32 (parameters,), what to do from there, and whether only to ``measure``; the
    network, where the message has it, else it is the run config's."""

    theta: F32
    told: Instructions
    measure: bool
    network: Network | None = None


def read_request(content: RecordDict, message_type: str, defaults: Mapping[str, Any]) -> Request:
    """What a message asks for; ``defaults`` fill in what its config does not say.

    Raises ConfigError where instructions are missing, or a network is none.
    """
    arrays, config = content["arrays"], content["config"]
    assert isinstance(arrays, ArrayRecord)
    assert isinstance(config, ConfigRecord)
    told = read_instructions({**defaults, **config})
    measure = message_type == MessageType.EVALUATE
    if measure:
        # A rate of 0 learns nothing and measures the loss on the devices' own streams.
        told = replace(told, inner=replace(told.inner, lr=0.0))
    return Request(read_theta(arrays), told, measure, read_network(content))


def cohort_at(devices: range, told: Instructions) -> U32:
    """The devices of the round's cohort that are among ``devices``, ascending."""
    cohort = draw_cohort(told.seed, told.round, told.cohort, told.fleet_size)
    first, last = np.searchsorted(cohort, [devices.start, devices.stop])
    return cohort[first:last]


def answer(fleet: Fleet, devices: range, asked: Request) -> RecordDict | Error:
    """The answer of a node that serves the part ``devices`` of ``fleet``."""
    told = asked.told
    if told.devices:
        named: U32 = np.array(told.devices, np.uint32)
        return _apart(named, fleet.run_each(named, told.round, asked.theta, told.inner), told)
    return _content(fleet.run(cohort_at(devices, told), told.round, asked.theta, told.inner), asked)


def one_by_one(cohort: U32, phis: Phis, asked: Request) -> list[RecordDict | Error]:
    """The answer of each device of ``cohort``, as if it were a node of its own."""
    answers = []
    for i in range(len(cohort)):
        total, reason = np.zeros(len(asked.theta), np.int64), phis.reasons[i]
        try:
            total = total if reason else core.fixed(phis.phi[i], asked.theta)
        except ValueError:  # of a node elsewhere, which should have seen to it
            reason = (Code.oversized if np.isfinite(phis.phi[i]).all() else Code.numeric).name
        without = absent(cohort[i : i + 1], (reason,))
        answers.append(_content(Updates(asked.theta, total, int(not reason), float(phis.loss[i]), without), asked))
    return answers


def read_apart(content: RecordDict, asked: Request, named: Sequence[int]) -> tuple[U32, Phis]:
    """The updates of the devices ``named`` in an answer that keeps them apart, in its order.

    Raises Corrupt where it is not of that shape.
    """
    with corrupt("the answer's updates, kept apart,"):
        said: Any = content.config_records[APART]
        devices: U32 = np.array(said["devices"], np.uint32)
        if sorted(devices.tolist()) != sorted(named):
            raise Corrupt(f"the answer is not for the {len(named):,} devices that were asked.")
        phi = np.ascontiguousarray(content.array_records["arrays"]["phis"].numpy(), np.float32)
        loss: F32 = np.array(said["losses"], np.float32)
        reasons = tuple(reason and read_reason(reason) for reason in said["reasons"])
    if (phi.shape, loss.shape, len(reasons)) != ((len(named), len(asked.theta)), (len(named),), len(named)):
        raise Corrupt(f"the answer holds {phi.shape} weights of {len(devices)} devices.")
    return devices, Phis(phi, loss, reasons)


def _content(updates: Updates, asked: Request) -> RecordDict | Error:
    told = asked.told
    metrics = metrics_record(updates, told.inner.samples * told.inner.passes)
    if asked.measure:
        return RecordDict({"metrics": metrics})
    if told.exact:
        return RecordDict({"arrays": sum_record(updates.sum), "metrics": metrics, **absent_record(updates)})
    if not updates.devices:
        why = ", ".join(updates.left_out) or "none asked"
        return Error(Trouble.no_update, f"{why}: no device of the cohort here sent a usable update")
    arrays = theta_record(updates.mean().astype(np.float32))
    return RecordDict({"arrays": arrays, "metrics": metrics, **absent_record(updates)})


def _apart(devices: U32, phis: Phis, told: Instructions) -> RecordDict:
    well = sum(not reason for reason in phis.reasons)
    samples = told.inner.samples * told.inner.passes
    said = {"devices": devices.tolist(), "losses": phis.loss.astype(float).tolist(), "reasons": list(phis.reasons)}
    return RecordDict(
        {
            "arrays": ArrayRecord({"phis": Array(phis.phi)}),
            "metrics": metrics_record(Updates(np.empty(0, np.float32), np.empty(0, np.int64), well, phis.mean_loss()), samples),
            APART: ConfigRecord(said),
        }
    )
