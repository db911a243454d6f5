"""A run's config: what decides its result, down to the bit, and the fleet it runs on. Resolved from defaults, a TOML file and
options, in that order."""

import hashlib
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from tinyfl.config.combinations import check_aggregator, check_combinations
from tinyfl.config.defaults import OF_AN_ALGORITHM, defaults, unsaid
from tinyfl.config.late import check_late
from tinyfl.config.roster import Part, read_parts
from tinyfl.config.sampling import check_sampling
from tinyfl.config.settings import MAY_CHANGE, SETTINGS, Setting, Settings, renamed
from tinyfl.errors import ConfigError
from tinyfl.errors.words import guess, plain, shell
from tinyfl.registry import AGGREGATORS, ALGORITHMS, KINDS, TASKS
from tinyfl.registry.chosen import Chosen, not_loaded
from tinyfl.registry.parameters import OF_A_TABLE, SETTINGS_OF

if TYPE_CHECKING:
    from tinyfl.algorithms import Algorithm
    from tinyfl.data import Reading
    from tinyfl.tasks import Task
    from tinyfl.tasks.standard import Standardisation

__all__ = [
    "AGGREGATORS", "ALGORITHMS", "MAY_CHANGE", "TASKS", "Config", "as_python", "demand_utf8", "read_settings", "read_toml",
    "renamed", "resolve",
]  # fmt: skip


@dataclass(frozen=True)
class Config(Settings):
    """What decides a run's result. ``nodes`` is a number of gateways or "devices"; ``adapt_lr`` 0: chosen on validation
    devices; ``clip`` 0: none; ``data`` is empty for tasks that bring their own, and then ``standardise`` and ``targets`` mean
    nothing; the first ``freeze`` layers do not learn.

    ``minimum``, ``seconds`` and ``fleet`` decide it only where a device fails: a round counts with ``minimum`` updates, a board
    may take ``seconds`` for its part, and ``fleet`` says where the devices are (none: all are simulated here). ``extensions``
    are those of task, algorithm and aggregator that are not tinyfl's own.

    ``continued`` has a pair for each time that a resumed run got another number of rounds and its algorithm's schedule was
    restated: the rounds done by then, and their number until then."""

    extensions: tuple[Chosen, ...] = ()
    unsaid: tuple[str, ...] = field(default=(), compare=False)
    """Settings that nobody gave, of those that tinyfl.config.fitting chooses by the size of the user's data."""

    def chosen(self, kind: str) -> Chosen:
        """The run's algorithm, task or aggregator."""
        return next((each for each in self.extensions if each.kind == kind), Chosen(kind, getattr(self, kind)))

    def build(self) -> "Algorithm":
        """The algorithm.

        Raises ConfigError where it cannot meta-learn as configured, or its code is not loaded.
        """
        algorithm: Algorithm = self.chosen("algorithm").made(self._settings_of("algorithm"))
        return algorithm

    def built_before(self) -> tuple[tuple[int, "Algorithm"], ...]:
        """The algorithms of the rounds before the last of ``continued``, each with the round at which it ends.

        Raises ConfigError as ``build`` does, and for an algorithm that is an object with a number of rounds of its own.
        """
        chosen = self.chosen("algorithm")
        if self.continued and not chosen.makes:
            raise ConfigError(
                f"the run got another number of rounds, and {chosen.called} is an object with one. Give its class."
            )
        return tuple((done, replace(self, rounds=total).build()) for done, total in self.continued)

    def load_task(self, standard: "Standardisation | None" = None) -> "Task":
        """The task, with its data, and the streams that the algorithm learns from; ``standard`` is what an earlier run did to
        them.

        Raises ConfigError or DataError where they are not usable, ConfigError where the task's code is not loaded.
        """
        from tinyfl.tasks import with_streams

        data = Path(self.data) if self.data else None
        settings = {**self._settings_of("task"), "data": data, "standard": standard}
        chosen = self.chosen("task")
        task: Task = chosen.made({**vars(self.reading), "reading": self.reading, **settings} if chosen.built_in else settings)
        return with_streams(task, self.chosen("algorithm").trains)

    @property
    def trains_classes(self) -> bool:
        """Whether its algorithm trains one classifier of all classes."""
        return self.chosen("algorithm").trains == "classes"

    @property
    def per_round(self) -> int:
        """The number of devices whose updates make a round."""
        return self.buffer or self.cohort

    @property
    def reading(self) -> "Reading":
        """How the user's data are read."""
        from tinyfl.data import Reading

        return Reading(**{name: getattr(self, name) for name in OF_A_TABLE}, shots=max(self.shots), targets=self.targets)

    def replace_mean(self) -> Any:
        """The Flower strategy that aggregates instead of the mean; None for the mean."""
        return self.chosen("aggregator").made(self._settings_of("aggregator")) if self.aggregator else None

    @property
    def words(self) -> tuple[str, ...]:
        """What a command on its file needs beside, to load the user's own code."""
        return tuple(word for each in self.extensions for word in each.words)

    def demand_code(self) -> None:
        """Raises ConfigError where the code of an algorithm, a task or an aggregator is neither loaded nor loads by name."""
        if named := [each for each in self.extensions if each.code is None and not each.loads_by_name]:
            raise not_loaded(*named)

    def _settings_of(self, kind: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in SETTINGS_OF[kind]}

    @property
    def own_data(self) -> bool:
        """Whether the task takes the user's data as they come, so that it matters what is made of them."""
        return bool(self.chosen("task").takes("targets"))

    @property
    def unscaled(self) -> bool:
        """Whether the user's data are learnt as they are."""
        from tinyfl.networks import WEIGHTS

        return self.own_data and not self.standardise and not self.network.endswith(WEIGHTS)

    @property
    def older(self) -> bool:
        """Whether an older tinyfl resolved it, which did not say what the targets are. Its hash is not what it was then."""
        return self.own_data and not self.targets

    @property
    def calmer(self) -> str:
        """What has helped where learning diverges."""
        from tinyfl.networks import is_file

        if not self.unscaled:
            return f"Start a new run with a smaller --rate than {self.rate:g} and another --out."
        own = " Your weights then start from other inputs than they were trained on." if is_file(self.network) else ""
        return f"x and y are learnt as they are in the file: start a new run with --standardise and another --out.{own}"

    @property
    def smaller(self) -> str:
        """What fits on a board where learning does not."""
        if self.trains_classes:
            return "Take --algorithm protonet, which trains the same network without an output for each class."
        return "Choose a smaller --network, or --batch 1."

    @property
    def parts(self) -> tuple[Part, ...]:
        """The fleet's parts: ``fleet``, or simulated devices. Its boards have the sensor, where a part names no other."""
        parts = self.fleet or (Part(native=self.devices),)
        return tuple(replace(part, sensor=part.sensor or self.sensor) if part.senses else part for part in parts)

    @property
    def gateways(self) -> int | None:
        """How many gateways; None where each device is a node."""
        return None if self.nodes == "devices" else int(self.nodes)

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

    def as_options(self) -> dict[str, Any]:
        """As options that ``resolve`` reads back."""
        return {name: getattr(self, name) for name in SETTINGS} | {each.kind: each for each in self.extensions}

    def _table(self) -> dict[str, Any]:
        held = asdict(replace(self, extensions=()))
        del held["extensions"], held["unsaid"]
        extensions = {each.kind: each.to_toml() for each in self.extensions}
        continued = [list(pair) for pair in self.continued]
        return {
            **held,
            "shots": list(self.shots),
            "continued": continued,
            "fleet": [part.to_toml() for part in self.fleet],
            **extensions,
        }


def resolve(options: Mapping[str, Any], file: Path | None = None, *, installed: bool = False) -> Config:
    """The config of ``options`` over ``file`` over the defaults of the task and algorithm. Options that are None are unset.
    Where an option names another algorithm than the file, the file's settings of its own algorithm do not count.

    Imports no code that the options or the file name, but with ``installed`` that of installed packages; the user's own is
    there if the options bring it (tinyfl.registry.own).
    Raises ConfigError for an unknown key, a wrong type, or numbers out of range.
    """
    table = read_settings(file) if file else {}
    options = renamed({key: as_python(value) for key, value in options.items() if value is not None})
    options.pop("unsaid", None)  # of a Config, as the extensions are
    for each in options.pop("extensions", ()):
        if options.get(each.kind, each.name) == each.name:
            options[each.kind] = each
    chosen = {kind: _chosen(kind, table.get(kind), options.get(kind), installed) for kind in KINDS}
    in_file = Chosen.read("algorithm", table["algorithm"]).name if "algorithm" in table else None
    if "algorithm" in options and chosen["algorithm"].name != in_file:
        table = {key: value for key, value in table.items() if key not in (*OF_AN_ALGORITHM, "continued")}
    given = {**table, **options}
    for key in given:
        if key not in SETTINGS:
            where = f"{file}: " if file else ""
            raise ConfigError(
                f"{where}no setting is called {key!r}. {guess(key, SETTINGS)}There are {', '.join(sorted(SETTINGS))}."
            )
    values = defaults(chosen["task"], chosen["algorithm"])
    if "fleet" in given:
        given = _with_fleet(given)
    values |= {**given, **chosen}
    from tinyfl.networks import is_file, located

    if isinstance(values["network"], str | Path):
        values["network"] = located(str(values["network"]))
    if "standardise" not in values:
        # A network of the user's file was trained on inputs as they are, and one of a run on inputs as that had them.
        values["standardise"] = bool(chosen["task"].takes("standardise")) and not is_file(str(values["network"]))
    config = replace(_checked(values), unsaid=unsaid(given, chosen["task"], chosen["algorithm"]))
    if "cohort" not in given and 0 < config.devices < config.cohort:
        config = replace(config, cohort=config.devices)
    check_aggregator(config)
    check_sampling(config)
    check_late(config)
    # A private round in which nobody took part would be nothing but noise.
    return replace(config, minimum=max(config.minimum, 1)) if config.noise else config


def as_python(value: Any) -> Any:
    """``value`` with NumPy's numbers and arrays in it, or those of a like library, as Python's numbers and lists."""
    if isinstance(value, dict):
        return {key: as_python(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_python(each) for each in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _chosen(kind: str, in_file: Any, given: Any, installed: bool) -> Chosen:
    """The algorithm, task or aggregator of an option over a file's over the default."""
    lower = None if in_file is None else Chosen.read(kind, in_file)
    upper = None if given is None else Chosen.read(kind, given)
    found = (upper.over(lower) if upper else lower) or Chosen(kind, SETTINGS[kind].default)
    return (found.loaded() if installed and found.of_package else found).complete()


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
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        config = path / "config.toml"
        cure = f"To repeat its run: {shell('tinyfl', 'run', config)}." if config.is_file() else "Check the path."
        raise ConfigError(f"{path}: {error.strerror or error}. {cure}") from error
    except (ValueError, RecursionError) as error:  # the last for tables in tables without end
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
    extensions = tuple(values[kind] for kind in KINDS if not values[kind].built_in)
    config = Config(**{name: _read(each, values[name], extensions) for name, each in SETTINGS.items()}, extensions=extensions)
    for name, each in SETTINGS.items():
        _demand_in_range(each, getattr(config, name))
    check_combinations(config)
    return config


def _read(setting: Setting, value: Any, extensions: Iterable[Chosen]) -> Any:
    """``value`` as the setting's type; ConfigError where it is of another, with the code of the user's that it comes from."""
    if setting.read:
        return setting.read(value)
    kind = setting.kind
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(min(max(value, -(10**300)), 10**300))
    if kind is int and isinstance(value, float) and value.is_integer():  # a row of a table, all of whose numbers are floats
        return int(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        filled = [
            f" It fills {setting.name} of {each.called}: call that otherwise, or give it a value of this type."
            for each in extensions
            if each.takes(setting.name)
        ]
        raise ConfigError(f"{setting.name} is {value!r}, not {kind.__name__}.{''.join(filled)}")
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
    elif isinstance(value, str):
        demand_utf8(setting.option, value)


def demand_utf8(option: str, path: str) -> None:
    """Raises ConfigError for a path that the files of a run cannot hold."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{option} {plain(path)}: this name is not UTF-8. Give the file or folder another name.") from error
