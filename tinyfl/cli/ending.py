"""How SIGINT (Ctrl-C) and SIGTERM end a command.

The first signal interrupts the main thread, wherever it is; the verb stops, and a line on stderr gives the command that goes
on. Work that Python cannot interrupt, such as another library's C, has some seconds. Then, or at a second signal, the process
ends, and the children that it watches with it. That costs no more than kill -9 would: files are replaced atomically.
"""

import os
import select
import signal
import sys
import threading
from contextlib import suppress
from typing import NoReturn

from tinyfl.errors import Interrupted
from tinyfl.system.interrupts import current_message

GRACE_SECONDS = 3.5

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_signal, _message = 0, ""
"""The number of the first signal, 0 before it, and the message that was current then."""


def prepare() -> None:
    """From now on signals end this process in this way; a signal that the parent ignores stays ignored."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), name="tinyfl-ending", daemon=True).start()
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)


def interrupted(error: BaseException) -> bool:
    """Whether an interrupt led to ``error``, of any type: a library turns an interrupt of its import into an ImportError, and
    a child process that the terminal interrupts too fails in its own way."""
    return _interrupt_in(error) is not None or (_signal != 0 and not isinstance(error, SystemExit))


def leave(error: BaseException) -> NoReturn:
    """Prints how to go on after the interrupt ``error``, and ends the process with all its threads."""
    interrupt = _interrupt_in(error)
    text = interrupt if isinstance(interrupt, Interrupted) else _message or _again()
    with suppress(OSError):  # stderr may be closed
        print(f"tinyfl: {text}", file=sys.stderr, flush=True)
    os._exit(128 + (_signal or signal.SIGINT))


def _interrupt(number: int, _: object) -> None:
    global _signal, _message
    if not _signal:
        _signal, _message = number, current_message()
        sys.unraisablehook = threading.excepthook = _pass_over  # what fails now fails because of this
        raise KeyboardInterrupt


def _pass_over(_: object) -> None:
    pass


def _watch(reader: int) -> None:
    """Ends the process if the main thread does not: Python handles a signal between that thread's steps, this at once."""
    number = _next(reader)
    _next(reader, GRACE_SECONDS)
    show_cursor = "\r\n\x1b[?25h" if os.isatty(2) else ""
    with suppress(OSError):
        os.write(2, f"{show_cursor}tinyfl: {current_message() or _message or _again()}\n".encode(errors="replace"))
    os._exit(128 + number)


def _next(reader: int, seconds: float | None = None) -> int:
    """The number of the next of SIGNALS; 0 if none comes within ``seconds``."""
    while select.select([reader], [], [], seconds)[0]:
        if (number := os.read(reader, 1)[0]) in SIGNALS:
            return number
    return 0


def _again() -> str:
    from shlex import join

    return f"stopped. Start it again with: {join(['tinyfl', *sys.argv[1:]])}"


def _interrupt_in(error: BaseException | None) -> KeyboardInterrupt | None:
    """The interrupt that led to ``error``, or None."""
    seen = list[BaseException]()  # a library may raise an error from itself
    while error is not None and error not in seen and not isinstance(error, KeyboardInterrupt):
        seen.append(error)
        error = error.__cause__ or error.__context__
    return error if isinstance(error, KeyboardInterrupt) else None
