"""The process that runs a sensor's C on this machine, and a word where the C ends it."""

import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tinyfl.errors import SensorFault
from tinyfl.sensors import worker
from tinyfl.system.child import DEADLINE, Child


class Process:
    """Samples of the source ``name``, taken in a process that starts with the first and lasts until ``close``."""

    def __init__(self, name: str) -> None:
        self._name, self._lock = name, threading.Lock()
        self._child: Child | None = None
        self._held: dict[int, bytes] = {}

    def samples(self, device: int, path: Path, readings: bytes, each: int, *what: Any) -> tuple[bytes, list[int]]:
        """As tinyfl.sensors.worker.Device.samples, of the ``device`` whose library is at ``path``.

        Raises SensorFault if the C does not return, or breaks its process.
        """
        with self._lock:
            same = self._held.get(device) == readings
            request = (device, str(path), None if same else readings, each, *what)
            try:
                answer: tuple[bytes, list[int]] = self._asked(request)
            except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
                raise SensorFault(f"source {self._name} {self._end()} (on this machine).") from error
            self._held[device] = readings
            return answer

    def _asked(self, request: tuple[Any, ...]) -> Any:
        if self._child is None:
            command = [sys.executable, "-I", worker.__file__]
            self._child = Child(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        process = self._child.process
        assert process.stdin is not None
        assert process.stdout is not None
        pickle.dump(request, process.stdin)
        process.stdin.flush()
        return pickle.load(process.stdout)  # what this program wrote

    def _end(self) -> str:
        """Why the process ended."""
        assert self._child is not None
        code = self._child.process.wait(DEADLINE)
        self.close()
        if code == -signal.SIGVTALRM:
            return (
                f"took {worker.SECONDS:g} s of processor time for a sample, so its .sample may never return. Look for a loop "
                "without an end; the clock stands still here, so let tinyfl_reading wait"
            )
        return (
            f"broke the process that runs it ({signal.Signals(-code).name if code < 0 else code}). Look for an array that is "
            "written beyond its end, or a pointer that is NULL, in its C file"
        )

    def close(self) -> None:
        """Ends the process."""
        if self._child is not None:
            self._child.kill()
        self._child, self._held = None, {}
