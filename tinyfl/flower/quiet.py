"""Flower's log, silent while this project's rounds run."""

import logging
import threading


class _Quiet:
    """Silences Flower, which logs every round and warns about intended settings, while any thread is inside."""

    def __init__(self) -> None:
        self._lock, self._inside, self._level = threading.Lock(), 0, logging.NOTSET

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                log = logging.getLogger("flwr")
                self._level = log.level
                log.setLevel(logging.ERROR)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                logging.getLogger("flwr").setLevel(self._level)


QUIET = _Quiet()
