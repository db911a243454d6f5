"""Settings that do not go together, each with its cure."""

import re
from typing import TYPE_CHECKING

from tinyfl.config.defaults import OTHER_ALGORITHM, OWN_WAYS
from tinyfl.config.settings import SETTINGS
from tinyfl.errors import ConfigError
from tinyfl.registry import AGGREGATORS, ALGORITHMS
from tinyfl.registry.chosen import Chosen
from tinyfl.registry.parameters import OF_A_TABLE
from tinyfl.registry.tasks import OF_ONE_TASK

if TYPE_CHECKING:
    from tinyfl.config import Config


def check_combinations(config: "Config") -> None:
    """Raises ConfigError where one setting does not go with another."""
    algorithm, task = config.chosen("algorithm"), config.chosen("task")
    _check_algorithm(config, algorithm)
    _check_task(config, algorithm, task)
    if config.patience and not config.evaluate_every:
        raise ConfigError("--patience counts evaluations in the course of a run: say how often with --evaluate-every N.")
    if config.delta and config.down == SETTINGS["down"].default:
        raise ConfigError("--delta sends a change of theta, which is shorter only in another form: give --down int8 too.")
    if config.feedback and config.up == SETTINGS["up"].default:
        raise ConfigError("--feedback keeps what a codec loses of an update, and fp32 loses nothing: give --up int4 too.")
    if config.continued and config.continued[-1][0] > config.rounds:
        raise ConfigError(
            f"continued says that {config.continued[-1][0]:,} rounds were done, of {config.rounds:,}. Give more --rounds, or "
            "remove continued from the file."
        )
    if config.nodes != "devices" and not re.fullmatch(r"0*[1-9][0-9]{0,9}", config.nodes):
        raise ConfigError(f"nodes is {config.nodes!r}. Give --nodes N for N gateways, or --nodes devices.")


def _check_algorithm(config: "Config", algorithm: Chosen) -> None:
    """Raises ConfigError for a setting that the algorithm does not have."""
    # tinyfl's own are asked for these alone: a file of theirs may have any value of what does not concern them.
    for name in ("batch", *OWN_WAYS) if algorithm.built_in else OTHER_ALGORITHM:
        if getattr(config, name) != OTHER_ALGORITHM[name] and algorithm.takes(name) is False:
            having = next((each for each in ALGORITHMS if SETTINGS[name].concerns(None, each)), "")
            raise ConfigError(
                f"{algorithm.name} has no {SETTINGS[name].option}: leave it out, or say --algorithm {having}."
                if algorithm.built_in
                else f"{algorithm.called} has no {name}: leave {SETTINGS[name].option} out."
            )
    if config.outer_optimiser == "adam" and config.outer_step >= 1:
        raise ConfigError(
            f"with --outer-optimiser adam every weight moves by up to about --outer-step in a round, and that is "
            f"{config.outer_step:g}. Give a smaller one, such as --outer-step 0.001."
        )


def _check_task(config: "Config", algorithm: Chosen, task: Chosen) -> None:
    """Raises ConfigError for a setting that the task does not have."""
    if (config.standardise or config.targets) and task.takes("targets") is False:
        raise ConfigError(
            f"task {config.task} brings its own inputs and targets: leave --standardise and --targets out, or say --task npz."
        )
    of_data = [name for name in OF_A_TABLE if name != "training_ways" or algorithm.trains == "task"]  # else a run may fill it
    for name in of_data:
        if getattr(config, name) != SETTINGS[name].default and task.takes(name) is False:
            raise ConfigError(f"task {config.task} brings its own data: leave {SETTINGS[name].option} out, or say --task npz.")
    for name in {"ways", "training_ways"}.intersection(of_data):
        if getattr(config, name) != SETTINGS[name].default and task.takes("episodes") and not config.episodes:
            raise ConfigError(f"{SETTINGS[name].option} is of devices with --episodes classes: give that too.")
    for name, only in OF_ONE_TASK.items():
        if getattr(config, name) != SETTINGS[name].default and task.takes(name) is False:
            raise ConfigError(f"{SETTINGS[name].option} is not for task {config.task}: leave it out, or say --task {only}.")


def check_aggregator(config: "Config") -> None:
    """Raises ConfigError where an aggregator, or noise, could not do what it is for."""
    if not 0 <= config.tolerate < 0.5:
        raise ConfigError(
            f"tolerate is {config.tolerate:g}, and no aggregator withstands half of a cohort. Give 0 to below 0.5."
        )
    if config.aggregator and config.noise:
        raise ConfigError(
            "--aggregator with --noise: what noise buys is known for the plain mean alone. Leave one of them out."
        )
    if config.noise and not config.update_clip:
        raise ConfigError("--noise is in units of the most that a device can add: say what that is with --update-clip NORM.")
    if (config.aggregator or config.update_clip) and config.nodes != "devices":
        raise ConfigError(
            f"{f'--aggregator {config.aggregator}' if config.aggregator else '--update-clip'} would see only sums over "
            "gateways, and one poisoned update poisons a sum. Give --nodes devices."
        )
    known = AGGREGATORS.get(config.aggregator)
    if known and config.cohort < 3:
        raise ConfigError(
            f"--aggregator {config.aggregator} goes by the majority, and {config.cohort} devices have none. "
            "Give --cohort 3 or more."
        )
    if known and (why := known.refusal(config.cohort, config.tolerate)):
        raise ConfigError(why)
