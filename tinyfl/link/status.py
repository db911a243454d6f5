"""What a board says of itself: its description, its status, and an evaluation."""

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, TypeVar

from tinyfl.errors import Refused
from tinyfl.errors.words import plain
from tinyfl.link.messages.sensing import SensorRecord
from tinyfl.link.sensing import Sensor


class BoardState(IntEnum):
    """The state of a board."""

    empty = 0
    planned = 1
    ready = 2
    learning = 3
    learnt = 4
    failed = 5


@dataclass(frozen=True)
class Description:
    """A board's description of itself, its texts safe to print: sizes in bytes, clock in Hz, hashes SHA-256 or empty;
    ``store`` is the size of the slot for a program, and ``inference`` the hash of the program in it; ``areas`` is the size of
    each of the two areas that keep classes (0: none), ``classes`` what can give the embedding of class means, ``online`` what
    a head that learns online can be over, ``down`` how weights may be encoded, and ``sensors`` what those among its
    ``sources`` declare."""

    protocol: int
    firmware: str
    core: int
    board: str
    id: bytes
    clock: int
    arena: int
    buffer: int
    window: int
    slot: int
    layers: tuple[str, ...]
    dtypes: tuple[str, ...]
    inner: tuple[str, ...]
    sources: tuple[str, ...]
    plan: bytes
    model: bytes
    store: int
    inference: bytes
    areas: int = 0
    classes: tuple[str, ...] = ()
    online: tuple[str, ...] = ()
    down: tuple[str, ...] = ()
    sensors: tuple[Sensor, ...] = ()

    def demand_store(self, kept: str) -> None:
        """Raises Refused if the board has no store for what is ``kept``, such as "classes: they last"."""
        if not self.areas:
            raise Refused(
                f"board {self.id.hex()} ({self.board}) has no room in flash to keep {kept} until it loses power. "
                "docs/firmware.md (Memory) lists the boards that have."
            )


@dataclass(frozen=True)
class Status:
    """A board's status: its BoardState; ``round`` and ``base`` of its last round, the samples ``done``, their mean ``loss``
    and, after a failure, the core's ``code``; the SHA-256 of its ``weights``, or of the round's update, empty if unusable; the
    round, counted from 1, of what it had ``kept`` when the last one began (0: nothing); the maximum ``stack`` used, in bytes
    (0: unknown); how many samples of the last round's source came ``late``; and of what learns online the alarms of its drift
    monitor, ``drifts``, and the number of a sample whose label is ``wanted`` (0: none)."""

    state: int
    round: int
    base: bytes
    done: int
    loss: float
    code: int
    weights: bytes
    kept: int
    stack: int
    late: int = 0
    drifts: int = 0
    wanted: int = 0


@dataclass(frozen=True)
class Evaluated:
    """The mean loss over ``samples`` samples, and the number of them classified correctly."""

    samples: int
    loss: float
    right: int


T = TypeVar("T", Description, Status, Evaluated)


def said(cls: type[T], reply: Any) -> T:
    """Converts a reply's fields to ``cls``: lists to tuples, texts to printable ones."""
    return cls(**{field.name: _printable(getattr(reply, field.name)) for field in fields(cls)})


def _printable(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(Sensor.of(each) if isinstance(each, SensorRecord) else plain(each) for each in value)
    return plain(value) if isinstance(value, str) else value
