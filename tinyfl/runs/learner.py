"""A run's learner: its task, its network, and the initial weights."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

from tinyfl.algorithms import WithLayers, with_layers
from tinyfl.codecs import Codec
from tinyfl.codecs.down import Down
from tinyfl.config import Config, fitting
from tinyfl.config.roster import Part
from tinyfl.core import F32, FASTEST, Engine
from tinyfl.errors import ConfigError
from tinyfl.errors.words import plain
from tinyfl.networks import INITIALISATION, WEIGHTS, Network, is_file, network
from tinyfl.networks.layers import Loss, learning
from tinyfl.runs.adaptation import Initialisation
from tinyfl.runs.class_means import preparation
from tinyfl.runs.elsewhere import Elsewhere
from tinyfl.tasks import ClassTask, SizedTask, Task, targets_for, with_streams
from tinyfl.tasks.sensor import NAME as SENSOR
from tinyfl.tasks.sensor import SensorTask

Load = Callable[[Config], Task]
"""Loads the task of a config."""

DEVICES = 1000
"""The fleet's size for a task of the user's own, or with episodes of classes, which take any, where nothing gives one."""


@dataclass(frozen=True)
class Learner:
    """A task, a network for it, and the initial weights, float32 (parameters,). ``notes`` describe the changes to the user's
    data and network, and what was chosen by their size, for people. ``drops_head``: the last layer is of use in training
    only."""

    task: Task
    network: Network
    start: F32
    notes: tuple[str, ...]
    drops_head: bool = field(default=False, kw_only=True)

    @property
    def result(self) -> Network:
        """The network of unseen devices, whose theta is the beginning of ``network``'s."""
        return self.network.headless() if self.drops_head else self.network

    def for_unseen(self, algorithm: Any, theta: F32, devices: int, engine: Engine = FASTEST) -> tuple[Network, F32]:
        """The network of unseen devices and its weights, float32, from the weights ``theta`` of training with ``algorithm`` on
        ``devices``."""
        net, own = self.result, theta[: self.result.parameters]
        if net.embeds:
            net = replace(net, prepared=preparation(algorithm, self.task, net, own, devices, engine))
        return net, own


def learner_of(config: Config, load: Load = Config.load_task) -> Learner:
    """The config's task, as ``load`` loads it, and its network; a network from a file, or from a run, starts from its weights.

    Raises ConfigError if the network's inputs or outputs differ from the task's.
    """
    if config.network.endswith(WEIGHTS):
        learner = _of_weights(config, load)
    elif is_file(config.network):
        learner = _of_file(config, load)
    else:
        task = load(config)
        name = fitting.network_name(config, task.shape) if isinstance(task, SizedTask) else config.network
        outputs = task.classes if config.trains_classes and isinstance(task, ClassTask) else _classes(task)
        net = network(name, task.shape, outputs, loss_of(config, task), task.activation)
        learner = Learner(task, net, net.initial_weights(config.seed), ())
    net = learner.network.frozen(config.freeze)
    if config.trains_classes:
        learner = replace(learner, drops_head=True)
        _demand_classes(config, learner)
    if not any(layer.learns for layer in net.placed):
        raise ConfigError(f"no layer of network {net.name} learns. Give a smaller --freeze, or a model that is trainable.")
    standard = learner.task.standardisation
    return replace(learner, network=net, notes=(*(standard.notes if standard else ()), *learner.notes))


def loss_of(config: Config, task: Task) -> Loss:
    """The loss of a network for the config's algorithm.

    Raises ConfigError for prototypes of devices that are elsewhere.
    """
    if config.chosen("algorithm").trains != "prototypes":
        return task.loss
    if isinstance(task, Elsewhere):
        raise ConfigError(
            f"{config.algorithm} evaluates devices here, and those of this run are at their sites. Give the coordinator their "
            "--data, or take --algorithm tinyreptile."
        )
    return Loss.prototypes


def _demand_classes(config: Config, learner: Learner) -> None:
    """Raises ConfigError if the network cannot tell all classes of the task apart, or is nothing without its last layer."""
    task, net = learner.task, learner.network
    if isinstance(task, ClassTask) and net.outputs != task.classes:
        raise ConfigError(
            f"{config.algorithm} trains an output for each of {task.classes:,} classes, and {config.network} has "
            f"{net.outputs:,}. Give a named network, such as mlp-64."
        )
    size = net.headless().outputs
    if size < task.outputs:
        raise ConfigError(
            f"{config.network} gives embeddings of {size:,} numbers, and {task.outputs:,} classes need as many. Give it a "
            "wider last layer."
        )


def _classes(task: Task) -> int:
    """The most classes or values that a device of the task has."""
    return max(task.outputs, task.episode_ways) if isinstance(task, ClassTask) else task.outputs


def _of_weights(config: Config, load: Load) -> Learner:
    """The learner of a finished run's weights, whose standardisation of inputs and values goes on if the config has none."""
    path = Path(config.network)
    start = Initialisation.load(path)
    shown = plain(path.parent.name if path.name == INITIALISATION else path.name)
    net, notes = replace(start.network, layers=learning(start.network.layers)), [f"start: the weights of {shown}"]
    if config.data and config.own_data and not config.standardise and start.standard.changes:
        task = config.load_task(start.standard)
        notes.append("x and y: standardised as in that run (--standardise does it by these data)")
    else:
        kind = targets_for(net.loss) if config.own_data else ""
        task = load(replace(config, targets=config.targets or kind))
    refuse_misfit(net, task, config.network)
    if net.embeds != (loss_of(config, task) is Loss.prototypes):
        what = ("outputs for classes", "embeddings")[net.embeds]
        raise ConfigError(
            f"{config.network} gives {what}, and --algorithm {config.algorithm} learns the other. Give a run of that algorithm."
        )
    if not net.embeds and net.loss is not task.loss:
        raise ConfigError(
            f"{config.network} was trained for {targets_for(net.loss)} ({net.loss.name}), but task {task.name} has "
            f"{targets_for(task.loss)} ({task.loss.name}). Give another run."
        )
    return Learner(task, net, start.theta, tuple(notes))


def _of_file(config: Config, load: Load) -> Learner:
    """The learner of a Keras file, which also determines the targets if the config does not."""
    from tinyfl.networks import keras

    model = keras.load(Path(config.network))
    task = load(replace(config, targets=config.targets or keras.targets_of(model)))
    net, start = keras.from_keras(model, loss=loss_of(config, task))
    refuse_misfit(net, task, config.network, any_targets=config.own_data)
    notes, compiled = [f"start: your weights, from {plain(Path(config.network).name)}"], keras.compiled_with(model)
    if model.output_shape[-1] == 1 and net.classifies:
        notes.append("network: its single yes-or-no output became two, one per class, with the same answers")
    elif compiled and keras.LOSSES.get(compiled) is not task.loss:
        notes.append(f"loss: {task.loss.name}, instead of {plain(compiled)}, which the file was compiled with")
    return Learner(task, net, start, tuple(notes))


def algorithm_of(config: Config, network: Network) -> WithLayers:
    """The algorithm of a run, for its network and the codec of its updates.

    Raises ConfigError as ``Config.build`` and ``Config.built_before`` do.
    """
    return with_layers(config.build(), network.weighted_layers, config.built_before(), Codec.named(config.up), config.feedback)


def down_of(config: Config, network: Network) -> Down:
    """How theta goes down to the devices of a run."""
    return Down(Codec.named(config.down), config.delta, network.arrays())


def task_for(config: Config, network: Network, trains: str, classes: tuple[str, ...] = ()) -> Task:
    """The task of a node of a federation, for the coordinator's network, which knows the kind of targets, for what its
    algorithm ``trains``, and for a sensor with the names of its ``classes``.

    Raises ConfigError if the network does not fit this node's data.
    """
    if config.task == SENSOR and not config.data:
        return SensorTask(network.shape, network.outputs, network.loss, classes=classes)
    task = with_streams(replace(config, targets=config.targets or targets_for(network.loss)).load_task(), trains)
    refuse_misfit(network, task, network.name, any_targets=config.own_data, trains=trains)
    return task


def refuse_misfit(net: Network, task: Task, called: str, *, any_targets: bool = False, trains: str = "task") -> None:
    """Raises ConfigError if the inputs or outputs of a network, named ``called`` in the message, differ from those of the task
    and of what its algorithm ``trains``. ``any_targets``: the user may say what the targets are."""
    if net.embeds and net.inputs == prod(task.shape) and net.outputs >= _classes(task):
        return
    outputs = task.classes if trains == "classes" and isinstance(task, ClassTask) else task.outputs
    if (net.inputs, net.outputs) != (prod(task.shape), outputs):
        also = _other_targets(net, task) if any_targets else ""
        raise ConfigError(
            f"{called} has {net.inputs:,} inputs and {net.outputs:,} outputs, but task {task.name} has "
            f"{prod(task.shape):,} and {outputs:,}. Give a model with those{also}."
        )


def _other_targets(net: Network, task: Task) -> str:
    """A further cure if the network's outputs differ in number from the file's classes or values."""
    if net.inputs != prod(task.shape):
        return ""
    if net.classifies:
        return f": y has {task.outputs:,} classes, one output each; or, if y are values to predict, give --targets values"
    return "; or, if y are classes, give --targets classes"


def _absolute(part: Part) -> Part:
    """``part`` with the whole paths of its files, which a resumed run finds from any folder."""
    board = str(Path(part.board).resolve()) if part.board.endswith(".toml") else part.board
    faults, readings = (str(Path(path).resolve()) if path else "" for path in (part.faults, part.readings))
    return replace(part, board=board, faults=faults, readings=readings)


def _with_ways(config: Config, task: Task) -> Config:
    """The config with the number of classes of a training device, which the task decides.

    Raises ConfigError if the config gives another.
    """
    assert isinstance(task, ClassTask)
    if config.training_ways not in (0, task.episode_ways):
        raise ConfigError(f"a device of task {config.task} has {task.episode_ways} classes: leave --training-ways out.")
    return replace(config, training_ways=0 if config.ways == task.episode_ways else task.episode_ways)


def fitted(config: Config, load: Load = Config.load_task) -> tuple[Config, Learner]:
    """The config completed from the data, and its learner; ``load`` loads the task.

    Raises ConfigError if the config asks for more devices than the data have.
    """
    learner = learner_of(config, load)
    task = learner.task
    if isinstance(task, SizedTask):
        unsaid, config = config.unsaid, fitting.fit(config, learner.network, task.training_samples)
        learner = replace(learner, notes=(*learner.notes, *fitting.words(config, unsaid)))
    if learner.network.embeds:
        config = _with_ways(config, task)
    devices = config.devices or task.fleet_size
    if not devices and (config.episodes or not config.chosen("task").built_in):
        devices = max(DEVICES, config.cohort)
    if not devices:
        raise ConfigError(f"task {config.task} has no number of devices of its own. Give --devices.")
    if task.fleet_size is not None and devices > task.fleet_size:
        raise ConfigError(
            f"{devices:,} devices, but the data have {task.fleet_size:,} for training. Leave --devices out to use them all."
        )
    if config.cohort > devices:
        raise ConfigError(f"a cohort of {config.cohort:,} out of {devices:,} devices. Give a smaller --cohort.")
    if config.minimum > config.cohort:
        raise ConfigError(
            f"a minimum of {config.minimum:,} updates from a cohort of {config.cohort:,}: no round could count. Give a smaller "
            "--minimum, or a larger --cohort."
        )
    if config.gateways is not None and config.gateways > devices and not isinstance(task, Elsewhere):
        raise ConfigError(f"{config.gateways:,} gateways for {devices:,} devices. Give --nodes 1 to {devices:,}, or devices.")
    name = str(Path(config.network).resolve()) if is_file(config.network) else learner.network.name
    data = str(Path(config.data).resolve()) if config.data else ""
    fleet = tuple(map(_absolute, config.fleet))
    targets = targets_for(task.loss) if config.own_data else ""
    completed = replace(config, devices=devices, network=name, data=data, targets=targets, fleet=fleet)
    return completed, learner
