"""A saved run's own code, given again by this user, since a run directory cannot have it loaded."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tinyfl.config import Config
from tinyfl.errors import RunError
from tinyfl.errors.words import shell
from tinyfl.registry.chosen import Chosen
from tinyfl.registry.own import own_code
from tinyfl.runs.directory import RunDirectory


def again(saved: Chosen, given: Any) -> Chosen:
    """A saved run's algorithm, task or aggregator as ``given`` again; without its code where that is None and no name loads it.

    Raises RunError for another one, another version, or one whose source Python could not find.
    """
    now = Chosen.read(saved.kind, saved if given is None else given)
    now = now.loaded() if now.of_package else now
    if now.name != saved.name or (now.version and saved.version and now.version != saved.version):
        raise RunError(
            f"the run was started with {saved.kind} {_shown(saved)} and this is {_shown(now)}. "
            "Restore what it was, or start a new run with another --out."
        )
    if now.code is not None and not (now.version and saved.version):
        raise RunError(
            f"nobody can tell whether {saved.called} is what the run was started with, since Python found no source of it. "
            "Start a new run with another --out, with the class in a file of its own, which can be resumed."
        )
    return now.over(saved)


def with_code(config: Config, **given: Any) -> Config:
    """``config``, read from a run directory, with the code that this user gives again, by kind.

    Raises RunError for other code than the run's.
    """
    given = own_code({kind: value for kind, value in given.items() if value is not None})
    loaded = {kind: again(config.chosen(kind), value) for kind, value in given.items()}
    return replace(config, extensions=tuple(loaded.get(each.kind, each) for each in config.extensions))


class Resumable(RunDirectory):
    """A run directory whose command for resuming has ``words`` too, which load the user's own code."""

    def __init__(self, path: Path, words: Sequence[str]) -> None:
        super().__init__(path)
        self._words = words

    @property
    def resume_command(self) -> str:
        return " ".join([super().resume_command, *map(shell, self._words)])


def _shown(chosen: Chosen) -> str:
    return f"{chosen.name} ({chosen.version})" if chosen.version else chosen.name
