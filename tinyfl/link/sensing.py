"""A board's sensors: what it declares of them, and their samples and readings outside a round (firmware/SPEC.md, sensors)."""

from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite, prod
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from numpy.typing import NDArray

from tinyfl.core import F32
from tinyfl.errors import Corrupt, Refused, SensorFault
from tinyfl.errors.words import plain
from tinyfl.link.messages import sensing as messages

if TYPE_CHECKING:
    from tinyfl.link.board import LinkedBoard

UNLABELLED = 1
SILENT, NO_LABEL, NOT_FINITE, OTHER_SHAPE, UNFILLED, OVERRUN, OTHER_TYPE, OTHER_LABEL = range(-7, -15, -1)
"""Codes of a source (firmware/agent/source.h)."""

FAULTS = {
    SILENT: "gave no reading within its deadline, or 10 s without one: check the sensor's power and wires. If its readings are "
    "slower, declare a longer .deadline in its C file",
    NO_LABEL: "gave a sample without a label, and a round learns from labelled ones alone. Let its C file pass over readings "
    "without a label, or record with labels: tinyfl record --label NAME",
    NOT_FINITE: "gave a value that is not a finite number. Look for a division by 0, or the root or logarithm of a number "
    "below 0, in its C file",
    OTHER_SHAPE: "gives samples of another shape than the network's inputs and outputs. Take --task sensor, or change .shape "
    "and .outputs in its C file",
    UNFILLED: "left values of x, y or a reading unwritten: .shape, .outputs, or .channels and .type say more. Make these say "
    "what the C file writes, or let it set a value before it adds to it",
    OVERRUN: "wrote more values than x, y or a reading has by .shape, .outputs, or .channels and .type. Make these say what "
    "the C file writes",
    OTHER_TYPE: "gave tinyfl_reading a place for values of another type than its .type. Make both int16_t and "
    "TINYFL_READS_INT16, or float and TINYFL_READS_FLOAT32",
    OTHER_LABEL: "gave a label beyond its last class. Let .read, or the recording, give 0 to .outputs less 1, or -1 for none",
}


BUSY_SECONDS = 10.0
"""How long a sample may take whose sensor does not say (TINYFL_SILENCE): a request that came again would take another one."""


@dataclass(frozen=True)
class Sensor:
    """A sensor as its C file declares it: the ``type`` (float32, int16) and number of a reading's values, ``channels``; its
    ``rate``, in readings a second; the ``shape`` of a sample's x, and the ``outputs`` and ``loss`` (as in a plan) of its y; the
    ``deadline`` of a sample in ms, 0: none; and the names of y's classes, empty if they are numbers."""

    name: str
    type: str
    channels: int
    rate: float
    shape: tuple[int, ...]
    outputs: int
    loss: int
    deadline: int
    labels: tuple[str, ...] = ()

    @classmethod
    def of(cls, record: messages.SensorRecord) -> "Sensor":
        """What a board declares, its texts safe to print."""
        rate = record.rate if isfinite(record.rate) and record.rate >= 0 else 0.0
        return cls(
            plain(record.name), plain(record.type), record.channels, rate, tuple(record.shape), record.outputs, record.loss,
            record.deadline, names_in(plain(record.labels)),
        )  # fmt: skip

    @property
    def inputs(self) -> int:
        """Numbers in an x."""
        return prod(self.shape)

    @property
    def reading(self) -> np.dtype[np.void]:
        """A reading's bytes: its values, padded to 4 bytes, and its label."""
        kind = np.dtype("<i2" if self.type == "int16" else "<f4")
        label = -(-kind.itemsize * self.channels // 4) * 4
        return np.dtype(
            {"names": ["values", "label"], "formats": [(kind, (self.channels,)), "<i4"], "offsets": [0, label],
                "itemsize": label + 4}
        )  # fmt: skip

    @property
    def seconds(self) -> float:
        """How long a sample may take."""
        return self.deadline / 1000 if self.deadline else BUSY_SECONDS

    @property
    def words(self) -> str:
        """For people, such as int16 x 3 at 50 Hz, samples of 50 x 3 to 6."""
        shape = " x ".join(map(str, self.shape))
        return f"{self.type} x {self.channels} at {self.rate:g} Hz, samples of {shape} to {self.outputs}"


@dataclass(frozen=True)
class Sensed:
    """A sample of a source: x and y, float32, whether it is ``labelled`` (else y is 0), whether it came too late, and how many
    readings it took."""

    x: F32
    y: F32
    labelled: bool
    late: bool
    readings: int = 0


@dataclass(frozen=True)
class Measured:
    """What a board's network makes of a sample of its source: its loss and whether its largest output is the right one, 0 and
    False without a label; and the number of the ``best`` output."""

    loss: float
    right: bool
    best: int
    labelled: bool


def names_in(labels: str) -> tuple[str, ...]:
    """The names in a source's ``labels``."""
    return tuple(each.strip() for each in labels.split(",")) if labels else ()


def raise_fault(code: int, source: str, done: int) -> NoReturn:
    """Raises SensorFault for the negative ``code`` of ``source``, after ``done`` samples."""
    what = FAULTS.get(code, f"ended the round with its code {code}")
    raise SensorFault(f"source {source} {what} (after {done} samples).")


def sensor_of(board: "LinkedBoard", name: str) -> Sensor:
    """The board's sensor ``name``. Raises Refused for another name."""
    described = board.description
    if found := next((each for each in described.sensors if each.name == name), None):
        return found
    if name in described.sources:
        raise Refused(
            f"source {plain(name, 40)} of board {described.id.hex()} ({described.board}) declares no sensor. Give it "
            ".channels, .shape, .outputs and .loss in its C file (docs/firmware.md), and flash it again."
        )
    there = [each.name for each in described.sensors]
    close = get_close_matches(name, there, 1)
    cure = (
        f"Say --sensor {close[0] if close else there[0]}, or flash it with another C file: tinyfl flash --source FILE.c"
        if there
        else "Flash it with the firmware of its C file: tinyfl flash --source FILE.c"
    )
    raise Refused(
        f"board {described.id.hex()} ({described.board}) has no sensor called {plain(name, 40)}; it has "
        f"{', '.join(there) or 'none'}. {cure}"
    )


async def sample(board: "LinkedBoard", source: str, outputs: int, within: float, busy: float = 0.0) -> Sensed:
    """The next sample of ``source``, whose y has ``outputs`` numbers, and which may take ``busy`` seconds.

    Raises SensorFault if it cannot be taken, Refused during a round.
    """
    reply = await board.request(
        messages.SenseWrite(sequence=board.next(), source=source, readings=0, measure=0), within, busy=busy
    )
    if reply.code < 0:
        raise_fault(reply.code, source, 0)
    if reply.len is None or reply.data is None:
        raise Corrupt("the board's sample has no bytes.")
    data = await board.read(messages.SenseRead, reply.data, reply.len, within)
    if len(data) % 4 or len(data) < 4 * outputs:
        raise Corrupt(f"the board's sample has {len(data)} bytes, which are not its x and y.")
    values = np.frombuffer(data, "<f4").astype(np.float32)
    x, y = np.split(values, [len(values) - outputs])
    return Sensed(x, y, reply.code != UNLABELLED, reply.late > 0, reply.taken)


async def measure(board: "LinkedBoard", source: str, within: float, at: int | None = None, busy: float = 0.0) -> Measured:
    """What the board's network makes of the next sample of ``source``, which may take ``busy`` seconds; of recorded readings,
    from number ``at`` on.

    Raises SensorFault if it cannot be taken, Refused without weights.
    """
    request = messages.SenseWrite(sequence=board.next(), source=source, readings=0, measure=1, at=at)
    reply = await board.request(request, within, busy=busy)
    if reply.code < 0:
        raise_fault(reply.code, source, 0)
    if reply.loss is None or reply.right is None or reply.best is None:
        raise Corrupt("the board did not measure its sample.")
    return Measured(reply.loss, bool(reply.right), reply.best, reply.code != UNLABELLED)


async def readings(board: "LinkedBoard", sensor: Sensor, count: int, within: float) -> NDArray[np.void]:
    """The next readings of ``sensor``, up to ``count``, as many as fit a message: an array of ``sensor.reading``.

    Raises SensorFault if they cannot be taken.
    """
    request = messages.SenseWrite(sequence=board.next(), source=sensor.name, readings=count, measure=0)
    reply = await board.request(request, within, busy=count / sensor.rate if sensor.rate else BUSY_SECONDS)
    if reply.code < 0:
        raise_fault(reply.code, sensor.name, 0)
    if not reply.data or len(reply.data) % sensor.reading.itemsize:
        raise Corrupt(f"{len(reply.data or b'')} bytes arrived, which are no readings of {sensor.name}.")
    return np.frombuffer(reply.data, sensor.reading)
