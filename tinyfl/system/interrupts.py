"""Interrupts: what whoever makes one is told, and what they must not come between."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tinyfl.errors import Interrupted

_told: list[Callable[[], str]] = []


@contextmanager
def telling(words: Callable[[], str]) -> Iterator[None]:
    """Within, a KeyboardInterrupt becomes an Interrupted with ``words``, unless it has its own."""
    _told.append(words)
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt as stop:
        raise Interrupted(words()) from stop
    finally:
        _told.remove(words)


def told_now() -> str:
    """The words of the innermost work under way; empty where none has any."""
    return _told[-1]() if _told else ""


@contextmanager
def held_back() -> Iterator[None]:
    """Within, a signal that would interrupt waits: for steps that belong together, which take a moment."""
    came: list[int] = []
    main = threading.current_thread() is threading.main_thread()  # no other is interrupted, or may say how
    handlers = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM) if main}
    held = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in held:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
        for late in came[:1]:
            held[late](late, None)


def ended_by_signal() -> threading.Event:
    """What the first SIGINT or SIGTERM sets from now on, for a process that serves until then and ends in its own way."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    return ended
