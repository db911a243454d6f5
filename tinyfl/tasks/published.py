"""What the tasks of published data sets share."""

import re
from dataclasses import replace

from tinyfl.data import Reading, Table
from tinyfl.data.devices import Seats
from tinyfl.tasks.npz import Npz
from tinyfl.tasks.standard import Standardisation

OPTION = re.compile(r" \(--[^()]*\)")
"""An option in a note, which these tasks do not take."""


class Published(Npz):
    """The task of a ``table`` of classes, as Npz makes it, but that its inputs are always standardised."""

    def __init__(
        self, table: Table, seed: int, standard: Standardisation | None, reading: Reading, seats: Seats | None = None
    ) -> None:
        super().__init__(table, seed, targets="classes", standard=standard, reading=reading, seats=seats)
        assert self.standardisation is not None
        self.standardisation = without_options(self.standardisation)


def without_options(standard: Standardisation) -> Standardisation:
    """``standard`` with notes that name no options."""
    return replace(standard, notes=tuple(OPTION.sub("", note) for note in standard.notes))
