"""Interrupts: the message after one, and sections protected from one."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tinyfl.errors import Interrupted

_messages: list[Callable[[], str]] = []


@contextmanager
def interrupt_message(words: Callable[[], str]) -> Iterator[None]:
    """Turns a KeyboardInterrupt inside into an Interrupted with ``words``, unless it already is one."""
    _messages.append(words)
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt as stop:
        raise Interrupted(words()) from stop
    finally:
        _messages.remove(words)


def current_message() -> str:
    """The message of the innermost ``interrupt_message`` context; empty outside of any."""
    return _messages[-1]() if _messages else ""


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Delays interrupting signals until the end of the context, for short steps that belong together."""
    received: list[int] = []
    main = threading.current_thread() is threading.main_thread()  # only the main thread gets signals, and may set handlers
    handlers = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM) if main}
    original = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in original:
        signal.signal(number, lambda number, _: received.append(number))
    try:
        yield
    finally:
        for number, handler in original.items():
            signal.signal(number, handler)
        for number in received[:1]:
            original[number](number, None)


def ended_by_signal() -> threading.Event:
    """An event that is set by the first SIGINT or SIGTERM, for a server that then ends in its own way."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    return ended
