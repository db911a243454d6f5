"""A run's config: what decides its result, down to the bit, and the fleet it runs on. Resolved from defaults, a TOML file and
options, in that order."""

import hashlib
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from tinyfl.config.defaults import OF_AN_ALGORITHM, defaults
from tinyfl.config.roster import Part, read_parts
from tinyfl.config.settings import AGGREGATORS, ALGORITHMS, MAY_CHANGE, OWN_DATA, SETTINGS, TASKS, Setting, Settings, renamed
from tinyfl.errors import ConfigError

if TYPE_CHECKING:
    from tinyfl.algorithms import Algorithm
    from tinyfl.tasks import Task
    from tinyfl.tasks.standard import Standardisation

__all__ = [
    "AGGREGATORS", "ALGORITHMS", "MAY_CHANGE", "OWN_DATA", "TASKS", "Config", "read_settings", "read_toml", "renamed",
    "resolve",
]  # fmt: skip


@dataclass(frozen=True)
class Config(Settings):
    """What decides a run's result. ``nodes`` is a number of gateways or "devices"; ``adapt_lr`` 0: chosen on validation
    devices; ``clip`` 0: none; ``data`` is empty for tasks that bring their own, and then ``standardise`` and ``targets`` mean
    nothing; the first ``freeze`` layers do not learn.

    The last three decide it only where a device fails: a round counts with ``minimum`` updates, a board may take ``seconds``
    for its part, and ``fleet`` says where the devices are (none: all are simulated here)."""

    def build(self) -> "Algorithm":
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

    def load_task(self, standard: "Standardisation | None" = None) -> "Task":
        """The task, with its data; ``standard`` is what an earlier run did to them.

        Raises ConfigError or DataError where they are not usable.
        """
        from tinyfl.tasks import load_task

        data = Path(self.data) if self.data else None
        return load_task(self.task, data, self.seed, self.standardise, self.targets, standard)

    @property
    def older(self) -> bool:
        """Whether an older tinyfl resolved it, which did not say what the targets are. Its hash is not what it was then."""
        return self.task == OWN_DATA and not self.targets

    @property
    def calmer(self) -> str:
        """What has helped where learning diverges."""
        from tinyfl.networks import is_file

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
        """As a config file that ``resolve`` reads back."""
        return tomli_w.dumps(self._table())

    def sha256(self) -> str:
        """Hash of everything that decides the result, but for the data themselves: wherever their file lies."""
        hashed = replace(self, data="", minimum=0, seconds=0.0, fleet=())._table()
        if not self.targets:  # of a task that brings its own data, or of a tinyfl that had these settings not yet
            del hashed["standardise"], hashed["targets"]
        of_then = {
            SETTINGS[name].formerly or name: value
            for name, value in hashed.items()
            if not (SETTINGS[name].newer and getattr(self, name) == SETTINGS[name].default)
        }
        return hashlib.sha256(tomli_w.dumps(of_then).encode()).hexdigest()

    def _table(self) -> dict[str, Any]:
        return {**asdict(self), "shots": list(self.shots), "fleet": [part.to_toml() for part in self.fleet]}


def resolve(options: Mapping[str, Any], file: Path | None = None) -> Config:
    """The config of ``options`` over ``file`` over the defaults of the task and algorithm. Options that are None are unset.
    Where an option names another algorithm than the file, the file's settings of its own algorithm do not count.

    Raises ConfigError for an unknown key, a wrong type, or numbers out of range.
    """
    table = read_settings(file) if file else {}
    options = renamed({key: value for key, value in options.items() if value is not None})
    if options.get("algorithm", table.get("algorithm")) != table.get("algorithm"):
        table = {key: value for key, value in table.items() if key not in OF_AN_ALGORITHM}
    given = {**table, **options}
    for key in given:
        if key not in SETTINGS:
            where = f"{file}: " if file else ""
            raise ConfigError(f"{where}no setting is called {key!r}. There are {', '.join(sorted(SETTINGS))}.")
    values = defaults(given.get("task"), given.get("algorithm"))
    if "fleet" in given:
        given = _with_fleet(given)
    values |= given
    if "standardise" not in values:
        from tinyfl.networks import is_file

        # A network of the user's file was trained on inputs as they are.
        values["standardise"] = values["task"] == OWN_DATA and not is_file(str(values["network"]))
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


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in ``path``, by the names of today.

    Raises ConfigError where they cannot be read.
    """
    return renamed(read_toml(path))


def _checked(values: Mapping[str, Any]) -> Config:
    """The config of these values.

    Raises ConfigError where one is of another type, out of range, or does not go with another.
    """
    config = Config(**{name: _read(each, values[name]) for name, each in SETTINGS.items()})
    for name, each in SETTINGS.items():
        _demand_in_range(each, getattr(config, name))
    if config.batch != 1 and config.algorithm not in SETTINGS["batch"].algorithms:
        raise ConfigError(f"{config.algorithm} has no --batch: leave it out, or say --algorithm reptile.")
    if config.task != OWN_DATA and (config.standardise or config.targets):
        raise ConfigError(
            f"task {config.task} brings its own inputs and targets: leave --standardise and --targets out, or say --task npz."
        )
    if config.nodes != "devices" and not re.fullmatch(r"0*[1-9][0-9]{0,9}", config.nodes):
        raise ConfigError(f"nodes is {config.nodes!r}. Give --nodes N for N gateways, or --nodes devices.")
    return config


def _read(setting: Setting, value: Any) -> Any:
    """``value`` as the setting's type; ConfigError where it is of another."""
    if setting.read:
        return setting.read(value)
    kind = setting.kind
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(min(max(value, -(10**300)), 10**300))
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{setting.name} is {value!r}, not {kind.__name__}.")
    return value


def _demand_in_range(setting: Setting, value: Any) -> None:
    """Raises ConfigError where ``value`` is out of the setting's range, or none of its choices."""
    name, (low, high) = setting.name, setting.bounds or (-math.inf, math.inf)
    if setting.bounds and not low <= value <= high:
        raise ConfigError(f"{name} is {value:,}, out of its range {low:,} to {high:,}. Give {setting.option}.")
    if setting.choices:
        setting.demand_choice(value)
    elif isinstance(value, str) and "\0" in value:
        raise ConfigError(f"{name} is {value!r}, and no name or path has a zero in it. Give {setting.option}.")


def _check_aggregator(config: Config) -> None:
    """Raises ConfigError where an aggregator, or noise, could not do what it is for."""
    if not 0 <= config.tolerate < 0.5:
        raise ConfigError(
            f"tolerate is {config.tolerate:g}, and no aggregator withstands half of a cohort. Give 0 to below 0.5."
        )
    cohort, bad, cut = config.cohort, config.poisoned, int(config.tolerate * config.cohort)
    if config.aggregator and config.noise:
        raise ConfigError(
            "--aggregator with --noise: what noise buys is known for the plain mean alone. Leave one of them out."
        )
    if config.noise and not config.update_clip:
        raise ConfigError("--noise is in units of the most that a device can add: say what that is with --update-clip NORM.")
    if (config.aggregator or config.update_clip) and config.nodes != "devices":
        raise ConfigError(
            f"{f'--aggregator {config.aggregator}' if config.aggregator else '--update-clip'} would see only sums over "
            "gateways, and one poisoned update poisons a sum: a trial with 20 of 100 poisoned devices behind 4 gateways moved "
            "the trimmed mean from 1.0 to 2,000. Give --nodes devices."
        )
    if config.aggregator and cohort < 3:
        raise ConfigError(
            f"--aggregator {config.aggregator} goes by the majority, and {cohort} devices have none. Give --cohort 3 or more."
        )
    if config.aggregator == "krum" and cohort < 2 * bad + 3:
        raise ConfigError(
            f"krum withstands {bad} of a cohort with {2 * bad + 3} devices or more, and this one has {cohort}. "
            "Give a larger --cohort, or a smaller --tolerate."
        )
    if config.aggregator == "trimmed-mean" and config.tolerate and not cut:
        raise ConfigError(
            f"the trimmed mean of {cohort} devices at --tolerate {config.tolerate:g} cuts off none of them. "
            f"Give --cohort {math.ceil(1 / config.tolerate)} or more, or a larger --tolerate."
        )
