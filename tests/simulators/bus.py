"""A chip's model without a core."""

import ctypes
from typing import Any


class Bus:
    """Loads and stores, by the regions that the chip ``name`` registers; ``state`` is its machine's."""

    def __init__(self, name: str, state: Any) -> None:
        from tinyfl.simulators.unicorn import peripherals

        self._state = state
        self._regions = list(peripherals.regions(peripherals.chip(name), state.uart))

    def read(self, address: int, size: int = 4) -> int:
        offset, region = self._at(address)
        return int(region.load(None, offset, size, ctypes.addressof(self._state)))

    def write(self, address: int, value: int, size: int = 4) -> None:
        offset, region = self._at(address)
        region.store(None, offset, size, value, ctypes.addressof(self._state))

    def _at(self, address: int) -> tuple[int, Any]:
        (found,) = ((start, region) for start, region in self._regions if start <= address < start + region.bytes)
        return address - found[0], found[1]
