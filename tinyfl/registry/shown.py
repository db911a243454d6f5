"""What reports and model cards say of a task, tinyfl's own or not."""

import inspect
from typing import Any

from tinyfl.registry.tasks import TASKS


def shots_of(name: str, task: Any = None) -> str:
    """What shots are counted of: each "class", or a "device"; for a task that is not tinyfl's own, as its ``shots_per_class``
    says."""
    per_class = getattr(task, "shots_per_class", name in TASKS and TASKS[name].shots_per_class)
    return "class" if per_class else "device"


def about(name: str, task: Any) -> str:
    """A line about a task, for people; for a task that is not tinyfl's own, the first of its docstring."""
    return TASKS[name].about if name in TASKS else (inspect.getdoc(type(task)) or "").partition("\n")[0].strip().rstrip(".")
