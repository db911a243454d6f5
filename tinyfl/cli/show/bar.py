"""Progress on stderr: a bar or, in a file, a line now and then."""

import time
from typing import Protocol

from rich.progress import Progress, ProgressColumn

from tinyfl.cli.show.terminal import Terminal

LINE_SECONDS = 10.0
"""Between lines of progress in a file, such as a log of nohup, Slurm or CI."""


class Report(Protocol):
    """The progress of some work; as text, a line of it."""

    @property
    def stage(self) -> str: ...

    @property
    def done(self) -> int: ...

    @property
    def total(self) -> int: ...

    @property
    def figures(self) -> str: ...


class Bar:
    """A bar of progress on stderr; where a bar cannot move, a line every LINE_SECONDS, and the last."""

    def __init__(self, what: str, *columns: ProgressColumn) -> None:
        self.console = Terminal(stderr=True)
        self._bar = Progress(*columns, console=self.console)
        self._task = self._bar.add_task(what, total=None, figures="")
        self._due = time.monotonic() + LINE_SECONDS
        self._unsaid: Report | None = None

    def show(self, report: Report) -> None:
        if self.console.redraws:
            self._bar.start()
            what, done, total = report.stage, report.done, report.total
            self._bar.update(self._task, description=what, completed=done, total=total, figures=report.figures)
            return
        self._unsaid = report
        if (now := time.monotonic()) >= self._due:
            self._due = now + LINE_SECONDS
            self._say()

    def _say(self) -> None:
        if self._unsaid:
            self.console.print(str(self._unsaid), highlight=False, soft_wrap=True)
            self._unsaid = None

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self._say()
        if self._bar.live.is_started:
            self._bar.stop()
