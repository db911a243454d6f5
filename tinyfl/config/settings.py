"""Every setting of a run, one entry each. Its option, help, bounds, default and key in files and in Flower are derived from it.

Settings with a default for each task or algorithm have it in tinyfl.config.defaults. Nothing here loads NumPy, since the help
of `tinyfl run` is made of it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Any

from tinyfl.config.roster import Part
from tinyfl.errors import ConfigError
from tinyfl.errors.words import plain
from tinyfl.registry import AGGREGATORS, ALGORITHMS, TASKS
from tinyfl.registry.chosen import Chosen
from tinyfl.registry.tasks import FIRST_VALIDATION_DEVICE

TASK, LEARNING, FLEET, EVALUATION = "Task", "Learning", "Fleet", "Evaluation"
AGGREGATION, LINK, RUN = "Aggregation and privacy", "Link", "Run"
"""Panels of the help."""

MAX_ROUNDS = 1 << 31

MAX_BUFFER = 4096
"""tinyfl.core.MAX_SUMMED / tinyfl.late.WHOLE: exact sums of weighted updates hold no more."""

SCHEDULES = ("constant", "linear", "cosine")
"""Those of tinyfl.algorithms.schedules."""

OPTIMISERS = ("sgd", "momentum", "adam")
"""Those of tinyfl.algorithms.optimisers."""


@dataclass(frozen=True)
class Setting:
    """What is known of a setting beside its name and type."""

    help: str
    panel: str = ""
    """Of the help; empty: a structure, which is no option and not in Flower's flat run config."""
    common: bool = False
    """Whether the short help lists it."""
    metavar: str = ""
    of: str = ""
    """The kind of tinyfl.registry that it fills a field of: then it concerns those with this field only; empty: all."""
    of_a_node: bool = False
    """Whether a federation's nodes use it; only the coordinator uses the others."""
    default: Any = None
    """None: tinyfl.registry has one for each task or algorithm, or resolve works it out."""
    bounds: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    refusal: str = "no {name} is called {value!r}. There are {choices}."
    """Of what is none of the choices."""
    read: Callable[[Any], Any] | None = None
    """From what is given to a value of the type, where values of other types are fine too."""
    may_change: bool = False
    """Whether a resumed run may have another value: it decides the result only where a device fails."""
    newer: bool = False
    """Whether there are runs from before it: the hash leaves it out at its default, so that theirs stay as they were."""
    formerly: str = ""
    """Its former name, which files may still have and hashes keep."""
    name: str = ""
    kind: Any = None
    """The name and the type of its field."""

    @property
    def option(self) -> str:
        """On the command line."""
        return f"--{self.name.replace('_', '-')}"

    def concerns(self, task: str | Chosen | None, algorithm: str | Chosen | None) -> bool:
        """Whether it means anything to this task and this algorithm; None, or code that is not loaded: any."""
        value = {"task": task, "algorithm": algorithm}.get(self.of)
        return value is None or Chosen.read(self.of, value).takes(self.name) is not False

    def demand_choice(self, value: Any) -> None:
        """Raises ConfigError where ``value`` is none of the choices."""
        if value not in (self.default, *self.choices):
            raise ConfigError(self.refusal.format(name=self.name, value=value, choices=", ".join(self.choices)))


def setting(help: str, panel: str = "", **more: Any) -> Any:
    """A field of Settings."""
    return field(metadata={"setting": Setting(help, panel, **more)})


def _one_of(entries: Iterable[str]) -> str:
    names = list(entries)
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _name(value: Any) -> str:
    return str(value.name if isinstance(value, Chosen) else value)


def _shots(value: Any) -> tuple[int, ...]:
    items = value if isinstance(value, list | tuple) else [value]
    if not items or not all(isinstance(n, int) and not isinstance(n, bool) and 0 < n <= 10_000 for n in items):
        raise ConfigError(f"shots is {value!r}. Give whole numbers from 1 to 10,000, such as --shots 1 --shots 5.")
    return tuple(sorted(set(items)))


def _codec(value: Any) -> str:
    from tinyfl.codecs import Codec

    return str(Codec.named(str(value)))


def _slow(value: Any) -> str:
    share, factor = slow_devices(str(value))
    return f"{share:g}:{factor:g}" if value else ""


def slow_devices(slow: str) -> tuple[float, float]:
    """The share of slow devices, and their factor.

    Raises ConfigError for what is neither SHARE:FACTOR nor empty.
    """
    try:
        share, factor = map(float, slow.split(":")) if slow else (0.0, 1.0)
    except ValueError:
        share, factor = -1.0, 0.0
    if not (0 <= share <= 1 and 0 < factor <= 1e6):
        raise ConfigError(f"slow is {plain(slow, 40)!r}. Give a share of the devices and a factor, such as --slow 0.33:10.")
    return share, factor


def _continued(value: Any) -> tuple[tuple[int, int], ...]:
    pairs = (
        [tuple(pair) if isinstance(pair, list | tuple) else () for pair in value] if isinstance(value, list | tuple) else [()]
    )
    whole = all(len(pair) == 2 and all(type(n) is int and 0 < n <= MAX_ROUNDS for n in pair) for pair in pairs)
    if not whole or len(pairs) > 1000 or any(done > total for done, total in pairs) or any(a >= b for a, b in pairwise(pairs)):
        raise ConfigError(
            f"continued is {plain(repr(value), 80)}. It is a list of pairs of whole numbers, ascending: the rounds done when "
            "the run got another number of rounds, and that number until then. Remove it for a new run."
        )
    return tuple(pairs)


@dataclass(frozen=True)
class Settings:
    """The settings of a run, in the order of its config.toml."""

    # fmt: off
    task: str = setting(f"{_one_of(TASKS)}.", TASK, common=True, of_a_node=True, default="digits", read=_name)
    data: str = setting(
        f"Your file, for tasks {', '.join(name for name, each in TASKS.items() if each.file)}.", TASK, common=True,
        metavar="FILE", of="task", of_a_node=True, default="", read=str)
    standardise: bool = setting(
        "npz: standardise inputs and values by the training devices' mean and deviation. Default: yes; with a --network from "
        "a file no; with one from a run, by that run's.",
        TASK, of="task", of_a_node=True)
    targets: str = setting(
        "npz: what y holds, classes or values. Default: guessed from y.", TASK, of="task", of_a_node=True,
        default="", choices=("classes", "values"),
        refusal="targets is {value!r}. Give --targets classes or values, or leave it out.")
    label_column: str = setting(
        "npz: the column of labels, or of values. Default: label, target, class, activity or y.", TASK, of="task",
        of_a_node=True, default="", newer=True)
    device_column: str = setting(
        "npz: the column of devices. Default: device, user, subject, ...", TASK, of="task", of_a_node=True, default="",
        newer=True)
    input_columns: str = setting(
        "npz: the columns of inputs, such as ax,ay,az. Default: all others that are numbers.", TASK, of="task", metavar="NAMES",
        of_a_node=True, default="", newer=True)
    window: int = setting(
        "npz: rows in a sample, for a sensor's stream; 0: each row is a sample.", TASK, of="task", of_a_node=True,
        default=0, bounds=(0, 1 << 20), newer=True)
    stride: int = setting(
        "npz: rows from one window to the next; 0: as many as --window.", TASK, of="task", of_a_node=True, default=0,
        bounds=(0, 1 << 20), newer=True)
    missing: str = setting(
        "npz: mean fills missing inputs with the training devices' mean; refuse ends the run.", TASK, of="task", of_a_node=True,
        default="mean", choices=("mean", "refuse"), refusal="missing is {value!r}. Give --missing mean or refuse.", newer=True)
    drop_small: bool = setting(
        "npz: do not evaluate devices with too few samples for the shots.", TASK, of="task", of_a_node=True, default=False,
        newer=True)
    balance: bool = setting(
        "npz: in training, a device takes samples of its classes in turn.", TASK, of="task", of_a_node=True, default=False,
        newer=True)
    episodes: str = setting(
        "classes: devices see --ways of the classes, under their own numbering; some classes are held out. Default: a device "
        "is one of the data.",
        TASK, of="task", of_a_node=True, default="", choices=("classes",), newer=True,
        refusal="episodes is {value!r}. Give --episodes classes, or leave it out.")
    ways: int = setting(
        "omniglot, or with --episodes classes: classes of a device.", TASK, of="task", of_a_node=True, default=5,
        bounds=(2, 64), newer=True)
    training_ways: int = setting(
        "Classes of a device in training, for an algorithm that trains prototypes or all classes; 0: --ways.", LEARNING,
        of="task", of_a_node=True, default=0, bounds=(0, 64), newer=True)
    one_alphabet: bool = setting(
        "omniglot: all characters of a device are of one alphabet, in training too.", TASK, of="task", of_a_node=True,
        default=False, newer=True)
    label_set: str = setting(
        "flair: its coarse labels or its fine ones.", TASK, of="task", of_a_node=True, default="coarse",
        choices=("coarse", "fine"), refusal="label_set is {value!r}. Give --label-set coarse or fine.", newer=True)
    image_side: int = setting(
        "flair: pixels on a side, to which photos are scaled.", TASK, of="task", of_a_node=True, default=32, bounds=(8, 256),
        newer=True)
    algorithm: str = setting(
        f"{_one_of(ALGORITHMS)}.", LEARNING, common=True, default="tinyreptile", read=_name)
    network: str = setting(
        "Such as mlp-32, conv-16-32 or dsconv-16-32; or, to start from, a .keras or .h5 file or a finished run.",
        LEARNING, common=True, of_a_node=True)
    sensor: str = setting(
        "Boards learn from their own source of this name (docs/firmware.md).", FLEET, default="", newer=True)
    devices: int = setting(
        "Devices in the fleet; 0: all those in the data.", FLEET, common=True, of_a_node=True, default=0,
        bounds=(0, FIRST_VALIDATION_DEVICE))
    cohort: int = setting("Devices in each round.", LEARNING, common=True, bounds=(1, 1 << 20))
    sampling: str = setting(
        "How a round's devices are chosen: uniform, at random; dpp or farthest, for different tasks; similar, for like ones.",
        LEARNING, default="uniform", choices=("dpp", "farthest", "similar"), newer=True,
        refusal="sampling is {value!r}. Give --sampling uniform, dpp, farthest or similar.")
    embedding: str = setting(
        "With --sampling: what describes a device's task: tags, updates, means or parameters (docs/sampling.md).", LEARNING,
        default="",
        choices=("tags", "updates", "means", "parameters"), newer=True,
        refusal="embedding is {value!r}. Give --embedding tags, updates, means or parameters.")
    rounds: int = setting("Number of rounds.", LEARNING, common=True, bounds=(1, MAX_ROUNDS))
    samples: int = setting("Samples of a device in each round.", LEARNING, of="algorithm", bounds=(1, 1 << 24))
    batch: int = setting("Samples in each inner step.", LEARNING, of="algorithm", bounds=(1, 1 << 24))
    support: int = setting(
        "maml, fomaml: how many of these samples a device adapts on, before the others measure it; 0: half. protonet: how many "
        "are the support set; 0: one of each class.", LEARNING,
        of="algorithm", default=0, bounds=(0, 1 << 24), newer=True)
    steps: int = setting(
        "maml, fomaml: a device's full-batch steps on its support set.", LEARNING, of="algorithm", default=1, bounds=(1, 1000),
        newer=True)
    pull: float = setting(
        "fedprox: how strongly devices are pulled towards theta, the paper's mu.", LEARNING, of="algorithm", default=0.0,
        bounds=(0, 1e6), newer=True)
    local: str = setting(
        "tinymetafed: the layers that never leave a device, by name, such as dense-2; several with commas. Default: the last.",
        LEARNING, of="algorithm", default="", newer=True)
    local_start: str = setting(
        "tinymetafed: how these layers start in a round: reconstructed, from random weights by the seed; kept, from the "
        "device's own of its last round.", LEARNING, of="algorithm", default="reconstructed", choices=("kept",), newer=True,
        refusal="local_start is {value!r}. Give --local-start reconstructed or kept.")
    local_samples: int = setting(
        "tinymetafed: how many of a device's samples train these layers, before the others train the rest; 0: half.", LEARNING,
        of="algorithm", default=0, bounds=(0, 1 << 24), newer=True)
    rate: float = setting(
        "Learning rate on the devices.", LEARNING, of="algorithm", bounds=(1e-12, 1e6), formerly="inner_lr")
    outer_step: float = setting(
        "The server's step towards the mean, at first.", LEARNING, of="algorithm", bounds=(1e-12, 1e6))
    outer_optimiser: str = setting(
        "How the server follows the mean: sgd, by --outer-step of the way; momentum or adam, at the rate --outer-step.",
        LEARNING, of="algorithm", default="sgd", choices=OPTIMISERS, newer=True,
        refusal="outer_optimiser is {value!r}. Give --outer-optimiser sgd, momentum or adam.")
    outer_schedule: str = setting(
        "How --outer-step changes over the rounds: constant, linear or cosine. Default: the algorithm's own.", LEARNING,
        of="algorithm", default="", choices=SCHEDULES, newer=True,
        refusal="outer_schedule is {value!r}. Give --outer-schedule constant, linear or cosine, or leave it out.")
    rate_schedule: str = setting(
        "How --rate changes over the rounds: constant, linear or cosine. Default: the algorithm's own.", LEARNING,
        of="algorithm", default="", choices=SCHEDULES, newer=True,
        refusal="rate_schedule is {value!r}. Give --rate-schedule constant, linear or cosine, or leave it out.")
    clip: float = setting(
        "Bound on the norm of the loss's gradient at the output; 0: none.", LEARNING, default=0.0, bounds=(0, 1e12))
    adapt_lr: float = setting(
        "Learning rate of adaptation; 0: chosen on validation devices.", EVALUATION, default=0.0, bounds=(0, 1e6))
    freeze: int = setting("The first N layers with weights do not learn.", LEARNING, of_a_node=True, default=0, bounds=(0, 64))
    shots: tuple[int, ...] = setting(
        "Samples to adapt on, in some tasks per class; may repeat.", EVALUATION, common=True, metavar="N", read=_shots)
    tasks: int = setting("Unseen devices to evaluate on.", EVALUATION, common=True, default=2000, bounds=(2, 1 << 24))
    evaluate_every: int = setting(
        "Evaluate on validation devices after every N rounds, and keep the best theta; 0: keep the last.", EVALUATION,
        default=0, bounds=(0, MAX_ROUNDS), newer=True)
    patience: int = setting(
        "Stop early after N such evaluations without a better one; 0: never.", EVALUATION, default=0, bounds=(0, MAX_ROUNDS),
        newer=True)
    seed: int = setting("The same seed gives the same theta.", LEARNING, common=True, of_a_node=True, default=0,
        bounds=(0, (1 << 63) - 1))
    nodes: str = setting(
        "Flower nodes: N gateways; or devices, one node each.", FLEET, common=True, metavar="N", default="1", read=plain)
    aggregator: str = setting(
        f"Instead of the mean: {_one_of(AGGREGATORS)}; needs --nodes devices.", AGGREGATION, common=True, default="",
        read=_name, formerly="robust")
    tolerate: float = setting("With --aggregator: share of poisoned devices to withstand.", AGGREGATION, default=0.2)
    noise: float = setting(
        "Privacy: noise on a round's sum, in units of --update-clip; needs --nodes devices.", AGGREGATION, default=0.0,
        bounds=(0, 1e6))
    update_clip: float = setting(
        "Bound on the norm of a device's update; larger ones are scaled down; 0: none.", AGGREGATION, default=0.0,
        bounds=(0, 1e6))
    minimum: int = setting("Least number of updates in a valid round.", FLEET, default=0, bounds=(0, 1 << 20), may_change=True)
    down: str = setting(
        "How theta goes down: fp32, fp16, int8 or int4.", LINK, default="fp32", choices=("fp16", "int8", "int4"),
        refusal="down is {value!r}. Give --down fp32, fp16, int8 or int4.", newer=True)
    delta: bool = setting(
        "with --down: send only the change of theta to devices that took part in the round before.", LINK,
        default=False, newer=True)
    up: str = setting(
        "How devices' results go up: fp32, as weights; fp16, int8, int4 or top:P (the P % largest), as updates.", LINK,
        default="fp32", read=_codec, newer=True)
    feedback: bool = setting(
        "with --up: devices keep what the codec loses of an update, and add it to their next one.", LINK,
        default=False, newer=True)
    buffer: int = setting(
        "Asynchronous rounds: --cohort devices are always at work, and a step of the server waits for N of them; 0: for all.",
        LINK, default=0, bounds=(0, MAX_BUFFER), newer=True)
    slow: str = setting(
        "With --buffer: slow simulated devices, such as 0.33:10: a third of them takes ten times as long.", LINK,
        metavar="SHARE:FACTOR", default="", read=_slow, newer=True)
    seconds: float = setting(
        "Time limit for a board's part of a round.", FLEET, of_a_node=True, default=60.0, bounds=(0.1, 1e6), may_change=True)
    fleet: tuple[Part, ...] = setting(
        "The [[fleet]] tables of a file (docs/fleets.md).", default=(), read=tuple, may_change=True)
    continued: tuple[tuple[int, int], ...] = setting(
        "The rounds after which the run got another number of rounds, each with the number until then.", default=(),
        read=_continued, newer=True)
    # fmt: on


SETTINGS = {each.name: replace(each.metadata["setting"], name=each.name, kind=each.type) for each in fields(Settings)}
RENAMED = {each.formerly: each.name for each in SETTINGS.values() if each.formerly}
"""Former names of settings, with those of today."""

MAY_CHANGE = tuple(each.name for each in SETTINGS.values() if each.may_change)
"""What a resumed run may do otherwise: it goes on to the same theta."""


def renamed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by the names of today.

    Raises ConfigError where one is there by its former name too.
    """
    for old, new in RENAMED.items():
        if old in given and new in given:
            raise ConfigError(f"{old} is now {new}, and both are given. Leave {old} out.")
    return {RENAMED.get(key, key): value for key, value in given.items()}
