"""What a device that learns online is to do, as one record (firmware/SPEC.md, online learning)."""

import struct
from dataclasses import dataclass
from enum import IntEnum

RECORD = "<4B6I5f"


class Head(IntEnum):
    """What the outputs are, and by which loss they learn."""

    values = 0
    classes = 1
    labels = 2
    reconstruct = 3


class Standardised(IntEnum):
    """What the running mean and variance are of."""

    nothing = 0
    inputs = 1
    embeddings = 2


@dataclass(frozen=True)
class OnlineSet:
    """Numbers of an input and of an embedding, which is the input itself without a frozen network (``embedded``); at most
    ``places`` outputs; ``ring`` embeddings that wait for labels. Mean and variance follow the last ``cap`` samples, error and
    confidence the last ``window``; 0: all. The head takes steps of ``rate``, its gradient bounded by ``clip``; a
    reconstruction learns from samples with a score below ``threshold``. The monitor gives an alarm when the error has been
    above what is usual, by more than ``tolerance``, for ``alarm`` in sum; 0: never. The label of a sample with a confidence
    below ``unsure`` is wanted; 0: of none."""

    head: Head
    inputs: int
    size: int
    places: int
    standardised: Standardised = Standardised.inputs
    embedded: bool = True
    ring: int = 1
    cap: int = 256
    window: int = 256
    rate: float = 0.05
    clip: float = 0.0
    threshold: float = float("inf")
    tolerance: float = 0.05
    alarm: float = 10.0
    unsure: float = 0.0

    @property
    def record(self) -> bytes:
        words = self.inputs, self.size, self.places, self.ring, self.cap, self.window
        unsure = min(round(256 * self.unsure), 255)
        floats = self.rate, self.clip, self.threshold, self.tolerance, self.alarm
        return struct.pack(RECORD, self.head, self.standardised, self.embedded, unsure, *words, *floats)

    @classmethod
    def read(cls, record: bytes) -> "OnlineSet":
        """The set of a record. Raises ValueError for bytes that are none."""
        if len(record) != struct.calcsize(RECORD):
            raise ValueError(f"{len(record)} bytes")
        head, standardised, embedded, unsure, *rest = struct.unpack(RECORD, record)
        inputs, size, places, ring, cap, window, rate, clip, threshold, tolerance, alarm = rest
        return cls(
            Head(head), inputs, size, places, Standardised(standardised), bool(embedded), ring, cap, window, rate, clip,
            threshold, tolerance, alarm, unsure / 256,
        )  # fmt: skip
