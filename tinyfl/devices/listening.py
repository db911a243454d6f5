"""A board that learns online from its own sensor: set up, watched and labelled over one link, and left to itself."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinyfl.devices.online import put_network
from tinyfl.errors import ConfigError, Stale
from tinyfl.link.board import LinkedBoard
from tinyfl.link.online import STAGES, OnlineBoard, OnlineRecord, Watched, cut
from tinyfl.link.sensing import Sensor, sensor_of
from tinyfl.link.wire import Opener
from tinyfl.networks.layers import Loss
from tinyfl.online.device import Device
from tinyfl.online.sets import Head, OnlineSet, Standardised
from tinyfl.online.starts import HEADS, of_nothing, of_run
from tinyfl.runs.adaptation import Initialisation
from tinyfl.system.loop import in_loop

RING = 16
"""Embeddings that a board keeps for labels: over a link the next sample may come before the label of the last."""


@dataclass(frozen=True)
class Listening:
    """What a board is to do: learn from its ``sensor``, whose samples are all ``label``, empty: what the sensor itself says.
    For so many ``samples``; 0: without an end, watched for ``seconds``, a line each ``interval``. It commits by itself after
    ``every`` samples, 0: in the end only. After that it goes on, unless told to ``stop``."""

    sensor: str
    label: str = ""
    samples: int = 0
    seconds: float = 60.0
    interval: float = 1.0
    every: int = 0
    stop: bool = False


def device_for(sensor: Sensor, run: Initialisation | None, set: OnlineSet) -> Device:
    """A device that learns as ``set`` says from samples of ``sensor``: its sizes, head and ring are made to fit. With a run the
    running statistics begin at its standardisation, since a board's own samples are not standardised.

    Raises ConfigError if the run does not fit the sensor.
    """
    loss = Loss.softmax_cross_entropy if sensor.loss == Loss.prototypes else Loss(sensor.loss)
    start = of_run(run) if run else of_nothing(sensor.inputs, HEADS[loss])
    if start.inputs != sensor.inputs or start.kind is not HEADS[loss]:
        raise ConfigError(
            f"the run takes {start.inputs:,} inputs and learns {start.kind.name}; sensor {sensor.name} gives {sensor.inputs:,} "
            f"for {HEADS[loss].name}. Give a run on this sensor's samples: tinyfl run --sensor {sensor.name}"
        )
    if set.standardised is Standardised.embeddings:
        start = replace(start, head=None, names=())
    grows = start.kind is Head.classes
    places = max(set.places or sensor.outputs + 8, sensor.outputs, len(start.names)) if grows else sensor.outputs
    embedded = start.network is not None
    set = replace(
        set, head=start.kind, inputs=start.inputs, size=start.size, places=places, embedded=embedded, ring=RING,
        unsure=set.unsure if start.kind in (Head.classes, Head.labels) else 0.0,
    )  # fmt: skip
    standard = run.standard if run else None
    shifted = standard is not None and bool(standard.mean.any() or (standard.scale != 1).any())
    if shifted and set.standardised is not Standardised.inputs:
        raise ConfigError("the run's inputs were standardised, and a board's own samples are not. Take --standardise inputs.")
    if standard is not None and (standard.target_mean.any() or (standard.target_scale != 1).any()):
        raise ConfigError("the run's values were standardised, and a board's own are not. Give a run on its sensor's samples.")
    if standard is None:
        return Device(set, start)
    return Device(set, start, min(set.cap, 256), (standard.mean, standard.scale**2))


def listen(
    opener: Opener, run: Initialisation | None, set: OnlineSet, what: Listening, tell: Callable[[Watched], None]
) -> dict[str, Any]:
    """Lets the board behind ``opener`` learn from its own sensor, from where it was if it has this very set, and passes what
    its monitor says to ``tell``. Returns what became of it, as plain data.

    Raises ConfigError for what makes no sense, DoesNotFit for a board that is too small, and the errors of a link.
    """
    return in_loop(_listen(opener, run, set, what, tell))


async def _listen(
    opener: Opener, run: Initialisation | None, set: OnlineSet, what: Listening, tell: Callable[[Watched], None]
) -> dict[str, Any]:
    board = await LinkedBoard.connect(opener)
    try:
        online, sensor = OnlineBoard(board), sensor_of(board, what.sensor)
        device = device_for(sensor, run, set)
        if what.label and device.set.head is not Head.classes:
            raise ConfigError("--label names a class, and this sensor has none. Leave it out: the sensor says its own.")
        sha = await _begin(board, online, device, what.every)
        begun = await online.listen(what.sensor, what.samples, labels=not what.label)
        watched = await _watch(online, what, begun, tell)
        if what.stop:
            await online.listen("")
        kept = board.description.areas > 0
        if kept and device.start.network is not None:
            await board.commit(sha)
        if kept:
            await online.commit()
        after = await online.watched()
        return {
            "id": board.description.id.hex(), "sensor": what.sensor, "samples": watched.samples, "new": watched.samples - begun,
            "labels": watched.labels, "error": watched.error, "confidence": watched.confidence, "drifts": watched.drifts,
            "classes": list(after.names), "goes_on": bool(after.source), "kept": kept, "learnt": (await online.learnt()).hex(),
        }  # fmt: skip
    finally:
        await board.close()


async def _begin(board: LinkedBoard, online: OnlineBoard, device: Device, every: int) -> bytes:
    """The network and the set, unless they are there and have learnt; the network's hash."""
    start = device.start
    sha = bytes(32)
    if start.network is not None:
        sha = await put_network(board, start.network, start.theta)
    stage = STAGES[0] if start.network is not None else STAGES[2]
    await online.start(OnlineRecord(stage, sha, device.set.record, device.core.outputs, every))
    if not (await online.watched()).samples:
        await online.put_back(device.core.learnt())
        if device.names:
            await online.put_head([str(name) for name in device.names], np.ascontiguousarray(device.core.head))
    return sha


async def _watch(online: OnlineBoard, what: Listening, begun: int, tell: Callable[[Watched], None]) -> Watched:
    end = time.monotonic() + what.seconds
    while True:
        watched = await online.watched()
        tell(watched)
        if what.label and watched.samples > begun:
            with suppress(Stale):  # labelled, or gone by now
                await online.label(watched.samples, _place(watched, cut(what.label)), what.label)
        if not watched.source if what.samples else time.monotonic() >= end:
            return watched
        await asyncio.sleep(what.interval)


def _place(watched: Watched, name: str) -> int:
    """The output of that name, else the first without one, else a new one."""
    names = watched.names
    return names.index(name) if name in names else names.index("") if "" in names else watched.outputs
