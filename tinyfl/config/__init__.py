"""A run's config: what decides its result, down to the bit, and the fleet it runs on. Resolved from defaults, a TOML file and
options, in that order."""

import hashlib
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import tomli_w

from tinyfl.algorithms import Algorithm
from tinyfl.config.roster import Part, read_parts
from tinyfl.errors import ConfigError
from tinyfl.errors.words import plain
from tinyfl.networks import is_file
from tinyfl.tasks import FIRST_VALIDATION_DEVICE, TARGETS, Task, load_task
from tinyfl.tasks.standard import Standardisation

ALGORITHMS = ("tinyreptile", "reptile", "fedavg", "joint")
TASKS = ("digits", "sine", "npz", "omniglot")
AGGREGATORS = ("median", "trimmed-mean", "krum")
"""What may stand in for the mean (tinyfl.aggregators)."""

OWN_DATA = "npz"
"""The task that takes the user's data as they come, so that it matters what is made of them."""


@dataclass(frozen=True)
class Config:
    """What decides a run's result. ``nodes`` is a number of gateways or "devices"; ``adapt_lr`` 0: chosen on validation
    devices; ``clip`` 0: none; ``data`` is empty for tasks that bring their own, and then ``standardise`` and ``targets`` mean
    nothing; the first ``freeze`` layers do not learn.

    The last three decide it only where a device fails: a round counts with ``minimum`` updates, a board may take ``seconds``
    for its part, and ``fleet`` says where the devices are (none: all are simulated here)."""

    task: str
    data: str
    standardise: bool
    targets: str
    algorithm: str
    network: str
    devices: int
    cohort: int
    rounds: int
    samples: int
    batch: int
    inner_lr: float
    outer_step: float
    clip: float
    adapt_lr: float
    freeze: int
    shots: tuple[int, ...]
    tasks: int
    seed: int
    nodes: str
    robust: str
    tolerate: float
    noise: float
    update_clip: float
    minimum: int
    seconds: float
    fleet: tuple[Part, ...]

    def build(self) -> Algorithm:
        """The algorithm.

        Raises ConfigError where it cannot meta-learn as configured.
        """
        from tinyfl.algorithms.fedavg import FedAvg
        from tinyfl.algorithms.joint import Joint
        from tinyfl.algorithms.reptile import Reptile
        from tinyfl.algorithms.tinyreptile import TinyReptile

        if self.algorithm == "tinyreptile":
            return TinyReptile(self.rounds, self.samples, self.inner_lr, self.outer_step, self.clip)
        if self.algorithm == "reptile":
            return Reptile(self.rounds, self.samples, self.batch, self.inner_lr, self.outer_step, self.clip)
        if self.algorithm == "fedavg":
            return FedAvg(self.samples, self.batch, self.inner_lr, self.outer_step, self.clip)
        return Joint(self.samples, self.inner_lr, self.clip)

    def load_task(self, standard: Standardisation | None = None) -> Task:
        """The task, with its data; ``standard`` is what an earlier run did to them.

        Raises ConfigError or DataError where they are not usable.
        """
        data = Path(self.data) if self.data else None
        return load_task(self.task, data, self.seed, self.standardise, self.targets, standard)

    @property
    def older(self) -> bool:
        """Whether an older tinyfl resolved it, which did not say what the targets are. Its hash is not what it was then."""
        return self.task == OWN_DATA and not self.targets

    @property
    def calmer(self) -> str:
        """What has helped where learning diverges."""
        if self.task != OWN_DATA or self.standardise:
            return f"Start a new run with a smaller --inner-lr than {self.inner_lr:g}."
        own = " Your weights then start from other inputs than they were trained on." if is_file(self.network) else ""
        return f"x and y are learnt as they are in the file: start a new run with --standardise.{own}"

    @property
    def parts(self) -> tuple[Part, ...]:
        """The fleet's parts: ``fleet``, or simulated devices."""
        return self.fleet or (Part(native=self.devices),)

    @property
    def gateways(self) -> int | None:
        """How many gateways; None where each device is a node."""
        return None if self.nodes == "devices" else int(self.nodes)

    @property
    def poisoned(self) -> int:
        """How many poisoned devices of a full cohort Krum is told of."""
        return math.ceil(self.tolerate * self.cohort)

    def to_toml(self) -> str:
        """As a config file that ``load`` reads back."""
        return tomli_w.dumps(self._table())

    def sha256(self) -> str:
        """Hash of everything that decides the result, but for the data themselves: wherever their file lies."""
        hashed = replace(self, data="", minimum=0, seconds=0.0, fleet=())._table()
        if not self.targets:  # of a task that brings its own data, or of a tinyfl that had these settings not yet
            del hashed["standardise"], hashed["targets"]
        return hashlib.sha256(tomli_w.dumps(hashed).encode()).hexdigest()

    def _table(self) -> dict[str, Any]:
        return {**asdict(self), "shots": list(self.shots), "fleet": [part.to_toml() for part in self.fleet]}


MAY_CHANGE = ("minimum", "seconds", "fleet")
"""What a resumed run may do otherwise: it goes on to the same theta."""


# Tuned on validation devices of other seeds, at equal sample gradients for each task: bench/tune.py.
_BY_ALGORITHM: dict[str, dict[str, Any]] = {
    "tinyreptile": {"samples": 32, "batch": 1, "inner_lr": 0.01, "outer_step": 1.0},
    "reptile": {"samples": 50, "batch": 10, "inner_lr": 0.05, "outer_step": 1.0},
    "fedavg": {"samples": 40, "batch": 8, "inner_lr": 0.05, "outer_step": 1.0},
    "joint": {"samples": 32, "batch": 1, "inner_lr": 0.05, "outer_step": 1.0},
}
_BY_TASK: dict[str, dict[str, Any]] = {
    "digits": {"network": "mlp-64-64", "devices": 1000, "cohort": 10, "rounds": 4000, "shots": (1, 5)},
    "sine": {"network": "mlp-64-64", "devices": 10000, "cohort": 1, "rounds": 31250, "shots": (10,)},
    "npz": {"network": "mlp-32", "cohort": 1, "rounds": 10000, "shots": (10,)},
    "omniglot": {"network": "conv-omniglot", "devices": 10000, "cohort": 8, "rounds": 5000, "shots": (1, 5)},
}
_TUNED: dict[tuple[str, str], dict[str, Any]] = {
    ("digits", "tinyreptile"): {"inner_lr": 0.1},
    ("digits", "reptile"): {"inner_lr": 0.5, "rounds": 2560},
    ("digits", "fedavg"): {"inner_lr": 0.2, "rounds": 3200},
    ("digits", "joint"): {"inner_lr": 0.2, "cohort": 4, "rounds": 10000},
    ("sine", "reptile"): {"inner_lr": 0.03, "rounds": 20000},
    ("sine", "fedavg"): {"inner_lr": 0.02, "samples": 32, "batch": 4, "cohort": 5, "rounds": 6250},
    ("sine", "joint"): {"inner_lr": 0.003},
    ("omniglot", "tinyreptile"): {"inner_lr": 0.05, "samples": 50},
}


def resolve(options: Mapping[str, Any], file: Path | None = None) -> Config:
    """The config of ``options`` over ``file`` over the defaults of the task and algorithm. Options that are None are unset.
    Where an option names another algorithm than the file, the file's settings of its own algorithm do not count.

    Raises ConfigError for an unknown key, a wrong type, or numbers out of range.
    """
    table = read_toml(file) if file else {}
    if options.get("algorithm") not in (None, table.get("algorithm")):
        table = {k: v for k, v in table.items() if k not in ("samples", "batch", "inner_lr", "outer_step", "cohort", "rounds")}
    given = {**table, **{k: v for k, v in options.items() if v is not None}}
    known = {field.name for field in fields(Config)}
    for key in given:
        if key not in known:
            where = f"{file}: " if file else ""
            raise ConfigError(f"{where}no setting is called {key!r}. There are {', '.join(sorted(known))}.")
    task, algorithm = given.get("task", "digits"), given.get("algorithm", "tinyreptile")
    if task not in TASKS:
        raise ConfigError(f"no task is called {task!r}. There are {', '.join(TASKS)}.")
    if algorithm not in ALGORITHMS:
        raise ConfigError(f"no algorithm is called {algorithm!r}. There are {', '.join(ALGORITHMS)}.")
    if "fleet" in given:
        given = _with_fleet(given)
    values: dict[str, Any] = {
        "task": task, "algorithm": algorithm, "data": "", "devices": 0, "clip": 0.0, "adapt_lr": 0.0, "freeze": 0,
        "tasks": 2000, "seed": 0, "nodes": "1", "robust": "", "tolerate": 0.2, "noise": 0.0, "update_clip": 0.0,
        "minimum": 0, "seconds": 60.0, "fleet": (),
        "targets": "", **_BY_ALGORITHM[algorithm], **_BY_TASK[task], **_TUNED.get((task, algorithm), {}), **given,
    }  # fmt: skip
    # A network of the user's file was trained on inputs as they are.
    values.setdefault("standardise", task == OWN_DATA and not is_file(str(values["network"])))
    config = _checked(values)
    if "cohort" not in given and 0 < config.devices < config.cohort:
        config = replace(config, cohort=config.devices)
    _check_aggregator(config)
    # A private round in which nobody took part would be nothing but noise.
    return replace(config, minimum=max(config.minimum, 1)) if config.noise else config


def _with_fleet(given: dict[str, Any]) -> dict[str, Any]:
    """The settings with the fleet's parts read. The fleet says how many devices there are, and boards need a round to count
    only with one update at least.

    Raises ConfigError for parts that are none, or a number of devices that is another than theirs.
    """
    parts = read_parts(given["fleet"])
    size = sum(part.size for part in parts)
    if parts and given.get("devices", size) != size:
        raise ConfigError(f"{given['devices']} devices, but the fleet's parts have {size:,}. Leave --devices out.")
    least = int(any(not part.native for part in parts))
    minimum = given.get("minimum", least)
    if isinstance(minimum, int):  # what else it may be is refused with the other settings
        minimum = max(minimum, least)
    return {**given, "minimum": minimum, "fleet": parts, **({"devices": size} if parts else {})}


def read_toml(path: Path) -> dict[str, Any]:
    """The table in ``path``.

    Raises ConfigError where it cannot be read.
    """
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:  # the last for tables in tables without end
        raise ConfigError(f"{path}: {error}. A config is a TOML file such as any run directory's config.toml.") from error


def _checked(values: dict[str, Any]) -> Config:
    for field in fields(Config):
        value = values[field.name]
        if field.name == "shots":
            values["shots"] = _shots(value)
        elif field.name == "fleet":
            pass  # read before
        elif field.name == "nodes":
            values["nodes"] = plain(value)
        elif field.name == "data":
            values["data"] = str(value)
        elif field.type is float and isinstance(value, int) and not isinstance(value, bool):
            values[field.name] = float(min(max(value, -(10**300)), 10**300))
        elif not isinstance(value, field.type) or (isinstance(value, bool) and field.type is not bool):  # type: ignore[arg-type]
            raise ConfigError(f"{field.name} is {value!r}, not {field.type.__name__}.")  # type: ignore[union-attr]
    config = Config(**values)
    bounds: dict[str, tuple[float, float]] = {
        "devices": (0, FIRST_VALIDATION_DEVICE), "cohort": (1, 1 << 20), "rounds": (1, 1 << 31), "samples": (1, 1 << 24),
        "batch": (1, 1 << 24), "inner_lr": (1e-12, 1e6), "outer_step": (1e-12, 1e6), "clip": (0, 1e12),
        "adapt_lr": (0, 1e6), "freeze": (0, 64), "tasks": (2, 1 << 24), "seed": (0, (1 << 63) - 1), "minimum": (0, 1 << 20),
        "seconds": (0.1, 1e6), "noise": (0, 1e6), "update_clip": (0, 1e6),
    }  # fmt: skip
    for name, (low, high) in bounds.items():
        value = getattr(config, name)
        if not low <= value <= high:
            raise ConfigError(f"{name} is {value:,}, out of its range {low:,} to {high:,}. Give --{name.replace('_', '-')}.")
    if config.algorithm in ("tinyreptile", "joint") and config.batch != 1:
        raise ConfigError(f"{config.algorithm} has no --batch: leave it out, or say --algorithm reptile.")
    for name in ("data", "network"):
        if "\0" in getattr(config, name):
            raise ConfigError(f"{name} is {getattr(config, name)!r}, and no name or path has a zero in it. Give --{name}.")
    if config.targets not in TARGETS:
        raise ConfigError(f"targets is {config.targets!r}. Give --targets classes or values, or leave it out.")
    if config.task != OWN_DATA and (config.standardise or config.targets):
        raise ConfigError(
            f"task {config.task} brings its own inputs and targets: leave --standardise and --targets out, or say --task npz."
        )
    if config.nodes != "devices" and not re.fullmatch(r"0*[1-9][0-9]{0,9}", config.nodes):
        raise ConfigError(f"nodes is {config.nodes!r}. Give --nodes N for N gateways, or --nodes devices.")
    return config


def _check_aggregator(config: Config) -> None:
    """Raises ConfigError where an aggregator, or noise, could not do what it is for."""
    if config.robust not in ("", *AGGREGATORS):
        raise ConfigError(
            f"no aggregator is called {config.robust!r}. There are {', '.join(AGGREGATORS)}, or none for the mean."
        )
    if not 0 <= config.tolerate < 0.5:
        raise ConfigError(
            f"tolerate is {config.tolerate:g}, and no aggregator withstands half of a cohort. Give 0 to below 0.5."
        )
    cohort, bad, cut = config.cohort, config.poisoned, int(config.tolerate * config.cohort)
    if config.robust and config.noise:
        raise ConfigError("--robust with --noise: what noise buys is known for the plain mean alone. Leave one of them out.")
    if config.noise and not config.update_clip:
        raise ConfigError("--noise is in units of the most that a device can add: say what that is with --update-clip NORM.")
    if (config.robust or config.update_clip) and config.nodes != "devices":
        raise ConfigError(
            f"{f'--robust {config.robust}' if config.robust else '--update-clip'} would see only sums over gateways, and one "
            "poisoned update poisons a sum: a trial with 20 of 100 poisoned devices behind 4 gateways moved the trimmed mean "
            "from 1.0 to 2,000. Give --nodes devices."
        )
    if config.robust and cohort < 3:
        raise ConfigError(
            f"--robust {config.robust} goes by the majority, and {cohort} devices have none. Give --cohort 3 or more."
        )
    if config.robust == "krum" and cohort < 2 * bad + 3:
        raise ConfigError(
            f"krum withstands {bad} of a cohort with {2 * bad + 3} devices or more, and this one has {cohort}. "
            "Give a larger --cohort, or a smaller --tolerate."
        )
    if config.robust == "trimmed-mean" and config.tolerate and not cut:
        raise ConfigError(
            f"the trimmed mean of {cohort} devices at --tolerate {config.tolerate:g} cuts off none of them. "
            f"Give --cohort {math.ceil(1 / config.tolerate)} or more, or a larger --tolerate."
        )


def _shots(value: Any) -> tuple[int, ...]:
    items = value if isinstance(value, list | tuple) else [value]
    if not items or not all(isinstance(n, int) and not isinstance(n, bool) and 0 < n <= 10_000 for n in items):
        raise ConfigError(f"shots is {value!r}. Give whole numbers from 1 to 10,000, such as --shots 1 --shots 5.")
    return tuple(sorted(set(items)))
