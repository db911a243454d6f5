"""What is known of an algorithm, a task or an aggregator before its code is imported."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

KINDS = ("algorithm", "task", "aggregator")


@dataclass(frozen=True)
class Entry:
    """An algorithm, a task or an aggregator. ``where`` is its code, as module:name, imported when it is first used; ``about`` a
    line for people; ``defaults`` are its settings where the user gives none."""

    name: str
    where: str
    about: str
    defaults: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskEntry(Entry):
    """A task. ``tuned`` are its defaults with an algorithm of that name; ``file`` is what the user's --data holds, if it needs
    any, and ``converter``, as module:name, what makes it of a published set; ``shots_per_class``: whether shots are counted per
    class, not in total."""

    tuned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    file: str = ""
    converter: str = ""
    shots_per_class: bool = False


@dataclass(frozen=True)
class AggregatorEntry(Entry):
    """An aggregator. ``refusal`` says why it could not work with a cohort of this size and this share of poisoned devices;
    empty if it can."""

    refusal: Callable[[int, float], str] = lambda cohort, tolerate: ""


def by_name(*entries: Any) -> dict[str, Any]:
    """The entries in their order, by name."""
    return {entry.name: entry for entry in entries}
