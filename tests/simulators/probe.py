"""The monitor of probe.c, from the host's side."""

import struct
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import pytest


def need(module: str) -> None:
    if find_spec(module) is None:
        pytest.skip(f"needs {module}: pip install 'tinyfl[firmware]'")


@dataclass
class Probe:
    """The monitor of probe.c on an emulated board."""

    machine: Any

    def ask(self, request: bytes, answer: int = 1) -> bytes:
        said = self.machine.exchange(request)
        assert len(said) == answer and said[:1] == request[:1], said
        return bytes(said[1:])

    def write(self, address: int, value: int, size: int = 4) -> None:
        self.ask(struct.pack("<cIBI", b"w", address, size, value))

    def read(self, address: int) -> int:
        return int.from_bytes(self.ask(struct.pack("<cI", b"r", address), 5), "little")
