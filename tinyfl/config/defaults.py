"""The defaults of each task and algorithm. Tuned on validation devices of other seeds, at equal sample gradients for each task:
bench/tune.py."""

from typing import Any

from tinyfl.config.settings import SETTINGS

BY_ALGORITHM: dict[str, dict[str, Any]] = {
    "tinyreptile": {"samples": 32, "batch": 1, "inner_lr": 0.01, "outer_step": 1.0},
    "reptile": {"samples": 50, "batch": 10, "inner_lr": 0.05, "outer_step": 1.0},
    "fedavg": {"samples": 40, "batch": 8, "inner_lr": 0.05, "outer_step": 1.0},
    "joint": {"samples": 32, "batch": 1, "inner_lr": 0.05, "outer_step": 1.0},
}
BY_TASK: dict[str, dict[str, Any]] = {
    "digits": {"network": "mlp-64-64", "devices": 1000, "cohort": 10, "rounds": 4000, "shots": (1, 5)},
    "sine": {"network": "mlp-64-64", "devices": 10000, "cohort": 1, "rounds": 31250, "shots": (10,)},
    "npz": {"network": "mlp-32", "cohort": 1, "rounds": 10000, "shots": (10,)},
    "omniglot": {"network": "conv-omniglot", "devices": 10000, "cohort": 8, "rounds": 5000, "shots": (1, 5)},
}
BY_BOTH: dict[tuple[str, str], dict[str, Any]] = {
    ("digits", "tinyreptile"): {"inner_lr": 0.1},
    ("digits", "reptile"): {"inner_lr": 0.5, "rounds": 2560},
    ("digits", "fedavg"): {"inner_lr": 0.2, "rounds": 3200},
    ("digits", "joint"): {"inner_lr": 0.2, "cohort": 4, "rounds": 10000},
    ("sine", "reptile"): {"inner_lr": 0.03, "rounds": 20000},
    ("sine", "fedavg"): {"inner_lr": 0.02, "samples": 32, "batch": 4, "cohort": 5, "rounds": 6250},
    ("sine", "joint"): {"inner_lr": 0.003},
    ("omniglot", "tinyreptile"): {"inner_lr": 0.05, "samples": 50},
}

OF_AN_ALGORITHM = {key for table in (*BY_ALGORITHM.values(), *BY_BOTH.values()) for key in table}
"""The settings of which another algorithm needs others."""


def defaults(task: str | None = None, algorithm: str | None = None) -> dict[str, Any]:
    """The settings of a run that says nothing but its task and algorithm; without those that resolve works out.

    Raises ConfigError where there is no such task or algorithm.
    """
    task = SETTINGS["task"].default if task is None else task
    algorithm = SETTINGS["algorithm"].default if algorithm is None else algorithm
    SETTINGS["task"].demand_choice(task)
    SETTINGS["algorithm"].demand_choice(algorithm)
    plain = {name: each.default for name, each in SETTINGS.items() if each.default is not None}
    both = BY_BOTH.get((task, algorithm), {})
    return {**plain, **BY_ALGORITHM[algorithm], **BY_TASK[task], **both, "task": task, "algorithm": algorithm}
