"""How well a run's model does on connected boards' own samples: those of their sensor, which stay on the board."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from tinyfl.algorithms import Inner
from tinyfl.core import F32
from tinyfl.devices.connected import reach
from tinyfl.devices.ports import port
from tinyfl.errors import LinkError
from tinyfl.link.board import WORK_SECONDS, LinkedBoard, Round, floats
from tinyfl.link.sensing import measure, sensor_of
from tinyfl.runs.adaptation import Initialisation
from tinyfl.system.loop import in_loop


@dataclass(frozen=True)
class Own:
    """A board's result on ``samples`` labelled samples of its sensor, of ``taken``, after it learnt from ``shots`` of them: the
    mean loss, and the share whose largest output was right."""

    board: str
    port: str
    shots: int
    samples: int
    taken: int
    loss: float
    accuracy: float


def on_own_samples(run: Path, urls: Sequence[str], sensor: str, *, shots: int, samples: int) -> dict[str, Any]:
    """Measures the model of ``run`` on the ``sensor`` of each of the boards at ``urls``: as it is, and after the board learnt
    from ``shots`` samples one by one. Nothing is committed to flash, and the board gets its weights back: those of the same
    network or, by a restart, those in its flash.

    Raises LinkError if a board does not answer, SensorFault if its sensor gives nothing to measure on.
    """
    learnt = Initialisation.load(run)
    learnt.demand_whole(run)
    rows = [in_loop(_board(url, learnt, sensor, shots, samples)) for url in urls]
    return {"run": str(run), "sensor": sensor, "boards": [asdict(row) for each in rows for row in each]}


async def _board(url: str, learnt: Initialisation, sensor: str, shots: int, samples: int) -> list[Own]:
    board, _ = await reach(port(url))
    try:
        sensor_of(board, sensor)
        before = await _held(board, learnt)
        await board.put_plan(learnt.network.plan.bytes)
        try:
            return [await _adapted(board, url, learnt, sensor, each, samples) for each in dict.fromkeys((0, shots))]
        finally:
            with suppress(LinkError):  # of the evaluation, if it failed
                await _put_back(board, before)
    finally:
        await board.close()


async def _adapted(board: LinkedBoard, url: str, learnt: Initialisation, sensor: str, shots: int, samples: int) -> Own:
    """The result after ``shots``."""
    await board.put_weights(learnt.theta)
    if shots:
        inner = Inner(samples=shots, rate=learnt.rate("stream", shots), clip=learnt.clip)
        base = sha256(floats(learnt.theta)).digest()
        await board.train(Round(0, 0, 0, inner.to_bytes(), base, sensor), WORK_SECONDS * max(1, shots))
    return await _measured(board, url, sensor, shots, samples)


async def _held(board: LinkedBoard, learnt: Initialisation) -> F32 | None:
    """The board's weights, if they are of this network; None if only its flash has what it held."""
    status, ours = await board.status(), sha256(learnt.network.plan.bytes).digest()
    if board.description.plan != ours or not status.weights:
        return None
    held = await board.weights(status)
    return held if len(held) == learnt.network.parameters else None


async def _put_back(board: LinkedBoard, before: F32 | None) -> None:
    """Leaves the board with the weights of ``before``; without any, as it starts, with those in its flash, if it has some."""
    if before is not None:
        await board.put_weights(before)
    else:
        await board.reset()


async def _measured(board: LinkedBoard, url: str, sensor: str, shots: int, samples: int) -> Own:
    # Recorded readings, if it has some, begin again, so that a second evaluation is the same.
    busy = sensor_of(board, sensor).seconds
    found = [await measure(board, sensor, WORK_SECONDS, None if number else 0, busy) for number in range(samples)]
    labelled = [each for each in found if each.labelled]
    count = max(len(labelled), 1)
    loss, right = sum(each.loss for each in labelled) / count, sum(each.right for each in labelled) / count
    return Own(board.description.id.hex(), url, shots, len(labelled), samples, loss, right)
