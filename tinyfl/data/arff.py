"""Weka's ARFF files: attributes by name, then a row of values for each sample."""

import csv
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl.errors import DataError
from tinyfl.errors.words import plain

ATTRIBUTE = re.compile(r"""@attribute\s+("[^"]*"|'[^']*'|\S+)\s+(.*)""", re.IGNORECASE)


@dataclass(frozen=True)
class Arff:
    """Attributes, with the values of each that is nominal, and rows of texts, of which "?" is a missing value. ``source`` names
    the file in messages."""

    source: str
    nominal: dict[str, tuple[str, ...]]
    rows: list[list[str]]

    @classmethod
    def read(cls, source: str, text: str) -> "Arff":
        """Raises DataError for a text that is no such file."""
        nominal, lines, body = dict[str, tuple[str, ...]](), text.splitlines(), len(text)
        for number, line in enumerate(lines):
            if found := ATTRIBUTE.match(line.strip()):
                kind = found[2].strip()
                values = kind.strip("{}").split(",") if kind.startswith("{") else []
                nominal[found[1].strip("\"'")] = tuple(value.strip(" \"'") for value in values)
            if line.strip().lower() == "@data":
                body = number + 1
                break
        rows = [row for row in csv.reader(lines[body:], skipinitialspace=True) if row and not row[0].startswith("%")]
        if not nominal or not rows:
            raise DataError(f"{source} is no ARFF file: it has no @attribute, or no row after @data.")
        for number, row in enumerate(rows):
            if len(row) != len(nominal):
                raise DataError(f"{source}: row {number} has {len(row)} values, and there are {len(nominal)} attributes.")
        return cls(source, nominal, rows)

    def texts(self, name: str) -> NDArray[Any]:
        """The attribute's value in each row.

        Raises DataError if there is no such attribute.
        """
        if name not in self.nominal:
            raise DataError(f"{self.source} has no attribute {name}; it has {plain(', '.join(self.nominal), 200)}.")
        at = list(self.nominal).index(name)
        return np.array([row[at].strip(" \"'") for row in self.rows])

    def numbers(self, name: str) -> NDArray[np.float64]:
        """The attribute's value in each row; NaN where it is missing.

        Raises DataError if one is no number.
        """
        texts = self.texts(name)
        try:
            return np.where(texts == "?", "nan", texts).astype(np.float64)
        except ValueError as error:
            raise DataError(f"{self.source}: attribute {name} has a value that is no number ({plain(error)}).") from error
