"""An event loop for work that its caller waits for, also in a thread that runs a loop already, as a notebook's cells do."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

MAX_THREADS = 64
"""Maximum number of blocking calls at once, such as ports opening and emulated boards running."""


class Loop:
    """asyncio.Runner; where the caller's thread runs a loop already, the work is done in another. Use it in a ``with``."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._thread = ThreadPoolExecutor(1, "tinyfl-loop") if _running() else None
        self._call(self._runner.get_loop).set_default_executor(ThreadPoolExecutor(MAX_THREADS))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``. An interrupt cancels the work."""
        return self._call(partial(self._runner.run, work))

    def __enter__(self) -> "Loop":
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._runner.close)
        if self._thread:
            self._thread.shutdown()

    def _call(self, function: Callable[[], T]) -> T:
        if self._thread is None:
            return function()
        called = self._thread.submit(function)
        try:
            return called.result()
        except BaseException:
            if not called.done():  # an interrupt of this thread
                self._runner.get_loop().call_soon_threadsafe(_cancel_all)
            raise


def in_loop(work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, in a loop of its own."""
    with Loop() as loop:
        return loop.run(work)


async def every(works: Iterable[Awaitable[T]]) -> list[T]:
    """The results of all ``works``, done at once. If some fail, the error of the first of them, once all have ended: work that
    is left to itself would go on with a link that its caller closes."""
    done = await asyncio.gather(*works, return_exceptions=True)
    for each in done:
        if isinstance(each, BaseException):
            raise each
    return [each for each in done if not isinstance(each, BaseException)]


def _running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _cancel_all() -> None:
    for task in asyncio.all_tasks():
        task.cancel()
