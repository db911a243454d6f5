"""A node's reply: its devices' part of a round, in one message.

A gateway replies with one sum or mean over all of its devices. If a message lists devices, or a node is a single device, the
updates stay separate, for strategies that inspect each one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, MessageType, RecordDict

from tinyfl import core
from tinyfl.algorithms import Updates
from tinyfl.core import F32, U32, Code
from tinyfl.errors import ConfigError, Corrupt
from tinyfl.fleet import Devices, Fleet, Phis, StretchFleet, absent, among, draw_cohorts
from tinyfl.flower.messages import (
    SAME_VERSION,
    Instructions,
    Trouble,
    absent_record,
    corrupt,
    kept_record,
    metrics_record,
    read_classes,
    read_instructions,
    read_network,
    read_reason,
    read_theta,
    stretch_record,
    sum_record,
    theta_record,
)
from tinyfl.networks import Network

APART = "apart"
"""The ConfigRecord of separate updates: their devices, losses and reasons."""


@dataclass(frozen=True)
class Request:
    """A parsed message to a node: theta float32 (parameters,), its instructions, whether to ``measure`` the loss only, and the
    network with what the algorithm trains; without them, the run config gives both. ``classes`` are the names of the network's,
    if its data have some."""

    theta: F32
    instructions: Instructions
    measure: bool
    network: tuple[Network, str] | None = None
    classes: tuple[str, ...] = ()


def read_request(content: RecordDict, message_type: str, defaults: Mapping[str, Any]) -> Request:
    """Parses a message; ``defaults`` are used for keys that its config lacks.

    Raises ConfigError for missing instructions or an invalid network.
    """
    arrays, config = content["arrays"], content["config"]
    assert isinstance(arrays, ArrayRecord)
    assert isinstance(config, ConfigRecord)
    instructions = read_instructions({**defaults, **config})
    measure = message_type == MessageType.EVALUATE
    if measure:
        # The weights stay, and the loss on the devices' own streams is measured.
        instructions = replace(instructions, inner=instructions.inner.still())
    return Request(read_theta(arrays), instructions, measure, read_network(content), read_classes(content))


def cohorts_of(told: Instructions) -> U32:
    """The cohort of each round, uint32 (rounds, cohort), ascending.

    Raises ConfigError if the message names devices that are none.
    """
    if not told.chosen:
        return draw_cohorts(told.seed, told.rounds, told.cohort, told.fleet_size)
    if not isinstance(told.chosen, bytes) or len(told.chosen) != 4 * told.cohort * len(told.rounds):
        raise ConfigError(
            f"the message names no {told.cohort:,} devices for each of {len(told.rounds):,} rounds. {SAME_VERSION}"
        )
    chosen = np.frombuffer(told.chosen, "<u4").astype(np.uint32).reshape(len(told.rounds), told.cohort)
    if (chosen[:, 1:] <= chosen[:, :-1]).any() or chosen.max() >= told.fleet_size:
        raise ConfigError(f"the message names devices twice, or outside the fleet of {told.fleet_size:,}. {SAME_VERSION}")
    return chosen


def cohort_at(devices: Devices, instructions: Instructions) -> U32:
    """The round's cohort within ``devices``, in ascending order."""
    return among(cohorts_of(instructions)[0], devices)


def answer(fleet: Fleet, devices: Devices, request: Request) -> RecordDict | Error:
    """The reply of a node that serves the ``devices`` of ``fleet``."""
    told = request.instructions
    if told.devices:
        named: U32 = np.array(told.devices, np.uint32)
        return _apart(named, fleet.run_each(named, told.round, request.theta, told.inner, told.context), told)
    return _content(fleet.run(cohort_at(devices, told), told.round, request.theta, told.inner, told.context), request)


def answer_stretch(fleet: StretchFleet, request: Request) -> RecordDict:
    """The reply of the node that serves all devices of ``fleet``, to a message that asks for a stretch of rounds."""
    told = request.instructions
    alphas = np.array(told.alphas, np.float64)
    return stretch_record(fleet.run_stretch(cohorts_of(told), told.round, request.theta, told.inner, alphas, told.through))


def one_by_one(cohort: U32, phis: Phis, request: Request) -> list[RecordDict | Error]:
    """The reply of each device of ``cohort``, as if each were a node."""
    answers = []
    for i in range(len(cohort)):
        total, reason = np.zeros(len(request.theta), np.int64), phis.reasons[i]
        try:
            total = total if reason else core.fixed(phis.phi[i], request.theta)
        except ValueError:  # from a remote node, which should have checked it
            reason = (Code.oversized if np.isfinite(phis.phi[i]).all() else Code.numeric).name
        device = cohort[i : i + 1]
        kept = {int(device[0]): phis.kept_from[i]} if phis.kept_from else {}
        updates = Updates(request.theta, total, int(not reason), float(phis.loss[i]), absent(device, (reason,)), kept)
        answers.append(_content(updates, request))
    return answers


def read_apart(content: RecordDict, request: Request, named: Sequence[int]) -> tuple[U32, Phis]:
    """Reads the separate updates of the devices ``named`` from a reply, in its order.

    Raises Corrupt if the reply has another shape.
    """
    with corrupt("the reply's separate updates"):
        record: Any = content.config_records[APART]
        devices: U32 = np.array(record["devices"], np.uint32)
        if sorted(devices.tolist()) != sorted(named):
            raise Corrupt(f"the reply is not from the {len(named):,} requested devices.")
        phi = np.ascontiguousarray(content.array_records["arrays"]["phis"].numpy(), np.float32)
        loss: F32 = np.array(record["losses"], np.float32)
        reasons = tuple(reason and read_reason(reason) for reason in record["reasons"])
        kept = tuple(map(int, record.get("kept", ())))
    if kept and len(kept) != len(named):
        raise Corrupt(f"the reply says of {len(kept):,} devices what they have kept, of {len(named):,}.")
    if (phi.shape, loss.shape, len(reasons)) != ((len(named), len(request.theta)), (len(named),), len(named)):
        raise Corrupt(f"the reply holds weights of shape {phi.shape} for {len(devices)} devices.")
    return devices, Phis(phi, loss, reasons, kept_from=kept)


def _content(updates: Updates, request: Request) -> RecordDict | Error:
    instructions = request.instructions
    metrics = metrics_record(updates, instructions.inner.total)
    if request.measure:
        return RecordDict({"metrics": metrics})
    further = {**absent_record(updates), **kept_record(updates)}
    if instructions.exact:
        return RecordDict({"arrays": sum_record(updates.sum), "metrics": metrics, **further})
    if not updates.devices:
        why = ", ".join(updates.left_out) or "none asked"
        return Error(Trouble.no_update, f"{why}: no usable update from this node's devices in the cohort")
    arrays = theta_record(updates.mean().astype(np.float32))
    return RecordDict({"arrays": arrays, "metrics": metrics, **further})


def _apart(devices: U32, phis: Phis, instructions: Instructions) -> RecordDict:
    usable = sum(not reason for reason in phis.reasons)
    record: dict[str, Any] = {"devices": devices.tolist(), "losses": phis.loss.astype(float).tolist()}
    record |= {"reasons": list(phis.reasons), "kept": list(phis.kept_from)}
    return RecordDict(
        {
            "arrays": ArrayRecord({"phis": Array(phis.phi)}),
            "metrics": metrics_record(
                Updates(np.empty(0, np.float32), np.empty(0, np.int64), usable, phis.mean_loss()), instructions.inner.total
            ),
            APART: ConfigRecord(record),
        }
    )
