"""A file of JSON lines that grows as a run goes on."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tinyfl.system.files import sync, writing


class Log:
    """Appends lines to the file at ``path``, each immediately. Raises RunError with the ``cure`` if a write fails."""

    def __init__(self, path: Path, cure: str) -> None:
        self._path, self._cure = path, cure
        with writing(path, cure):
            self._file = path.open("ab", buffering=0)

    def add(self, record: Mapping[str, Any]) -> None:
        """Appends a line."""
        self.add_lines([json.dumps(record)])

    def add_lines(self, lines: Iterable[str]) -> None:
        """Appends lines of JSON."""
        data = "".join(f"{line}\n" for line in lines).encode()
        with writing(self._path, self._cure):
            while data:  # an almost full disk takes a part first
                data = data[self._file.write(data) :]

    def save(self) -> None:
        """Flushes all lines to disk."""
        with writing(self._path, self._cure):
            sync(self._file.fileno())

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
