"""The directory of a study.

It holds ``study.toml``, a copy of the file; ``runs/``, a run directory for each run, named by what tells it from the others;
``search/``, the runs of a search; a log of the time; and what is made of them. What is done is seen from the runs themselves.
"""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinyfl.config import read_toml
from tinyfl.errors import RunError
from tinyfl.errors.words import plain, shell
from tinyfl.runs.directory import CONFIG, RESULT, RunDirectory
from tinyfl.runs.hashes import data_sha256
from tinyfl.studies.file import Study, read_study
from tinyfl.system.files import write_whole

FILE, RUNS, LOG, WORKERS_LOG = "study.toml", "runs", "log.jsonl", "workers.log"


@dataclass
class StudyDirectory:
    """The directory of a study at ``path``, made from ``file``; ``words`` of its command load the user's own code."""

    path: Path
    file: Path
    words: tuple[str, ...] = ()
    _hashes: dict[str, str] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """The command that goes on with the study or, once it is done, makes its table again."""
        return shell("tinyfl", "study", self.path / FILE, *self.words, "--out", self.path)

    def take(self, study: Study) -> None:
        """Copies the file of a new study.

        Raises RunError as ``demand_own`` does.
        """
        self.demand_own(study)
        if not (self.path / FILE).exists():
            write_whole(self.path / FILE, self.file.read_bytes())

    def demand_own(self, study: Study) -> None:
        """Raises RunError if the directory holds another study, or a run."""
        there = self.path / FILE
        if (self.path / CONFIG).exists():
            raise RunError(f"{self.path} holds a run, not a study. Give another --out.")
        if there.exists() and read_study(there).sha256 != study.sha256:
            what = _difference(read_toml(there), read_toml(self.file))
            raise RunError(
                f"{self.path} holds a study of another file: {what}. Go on with that one: {self.command}; or give another "
                "--out for this one."
            )

    def run(self, folder: str) -> Path:
        """The directory of the run in ``folder``."""
        return self.path / RUNS / folder

    def finished(self, folder: str) -> bool:
        """Whether the run in ``folder`` has finished."""
        return (self.run(folder) / RESULT).is_file()

    def result(self, path: Path) -> dict[str, Any] | None:
        """The result of the run at ``path``; None if it has not finished.

        Raises RunError if its data have changed since.
        """
        if not (path / RESULT).is_file():
            return None
        directory = RunDirectory(path)
        result, config, checkpoint = directory.result(), directory.config(), directory.checkpoint()
        if config.data and checkpoint:
            if config.data not in self._hashes:
                with suppress(OSError):  # the data are gone, and not needed
                    self._hashes[config.data] = data_sha256(config)
            if self._hashes.get(config.data, checkpoint.data_sha256) != checkpoint.data_sha256:
                raise RunError(
                    f"{config.data} was changed since {path} finished, so the study would mix two data sets. Restore it, or "
                    "give another --out."
                )
        return result

    def log(self, **record: Any) -> None:
        """Appends a line to the log of the study's time."""
        with (self.path / LOG).open("a") as file:
            file.write(f"{json.dumps(record)}\n")

    def took(self) -> dict[str, float]:
        """Seconds of processors that the study has had so far, and of those in rounds and evaluation."""
        sessions, rounds = dict[float, float](), 0.0
        lines = (self.path / LOG).read_text().splitlines() if (self.path / LOG).is_file() else []
        for line in lines:
            with suppress(ValueError, KeyError):  # a line cut off by a kill
                record = json.loads(line)
                sessions[record["session"]] = record["elapsed"] * record["workers"]
                rounds += record.get("rounds", 0.0) + record.get("evaluation", 0.0)
        return {"processor_seconds": sum(sessions.values()), "rounds_and_evaluation": rounds}


def _difference(before: Any, now: Any, where: str = "") -> str:
    """The first difference between two tables, in words."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys((*before, *now)):
            if before.get(key) != now.get(key):
                return _difference(before.get(key), now.get(key), f"{where}.{key}" if where else key)
    shown = [plain(json.dumps(each, default=str), 80) if each is not None else "absent" for each in (before, now)]
    return f"{plain(where, 80)} was {shown[0]} there, and is {shown[1]} in this file"
