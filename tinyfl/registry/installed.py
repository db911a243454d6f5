"""Algorithms, tasks and aggregators of installed packages: their entry points in the groups tinyfl.algorithms, tinyfl.tasks and
tinyfl.aggregators. Listing them imports none of their code."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinyfl.errors.words import plain

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


@dataclass(frozen=True)
class Installed:
    """Entry points of one name; ``package`` and ``version`` are those of the first one's distribution."""

    package: str
    version: str
    points: tuple["EntryPoint", ...]


def installed(kind: str) -> dict[str, Installed]:
    """The installed packages' entry points of this kind, by name, sorted."""
    from importlib.metadata import entry_points  # takes a while

    points: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=f"tinyfl.{kind}s"):
        if is_name(point.name) and point.dist is not None:
            points.setdefault(point.name, []).append(point)
    return {name: Installed(*_of(points[name][0]), tuple(points[name])) for name in sorted(points)}


def is_name(name: str) -> bool:
    """Whether an entry point of this name is listed."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name) is not None


def package_of(point: "EntryPoint") -> str:
    """The distribution of an entry point, with its version, for people."""
    return " ".join(_of(point))


def _of(point: "EntryPoint") -> tuple[str, str]:
    assert point.dist is not None
    return plain(point.dist.name, 80), plain(point.dist.version, 80)
