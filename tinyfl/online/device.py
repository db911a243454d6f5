"""A simulated device that learns online, and knows its classes by name."""

import struct
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.core import F32
from tinyfl.core.calls import Code
from tinyfl.core.online import Online, Stretch
from tinyfl.errors import TrainingError
from tinyfl.online.averages import NamedHead
from tinyfl.online.sets import Head, OnlineSet, Standardised
from tinyfl.online.starts import Start

STATE = "<4I2fI2f2I"
"""Of what is learnt (firmware/SPEC.md): outputs, count, samples, measured, confidence, error, compared, usual, excess, alarms,
number of the sample at the last one."""


class Device:
    """A device from ``start`` that does as ``set`` says. ``prior`` is the number of samples that stand behind the
    standardisation of the run, mean 0 and variance 1 or ``usual``, where inputs are standardised: 0 for statistics of its own
    samples alone."""

    def __init__(
        self, set: OnlineSet, start: Start, prior: int = 0, usual: tuple[NDArray[Any], NDArray[Any]] | None = None
    ) -> None:
        self.set, self.start = set, start
        self.names = list(start.names) if start.head is not None else []
        grows = set.head in (Head.classes, Head.labels)
        outputs = start.head.shape[1] if start.head is not None else 1 if grows else set.places
        self.core = Online(set.record, outputs)
        self._place = {name: number for number, name in enumerate(self.names)}
        self.refused = 0
        if start.head is not None or prior:
            self._begin(start, prior, usual)

    def _begin(self, start: Start, prior: int, usual: tuple[NDArray[Any], NDArray[Any]] | None) -> None:
        learnt = bytearray(self.core.learnt())
        width = {Standardised.nothing: 0, Standardised.inputs: self.set.inputs, Standardised.embeddings: self.set.size}
        count = width[self.set.standardised]
        if prior and self.set.standardised is Standardised.inputs:
            learnt[4:8] = struct.pack("<I", min(prior, self.set.cap or prior))
            mean, variance = usual if usual is not None else (np.zeros(count), np.ones(count))
            learnt[44 : 44 + 8 * count] = np.concatenate([mean, variance]).astype(np.float32).tobytes()
        if start.head is not None:
            learnt[44 + 8 * count + 4 * self.set.places :] = np.ascontiguousarray(start.head).tobytes()
        self.core.restore(bytes(learnt))

    @property
    def state(self) -> dict[str, Any]:
        """What the device says of itself."""
        _, _, samples, measured, confidence, error, _, _, _, drifts, drifted = struct.unpack(STATE, self.core.learnt()[:44])
        return {
            "samples": samples, "labelled": measured, "confidence": confidence, "error": error,
            "drifts": drifts, "drifted": drifted, "state_bytes": len(self.core.learnt()),
        }  # fmt: skip

    def run(self, x: F32, labelled: NDArray[np.uint32], y: NDArray[Any] | None) -> tuple[Stretch, NDArray[Any]]:
        """Samples ``x`` (samples, inputs) in turn; after each the label in its row of ``y`` comes for the sample with the
        number ``labelled``, 0 for none: a class by its name, or numbers (samples, outputs). Returns what the device said, and
        its classes by name, None before it knows one.

        Raises TrainingError if an embedding or an output is not finite.
        """
        if self.set.unsure and y is not None:
            return self._asking(x, labelled, y)
        wanted, knew = labelled.copy(), bool(self.names)
        if self.set.head is Head.classes and y is not None:
            numbers = self.numbers(wanted, y)
            stretch = self._run(x, wanted, labels=numbers)
        elif y is not None:
            answer = np.zeros((len(x), self.set.places), np.float32)
            answer[:, : y.shape[1]] = y
            stretch = self._run(x, wanted, targets=answer)
        else:
            stretch = self._run(x, np.zeros(len(x), np.uint32))
        named = np.array([*self.names, None], object)[np.minimum(stretch.classes, len(self.names))]
        if not knew:
            named[: int(np.append(wanted, 1).nonzero()[0][0]) + 1] = None  # the first output has no name yet
        return stretch, named

    def _asking(self, x: F32, labelled: NDArray[np.uint32], y: NDArray[Any]) -> tuple[Stretch, NDArray[Any]]:
        """The same if a label comes only for the sample that the device wants it of."""
        parts, named = list[Stretch](), np.empty(len(x), object)
        for row, number in enumerate(labelled.tolist()):
            parts.append(self._run(x[row : row + 1], np.zeros(1, np.uint32)))
            told = int(parts[-1].classes[0])
            named[row] = self.names[told] if told < len(self.names) else None
            if number and number == self.core.wanted:
                comes = np.array([number], np.uint32)
                place = self.numbers(comes, y[row : row + 1])
                if comes[0] and (code := self.core.label(number, int(place[0]))) is not Code.ok:
                    raise TrainingError(f"a label cannot be learnt ({code.name}). Give a smaller --rate, or check the inputs.")
        columns = {each.name: np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(Stretch)}
        return Stretch(**columns), named

    def _run(self, x: F32, labelled: NDArray[np.uint32], **answers: Any) -> Stretch:
        net = self.start.network
        plan, theta = (None, None) if net is None else (net.plan, self.start.theta)
        stretch = self.core.run(np.ascontiguousarray(x), labelled, **answers, plan=plan, theta=theta)
        bad = np.flatnonzero((stretch.codes != Code.ok) | ((stretch.answers != Code.ok) & (stretch.answers != Code.gone)))
        if bad.size:
            why = Code(int(stretch.codes[bad[0]] or stretch.answers[bad[0]])).name
            raise TrainingError(f"a sample cannot be learnt from ({why}). Give a smaller --rate, or check the inputs.")
        return stretch

    def numbers(self, labelled: NDArray[np.uint32], y: NDArray[Any]) -> NDArray[np.uint32]:
        """The number of each label that comes; one of a new class where no place is left is struck out of ``labelled``."""
        numbers = np.zeros(len(y), np.uint32)
        for row in np.flatnonzero(labelled):
            name = y[row]
            if name not in self._place and len(self.names) == self.set.places:
                labelled[row], self.refused = 0, self.refused + 1
                continue
            if name not in self._place:
                self._place[name] = len(self.names)
                self.names.append(name)
            numbers[row] = self._place[name]
        return numbers

    def share(self) -> NamedHead:
        """What leaves the device for an average of heads."""
        head, places = self.core.head, self.set.places
        if self.set.head is Head.classes:
            return NamedHead(head[:, : len(self.names)], tuple(self.names), places)
        return NamedHead(head, tuple(range(head.shape[1])), places)

    def take(self, head: NamedHead) -> None:
        """Goes on with ``head``, whose first classes are those of the device; statistics, counts and monitor stay."""
        if not head.names:
            return
        self.core.replace(head.weights)
        if self.set.head is Head.classes:
            self.names = list(head.names)
            self._place = {each: number for number, each in enumerate(self.names)}

    def forget(self, name: Any) -> Code:
        """Removes a class; the only one stays."""
        code = self.core.remove(self._place[name])
        if code is Code.ok:
            self.names.remove(name)
            self._place = {each: number for number, each in enumerate(self.names)}
        return code


def static(set: OnlineSet) -> OnlineSet:
    """The same without learning and without running standardisation: the model as it was trained."""
    return replace(set, rate=0.0, standardised=Standardised.nothing, alarm=0.0, unsure=0.0)
