"""What devices keep from round to round, as the rounds see it."""

from dataclasses import dataclass

import numpy as np

from tinyfl.algorithms import Updates
from tinyfl.core import U32


@dataclass(frozen=True)
class KeptRounds:
    """The last counted round, counted from 1, of what each device keeps, uint32 (devices,); 0: nothing."""

    rounds: U32

    def after(self, updates: Updates, rounds: int) -> list[tuple[int, int, int]]:
        """Counts the round ``rounds``, and returns each device that started from an earlier state than that of its last round,
        with this round and that of the state. A later one is that of a round in which its update got lost."""
        devices = np.fromiter(updates.kept_from, np.int64)
        found = np.fromiter(updates.kept_from.values(), np.int64)
        expected = self.rounds[devices].astype(np.int64)
        lost = found < expected
        self.rounds[devices] = rounds
        return list(zip(devices[lost].tolist(), expected[lost].tolist(), found[lost].tolist(), strict=True))
