"""A worker of a study: a process that makes one run after another, as its study tells it on stdin (tinyfl.studies.workers).

It takes a line of JSON for each run, and answers with lines of JSON: the run's progress, and its end.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tinyfl.errors import TinyflError
from tinyfl.errors.words import message
from tinyfl.flower.rounds import Progress
from tinyfl.registry import KINDS
from tinyfl.runs.directory import CONFIG
from tinyfl.simulation import simulate

Answer = Callable[[Mapping[str, Any]], None]

PROGRESS_SECONDS = 0.25
"""Between lines of progress."""


def do(folder: Path, options: Mapping[str, Any], threads: int, answer: Answer) -> None:
    """Makes the run in ``folder``, from its checkpoint if it has one, and answers with its seconds: of its rounds, of its
    evaluations, and in all."""
    clock = _Clock(answer)
    if (folder / CONFIG).is_file():
        again = {kind: options[kind] for kind in KINDS if kind in options}  # code that the directory cannot have loaded
        run = simulate(resume=folder, threads=threads, page=False, progress=clock.progress, **again)
    else:
        run = simulate(out=folder, threads=threads, page=False, progress=clock.progress, **options)
    answer({"seconds": {"rounds": run.result["seconds"], **clock.seconds()}})


class _Clock:
    """When a run and its evaluation began, from its progress, which is passed on."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._began = self._due = time.monotonic()
        self._evaluating: float | None = None

    def progress(self, report: Progress) -> None:
        now = time.monotonic()
        if report.stage == "evaluating" and self._evaluating is None:
            self._evaluating = now
        if now >= self._due:
            self._due = now + PROGRESS_SECONDS
            self._answer({"stage": report.stage, "done": report.done, "total": report.total})

    def seconds(self) -> dict[str, float]:
        now = time.monotonic()
        return {"evaluation": now - (self._evaluating or now), "all": now - self._began}


def main() -> None:
    """Makes the runs that stdin names, until it ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a user's code prints is no answer

    def answer(words: Mapping[str, Any]) -> None:
        answers.write(f"{json.dumps(words)}\n")
        answers.flush()

    for line in sys.stdin:
        job = json.loads(line)
        try:
            do(Path(job["folder"]), job["options"], job["threads"], answer)
        except TinyflError as error:
            answer({"failed": message(error), "code": error.exit_code})
        except MemoryError as error:
            answer({"failed": f"out of memory ({message(error)}). Give fewer --workers.", "code": TinyflError.exit_code})


if __name__ == "__main__":
    main()
