"""How a command ends that is asked to: by SIGINT (Ctrl-C), or by SIGTERM.

The first signal interrupts the main thread, wherever it is; the verb leaves what it does, and whoever asked is told how to go
on. Work that does not hear it, as in another library's C, has some seconds. Then, or at a second signal, the process is cut
off, and the children that it watches with it. That costs nothing that kill -9 would not: files are replaced whole.
"""

import os
import select
import signal
import sys
import threading
from contextlib import suppress
from typing import NoReturn

from tinyfl.errors import Interrupted
from tinyfl.system.interrupts import told_now

GRACE_SECONDS = 3.5

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_asked, _told = 0, ""
"""The number of the first signal, once it came; and what was to be told then."""


def prepare() -> None:
    """Has signals end this process so from now on; a signal that whoever started it had ignored stays so."""
    heard, hear = os.pipe()
    os.set_blocking(hear, False)
    signal.set_wakeup_fd(hear, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(heard,), name="tinyfl-ending", daemon=True).start()
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)


def interrupted(error: BaseException) -> bool:
    """Whether ``error`` is what became of an interrupt. It may have become anything: a library that is being loaded turns it
    into an ImportError, and a child that the terminal interrupts too fails in its own way."""
    return _interrupt_in(error) is not None or (_asked != 0 and not isinstance(error, SystemExit))


def leave(error: BaseException) -> NoReturn:
    """Tells how to go on after the interrupt ``error``, and ends the process; threads that are still at work end with it."""
    said = _interrupt_in(error)
    with suppress(OSError):  # nobody may be left to be told
        print(f"tinyfl: {said if isinstance(said, Interrupted) else _told or _again()}", file=sys.stderr, flush=True)
    os._exit(128 + (_asked or signal.SIGINT))


def _interrupt(number: int, _: object) -> None:
    global _asked, _told
    if not _asked:
        _asked, _told = number, told_now()
        sys.unraisablehook = threading.excepthook = _pass_over  # what fails now fails because of this
        raise KeyboardInterrupt


def _pass_over(_: object) -> None:
    pass


def _watch(heard: int) -> None:
    """Python hears of a signal between two of the main thread's steps, and this file at once."""
    number = _next(heard)
    _next(heard, GRACE_SECONDS)
    show_cursor = "\r\n\x1b[?25h" if os.isatty(2) else ""
    with suppress(OSError):
        os.write(2, f"{show_cursor}tinyfl: {told_now() or _told or _again()}\n".encode(errors="replace"))
    os._exit(128 + number)


def _next(heard: int, seconds: float | None = None) -> int:
    """The number of the next signal of ours; 0 where none comes within ``seconds``."""
    while select.select([heard], [], [], seconds)[0]:
        if (number := os.read(heard, 1)[0]) in SIGNALS:
            return number
    return 0


def _again() -> str:
    from shlex import join

    return f"stopped. Start it again with: {join(['tinyfl', *sys.argv[1:]])}"


def _interrupt_in(error: BaseException | None) -> KeyboardInterrupt | None:
    """The interrupt that led to ``error``, if one did."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error
