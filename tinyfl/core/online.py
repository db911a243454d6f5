"""Online learning of one device (firmware/core/online.h)."""

import ctypes
from dataclasses import dataclass

import numpy as np

from tinyfl.core import binding
from tinyfl.core.arrays import F32, I32, U32, address, check_array
from tinyfl.core.binding import library
from tinyfl.core.calls import Code, Plan, check_code


@dataclass(frozen=True)
class Stretch:
    """What a device said of some samples, one row each: the code of the sample and that of the label which came after it,
    int32; its class, uint32, its confidence, anomaly score, outputs (samples, places), NaN beyond those there were, and the
    loss of the label, NaN without one, float32; and whether a reconstruction learnt from it, int32."""

    codes: I32
    answers: I32
    classes: U32
    confidence: F32
    scores: F32
    learnt: I32
    outputs: F32
    losses: F32


class Online:
    """A device that learns online, as the set in ``record`` says (firmware/SPEC.md, online learning), from ``outputs`` outputs.

    Raises ValueError if the core refuses them.
    """

    def __init__(self, record: bytes, outputs: int) -> None:
        size = library().tinyfl_native_online_bytes(record) if len(record) == RECORD_BYTES else 0
        if size == 0:
            raise ValueError("not a set that the core can run")
        self._classifies = record[0] == CLASSES
        _, self._inputs, self.size, self.places = np.frombuffer(record, np.uint32, 4).tolist()
        self.memory = np.zeros(size // 4, np.uint32)
        self._online = ctypes.create_string_buffer(library().tinyfl_native_online_size())
        check_code(library().tinyfl_native_online_init(self._online, record, outputs, address(self.memory)))

    @property
    def outputs(self) -> int:
        return int(self.memory[0])

    def learnt(self) -> bytes:
        """The state, means, variances, counts and head."""
        return self.memory.tobytes()[: library().tinyfl_native_online_learnt_bytes(self._online)]

    def restore(self, learnt: bytes) -> None:
        """Puts back what was learnt. Raises ValueError for other bytes than a device of this set leaves."""
        held = np.frombuffer(learnt, np.uint8).copy()
        check_code(library().tinyfl_native_online_restore(self._online, address(held), len(learnt)))

    def add(self) -> Code:
        return Code(library().tinyfl_native_online_add(self._online))

    def remove(self, number: int) -> Code:
        return Code(library().tinyfl_native_online_remove(self._online, number))

    @property
    def wanted(self) -> int:
        """The number of a sample whose label the device wants, since it was unsure of it; 0: none."""
        return int(library().tinyfl_native_online_wanted(self._online))

    def label(self, sample: int, number: int) -> Code:
        """The class of a sample, and one step."""
        return Code(library().tinyfl_native_online_label(self._online, sample, number))

    @property
    def head(self) -> F32:
        """Its weights (size + 1, outputs): the bias is the last row."""
        count = (self.size + 1) * self.outputs
        return np.frombuffer(self.learnt()[-4 * count :], np.float32).reshape(-1, self.outputs)

    def replace(self, head: F32) -> None:
        """Puts another ``head`` in its place, of at least as many outputs; all else stays. Raises ValueError for another."""
        held = np.ascontiguousarray(head, np.float32)
        check_array(held, np.float32, (self.size + 1, held.shape[-1]), "head")
        check_code(library().tinyfl_native_online_replace(self._online, held.shape[1], address(held)))

    def run(
        self,
        x: F32,
        labelled: U32,
        *,
        labels: U32 | None = None,
        targets: F32 | None = None,
        plan: Plan | None = None,
        theta: F32 | None = None,
    ) -> Stretch:
        """The samples ``x`` float32 (samples, inputs) one after another, through the frozen network ``plan``, ``theta`` if
        there is one. After each, the label in its row comes for the sample with the number ``labelled`` uint32 (samples,), 0
        for none: a class of ``labels`` uint32 (samples,), or ``targets`` float32 (samples, places).

        Raises ValueError if arrays do not fit one another.
        """
        count = len(x)
        check_array(x, np.float32, (count, self._inputs), "x")
        for name, array in (("labelled", labelled), ("labels", labels)):
            if array is not None:
                check_array(array, np.uint32, (count,), name)
        if labelled.any() and (labels if self._classifies else targets) is None:
            raise ValueError(f"give {'labels' if self._classifies else 'targets'} for this head")
        if targets is not None:
            check_array(targets, np.float32, (count, self.places), "targets")
        if plan is not None and theta is not None:
            check_array(theta, np.float32, (plan.weights,), "theta")
        numbers = [np.zeros(count, np.int32) for _ in range(3)]
        floats = [np.zeros(count, np.float32) for _ in range(2)]
        classes, outputs = np.zeros(count, np.uint32), np.full((count, self.places), np.nan, np.float32)
        losses = np.full(count, np.nan, np.float32)
        zeros = np.zeros(count, np.uint32) if labels is None else labels
        none = np.zeros((1, self.places), np.float32) if targets is None else targets
        job = binding.Stretch(
            None if plan is None else plan.pointer, address(theta), ctypes.addressof(self._online), count,
            address(x), address(labelled), address(zeros), address(none), address(numbers[0]), address(numbers[1]),
            address(classes), address(floats[0]), address(floats[1]), address(numbers[2]), address(outputs), address(losses),
        )  # fmt: skip
        check_code(library().tinyfl_native_online_run(ctypes.byref(job)))
        return Stretch(numbers[0], numbers[1], classes, floats[0], floats[1], numbers[2], outputs, losses)


RECORD_BYTES, CLASSES = 48, 1
