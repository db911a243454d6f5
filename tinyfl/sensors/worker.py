"""Runs the C of a sensor in a process of its own (tinyfl.sensors.process), which is all that it can break or hold up.

It reads requests from its input and writes replies to its output, both pickled, and imports nothing of tinyfl.
"""

import ctypes
import pickle
import signal
import sys
from typing import Any

Request = tuple[int, str, bytes | None, int, int, bytes, int, int, int]
"""The device; its library; its readings, empty for none and None for those of before, and the bytes of each; the number of the
source; the round's tinyfl_stream; how many samples (below 0: all of the readings); the floats of x and of y."""

SECONDS = 5.0
"""Processor time of a sample, far more than a board's processor does in the time that it has for one."""

SPARE = 1 << 16
"""Floats behind a sample, for C that writes too much."""


class Device:
    """A device's copy of the library, which has its memory to itself, and its readings."""

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        self._readings, self._count = ctypes.create_string_buffer(0), 0

    def hold(self, readings: bytes, each: int) -> None:
        """Makes these its readings."""
        self._readings = ctypes.create_string_buffer(readings, len(readings))
        self._count = len(readings) // each if each else 0
        self._library.tinyfl_host_hold(self._readings if self._count else None, self._count, each)

    def samples(self, source: int, stream: bytes, count: int, inputs: int, outputs: int) -> tuple[bytes, list[int]]:
        """The floats of the samples, x and y of each, and their codes, up to the first that failed; of a recording, up to one
        more than it has readings."""
        stream_at = ctypes.create_string_buffer(stream, len(stream))
        room = (ctypes.c_float * (inputs + outputs + SPARE))()
        found, codes = list[bytes](), list[int]()
        self._library.tinyfl_host_begin(stream_at if count >= 0 else None)
        while count < 0 or len(codes) < count:
            signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)  # its signal ends this process
            code = self._library.tinyfl_host_sample(source, stream_at, len(codes), room)
            if count < 0 and (self._library.tinyfl_host_spent() or len(codes) > self._count):
                break
            codes.append(code)
            found.append(ctypes.string_at(room, 4 * (inputs + outputs)))
            if code < 0:
                break
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        return b"".join(found), codes


def main() -> None:
    """Answers requests until there are none."""
    devices = dict[int, Device]()
    while True:
        try:
            request: Any = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        device, path, readings, each, *rest = request
        if device not in devices:
            devices[device] = Device(path)
        if readings is not None:
            devices[device].hold(readings, each)
        pickle.dump(devices[device].samples(*rest), sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
