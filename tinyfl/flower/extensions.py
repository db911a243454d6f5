"""A task of an installed package on a federation: every node says beforehand whether it has it, and allows it.

A node that refuses ends the run, since a fleet without its devices would learn something else.
"""

import time
from collections.abc import Iterable

from flwr.app import ConfigRecord, Error, MessageType, RecordDict
from flwr.serverapp import Grid

from tinyfl import __version__
from tinyfl.config import Config
from tinyfl.errors import ConfigError
from tinyfl.errors.words import plain
from tinyfl.flower.allowed import Allowed, refuse_extensions
from tinyfl.flower.messages import MAX_REPORTED, SAME_VERSION, VERSION, Trouble
from tinyfl.flower.remote import GRACE_SECONDS, Post
from tinyfl.registry.installed import installed


def demand_task(grid: Grid, nodes: Iterable[int], config: Config) -> None:
    """Asks ``nodes`` whether they can do the run's task, if it is not tinyfl's own.

    Raises ConfigError with the reason of a node that cannot.
    """
    task = config.chosen("task")
    if task.built_in:
        return
    asked = RecordDict({"config": ConfigRecord({"task": task.name, "version": task.version})})
    answers = Post(grid).exchange(dict.fromkeys(nodes, asked), MessageType.QUERY, time.monotonic() + GRACE_SECONDS)
    for node, answer in answers.items():
        if isinstance(answer, Error) and answer.code == Trouble.failed:
            raise ConfigError(f"node {node} refuses the run: {plain(answer.reason, MAX_REPORTED)}")


def refuse_task(content: RecordDict, allowed: Allowed) -> None:
    """Raises ConfigError if the message is of another version of tinyfl, or asks for a task that this node lacks or does not
    allow, or has in another version. Imports nothing."""
    record = content.config_records.get("config", ConfigRecord())
    if (theirs := record.get(VERSION, __version__)) != __version__:
        raise ConfigError(f"the run is of tinyfl {plain(theirs, 40)}, and here is {__version__}. {SAME_VERSION}")
    name, version = str(record.get("task", "")), record.get("version", "")
    refuse_extensions({"task": name}, allowed)
    found = installed("task").get(name)
    if found and version != (here := f"{found.package} {found.version}"):
        raise ConfigError(f"task {name} is of {here} here, and of {plain(version, 80)} at the coordinator. Install the same.")
