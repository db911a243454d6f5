"""How a process that serves ends at SIGINT or SIGTERM: in five seconds, from every state, and at once at the second signal."""

import os
import signal
import threading
import time

from tinyfl.errors import Interrupted

LAST_SECONDS = 4.5
"""What an orderly end may take. Children end with this process, however that ends."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """From now on SIGINT and SIGTERM set ``ended``; before ``serving`` they also raise KeyboardInterrupt in the main thread,
    which may wait for anything there. A thread sees to the deadline, since the main one hears nothing inside of C code."""

    def __init__(self) -> None:
        self.ended, self.serving = threading.Event(), False
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        for number in SIGNALS:
            signal.signal(number, self._heard)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reading,), name="tinyfl-stop", daemon=True).start()

    def _heard(self, *_: object) -> None:
        if self.ended.is_set():
            self._end()
        self.ended.set()
        if not self.serving:
            raise KeyboardInterrupt

    def _watch(self, reading: int) -> None:
        while os.read(reading, 1)[0] not in SIGNALS:
            pass
        threading.Thread(target=self._end_late, name="tinyfl-deadline", daemon=True).start()
        while os.read(reading, 1)[0] not in SIGNALS:
            pass
        self._end()

    def _end_late(self) -> None:
        time.sleep(LAST_SECONDS)
        self._end()

    def _end(self) -> None:
        os._exit(0 if self.serving else Interrupted.exit_code)
