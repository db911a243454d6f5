"""The workers of a study: processes that make its runs side by side, and end with this one."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any

from tinyfl.system.child import Child


@dataclass(frozen=True)
class Ended:
    """How a run ended: with the ``seconds`` of its rounds, its evaluations, and in all; or with ``why`` it failed, and an exit
    code."""

    seconds: Mapping[str, float] | None = None
    why: str = ""
    code: int = 0


Tell = Callable[[str, str, float], None]
"""Takes the progress of a run: its folder's name, its stage, and the share of it that is done."""


class Workers:
    """``count`` processes with ``threads`` each. Their stderr goes to ``log``. Use it in a ``with``, which ends them."""

    def __init__(self, count: int, threads: int, log: Path, tell: Tell) -> None:
        self._threads, self._log, self._tell = threads, log, tell
        self._pool = ThreadPoolExecutor(count, "tinyfl-study")
        self._free: SimpleQueue[_Worker] = SimpleQueue()
        self._all = [_Worker(log) for _ in range(count)]
        for worker in self._all:
            self._free.put(worker)

    def submit(self, folder: Path, options: Mapping[str, Any]) -> "Future[Ended]":
        """Makes the run in ``folder`` as soon as a worker is free."""
        return self._pool.submit(self._do, folder, options)

    def _do(self, folder: Path, options: Mapping[str, Any]) -> Ended:
        worker = self._free.get()
        try:
            job = {"folder": str(folder), "options": dict(options), "threads": self._threads}
            return worker.do(job, lambda stage, share: self._tell(folder.name, stage, share))
        finally:
            self._free.put(worker)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        for worker in self._all:
            worker.close()
        self._pool.shutdown()


class _Worker:
    """One process, started when it is first needed, and again if it ended."""

    def __init__(self, log: Path) -> None:
        self._log, self._closed, self._lock = log, False, Lock()
        self._child: Child | None = None

    def do(self, job: Mapping[str, Any], tell: Callable[[str, float], None]) -> Ended:
        process = self._started().process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(f"{json.dumps(job)}\n".encode())
            process.stdin.flush()
            for line in process.stdout:
                answer = json.loads(line)
                if "seconds" in answer:
                    return Ended(answer["seconds"])
                if "failed" in answer:
                    return Ended(why=answer["failed"], code=answer["code"])
                tell(answer["stage"], answer["done"] / max(answer["total"], 1))
        except (OSError, ValueError):  # it ended before, or in the middle of a line
            pass
        self._end()
        return Ended(why=f"its process ended in the middle of it, killed perhaps; {self._log} may say why.", code=1)

    def _started(self) -> Child:
        with self._lock:
            if self._closed:
                raise CancelledError
            if self._child is None:
                # -P: no module of the working directory takes the place of an installed one.
                command = [sys.executable, "-P", "-m", "tinyfl.studies.worker"]
                with self._log.open("ab") as log:
                    self._child = Child(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
            return self._child

    def _end(self) -> None:
        with self._lock:
            child, self._child = self._child, None
            if child:
                child.kill()

    def close(self) -> None:
        """Ends the process, for good."""
        self._closed = True
        self._end()
