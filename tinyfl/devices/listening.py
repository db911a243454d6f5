"""A board that learns online from its own sensor: set up, watched and labelled over one link, and left to itself."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinyfl.devices.online import network_hash, put_network
from tinyfl.errors import ConfigError, Corrupt, Stale
from tinyfl.link.board import LinkedBoard
from tinyfl.link.online import STAGES, OnlineBoard, OnlineRecord, Watched, cut
from tinyfl.link.sensing import Sensor, sensor_of
from tinyfl.link.wire import Opener
from tinyfl.networks.layers import Loss
from tinyfl.online.device import Device
from tinyfl.online.sets import Head, OnlineSet, Standardised
from tinyfl.online.starts import HEADS, Start, of_nothing, of_run
from tinyfl.runs.adaptation import Initialisation
from tinyfl.system.loop import in_loop

RING = 16
"""Embeddings that a board keeps for labels: over a link the next sample may come before the label of the last."""

OPTIONS = {"standardised": "standardise"}
"""Settings with other names on the command line."""


@dataclass(frozen=True)
class Listening:
    """What a board is to do: learn from its ``sensor``, whose samples are all ``label``, empty: what the sensor itself says.
    For so many ``samples``; 0: without an end, watched for ``seconds``, a line each ``interval``. After that it goes on, unless
    told to ``stop``. It goes on from what it has learnt, unless told to begin ``anew``."""

    sensor: str
    label: str = ""
    samples: int = 0
    seconds: float = 60.0
    interval: float = 1.0
    stop: bool = False
    anew: bool = False


def _fitted(set: OnlineSet, sensor: Sensor, names: int) -> OnlineSet:
    """The set with what follows from its head: places, and whether labels can be wanted."""
    grows, asks = set.head is Head.classes, set.head in (Head.classes, Head.labels)
    places = max(set.places or sensor.outputs + 8, sensor.outputs, names) if grows else sensor.outputs
    return replace(set, places=places, unsure=set.unsure if asks else 0.0)


def device_for(sensor: Sensor, run: Initialisation | None, given: Mapping[str, Any]) -> Device:
    """A device that learns from samples of ``sensor``, with the settings ``given`` of its set: its sizes, head and ring are
    made to fit. With a run the running statistics begin at its standardisation, since a board's own samples are not
    standardised.

    Raises ConfigError if the run does not fit the sensor.
    """
    loss = Loss.softmax_cross_entropy if sensor.loss == Loss.prototypes else Loss(sensor.loss)
    start = of_run(run) if run else of_nothing(sensor.inputs, HEADS[loss])
    if start.inputs != sensor.inputs or start.kind is not HEADS[loss]:
        raise ConfigError(
            f"the run takes {start.inputs:,} inputs and learns {start.kind.name}; sensor {sensor.name} gives {sensor.inputs:,} "
            f"for {HEADS[loss].name}. Give a run on this sensor's samples: tinyfl run --sensor {sensor.name}"
        )
    set = OnlineSet(start.kind, start.inputs, start.size, 0, embedded=start.network is not None, ring=RING)
    set = replace(set, **given)
    if set.standardised is Standardised.embeddings:
        start = replace(start, head=None, names=())
    set = _fitted(set, sensor, len(start.names))
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
    opener: Opener,
    run: Initialisation | None,
    given: Mapping[str, Any],
    what: Listening,
    tell: Callable[[Watched], None],
) -> dict[str, Any]:
    """Lets the board behind ``opener`` learn from its own sensor, with the settings ``given`` of an OnlineSet, and ``every``,
    the samples from commit to commit (0: in the end only). A board that has learnt keeps its settings, and goes on from there.
    Passes what its monitor says to ``tell``. Returns what became of it, as plain data.

    Raises ConfigError for what makes no sense or differs from how a board learns already, DoesNotFit for a board that is too
    small, and the errors of a link.
    """
    return in_loop(_listen(opener, run, given, what, tell))


def stop(opener: Opener) -> dict[str, Any]:
    """Ends that at once. What is learnt stays; the rest is as in ``listen``."""
    return in_loop(_stop(opener))


async def _listen(
    opener: Opener, run: Initialisation | None, given: Mapping[str, Any], what: Listening, tell: Callable[[Watched], None]
) -> dict[str, Any]:
    board = await LinkedBoard.connect(opener)
    try:
        online, sensor = OnlineBoard(board), sensor_of(board, what.sensor)
        record = await _begin(online, board, sensor, run, given, what)
        if what.label and _set_of(record).head is not Head.classes:
            raise ConfigError("--label names a class, and this sensor has none. Leave it out: the sensor says its own.")
        begun = await online.listen(what.sensor, what.samples, labels=not what.label)
        watched = await _watch(online, what, begun, tell)
        if what.stop:
            await online.listen("")
        return await _ended(online, board, record, what.sensor, watched.samples, begun)
    finally:
        await board.close()


async def _stop(opener: Opener) -> dict[str, Any]:
    board = await LinkedBoard.connect(opener)
    try:
        online = OnlineBoard(board)
        before = await online.watched()
        if not before.places:
            raise ConfigError(f"board {board.description.id.hex()} learns nothing online, so there is nothing to stop.")
        samples = await online.listen("")
        record = await online.record()
        assert record is not None
        return await _ended(online, board, record, before.source, samples, samples)
    finally:
        await board.close()


async def _ended(
    online: OnlineBoard, board: LinkedBoard, record: OnlineRecord, sensor: str, samples: int, begun: int
) -> dict[str, Any]:
    """Keeps network and what is learnt, where there is a store; what a command says in the end."""
    kept = board.description.areas > 0
    if kept and record.stage == "learner":
        await board.commit(record.sha)
    if kept:
        await online.commit()
    after = await online.watched()
    return {
        "id": board.description.id.hex(), "sensor": sensor, "samples": samples, "new": samples - begun,
        "labels": after.labels, "error": after.error, "confidence": after.confidence, "drifts": after.drifts,
        "classes": list(after.names), "goes_on": bool(after.source), "kept": kept, "learnt": (await online.learnt()).hex(),
    }  # fmt: skip


def _set_of(record: OnlineRecord) -> OnlineSet:
    try:
        return OnlineSet.read(record.set)
    except ValueError:
        raise Corrupt("the record of the board's set cannot be read.") from None


async def _begin(
    online: OnlineBoard,
    board: LinkedBoard,
    sensor: Sensor,
    run: Initialisation | None,
    given: Mapping[str, Any],
    what: Listening,
) -> OnlineRecord:
    """Network and set, unless the board has learnt: then it goes on with its own."""
    learnt = (await online.watched()).samples
    if learnt and not what.anew and (had := await online.record()):
        start = of_run(run) if run else None
        if differs := _differing(had, sensor, start, given):
            raise ConfigError(
                f"board {board.description.id.hex()} has learnt from {learnt:,} samples, with {differs}. To go on with that, "
                "leave out the options that differ; to drop what it has learnt, give --anew."
            )
        if start and start.network is not None:
            await put_network(board, start.network, start.theta)
        return had
    device = device_for(sensor, run, {name: value for name, value in given.items() if name != "every"})
    await online.forget()
    start, sha = device.start, bytes(32)
    if start.network is not None:
        sha = await put_network(board, start.network, start.theta)
    stage = STAGES[0] if start.network is not None else STAGES[2]
    record = OnlineRecord(stage, sha, device.set.record, device.core.outputs, given.get("every", 0))
    await online.start(record)
    await online.put_back(device.core.learnt())
    if device.names:
        await online.put_head([str(name) for name in device.names], np.ascontiguousarray(device.core.head))
    return record


def _differing(had: OnlineRecord, sensor: Sensor, start: Start | None, given: Mapping[str, Any]) -> str:
    """In what the set of a board differs from what is asked for, in words; empty: in nothing."""
    set = _set_of(had)
    if set.inputs != sensor.inputs:
        return f"{set.inputs:,} inputs, while sensor {sensor.name} gives {sensor.inputs:,}"
    if start and network_hash(start) != had.sha:
        return "another network than the run's" if any(had.sha) else "no network"
    settings = {name: value for name, value in given.items() if name != "every"}
    asked = _fitted(replace(set, **settings), sensor, len(start.names) if start else 0)
    words = [
        f"{OPTIONS.get(name, name)} {_short(getattr(set, name))}"
        for name in settings
        if replace(set, **{name: getattr(asked, name)}).record != set.record
    ]
    if given.get("every", had.every) != had.every:
        words.append(f"every {had.every:,}")
    return ", ".join(words)


def _short(value: Any) -> str:
    return value.name if isinstance(value, Standardised) else f"{value:.3g}" if isinstance(value, float) else str(value)


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
