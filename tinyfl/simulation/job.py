"""A run to do, checked before its first round."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tinyfl.algorithms import Inner, Returns, WithLayers, demand_for_boards
from tinyfl.codecs.down import Down
from tinyfl.codecs.down import told as of_delta
from tinyfl.config import Config, demand_utf8, read_settings, resolve
from tinyfl.core import F32, Engine
from tinyfl.data.frames import file_of
from tinyfl.errors import ConfigError
from tinyfl.flower.rounds import Progress
from tinyfl.networks import Network
from tinyfl.runs.arrivals import in_real_time
from tinyfl.runs.directory import RunDirectory, new_directory
from tinyfl.runs.elsewhere import demand_episodes
from tinyfl.runs.learner import Learner, Load, algorithm_of, down_of, fitted
from tinyfl.runs.resuming import restated
from tinyfl.sampling import Sampler, sampler, told
from tinyfl.sensors.apart import demand_apart
from tinyfl.sensors.run import live
from tinyfl.tasks.memory import check_limit


@dataclass(frozen=True)
class Job(Learner):
    """A run to do: the learner with its config, algorithm and engine."""

    config: Config
    algorithm: WithLayers
    engine: Engine
    sampler: Sampler
    progress: Callable[[Progress], None]

    @property
    def down(self) -> Down:
        """How theta goes down."""
        return down_of(self.config, self.network)

    def without_head(self, theta: F32) -> tuple[Network, F32]:
        """The network of unseen devices and its weights, from those of training."""
        return self.for_unseen(self.algorithm.algorithm, theta, self.config.devices, self.engine)


def new_job(
    options: dict[str, Any],
    file: Path | None,
    out: Path | None,
    engine: Engine,
    progress: Callable[[Progress], None],
    load: Load,
) -> tuple[Path, Job]:
    """The directory of a new run, and the job. Data that are no file are kept in the directory, for a resume."""
    data = options.get("data")
    if data is None or isinstance(data, str | Path):
        job = prepared(*_loaded(resolve(options, file, installed=True), load), engine, progress)
        path = out or new_directory(job.config)
        demand_utf8("--out", str(path))
        return path, job
    path = out or new_directory(resolve({**options, "data": ""}, file, installed=True))
    demand_utf8("--out", str(path))
    directory = RunDirectory(path)
    kept = directory.keep_data(file_of(data))
    try:
        config = resolve({**options, "data": str(kept)}, file, installed=True)
        return path, prepared(*_loaded(config, load), engine, progress)
    except BaseException:
        directory.drop_data()
        raise


def turns(config: Config, options: Mapping[str, Any], file: Path | None) -> list[str]:
    """A note where the user's boards take turns in the rounds, though nobody said how many are in each."""
    said = options.get("cohort") or (file and read_settings(file).get("cohort"))
    if said or config.cohort >= config.devices or not any(part.ports for part in config.fleet):
        return []
    return [
        f"each round takes {config.cohort:,} of the {config.devices:,} devices by default. For all in every round: "
        f"--cohort {config.devices}"
    ]


def _loaded(config: Config, load: Load) -> tuple[Config, Learner]:
    """The config completed from its data, with its task and network."""
    config.demand_code()
    return fitted(config, load)


def prepared(config: Config, learner: Learner, engine: Engine, progress: Callable[[Progress], None]) -> Job:
    """Checks before the first round what would fail after the last."""
    demand_episodes(learner.task, config.tasks, max(config.shots))
    if config.training_ways and config.chosen("algorithm").trains == "task":
        raise ConfigError(
            f"--training-ways is for algorithms that train prototypes or classes, and {config.algorithm} trains what a device "
            "does after training, with as many classes. Leave it out."
        )
    algorithm = algorithm_of(config, learner.network)
    if config.buffer and algorithm.inner(0).keeps:
        raise ConfigError(
            "--buffer goes with devices that keep nothing from round to round. Give --local-start reconstructed, or leave "
            "--buffer out."
        )
    if any(not part.native for part in config.fleet):
        demand_for_boards(algorithm.inner(0))
    demand_apart(config.parts, learner.task)
    if engine.memory:
        _check_memory(config, learner, algorithm.inner(0), engine)
    more = *restated(config), *told(config.sampling, config.embedding), *in_real_time(config), *live(config.parts)
    more += tuple(of_delta(down_of(config, learner.network), config.cohort, config.devices))
    learner = replace(learner, notes=(*learner.notes, *more))
    chooses = sampler(
        config.sampling, config.embedding, task=learner.task, samples=algorithm.inner(0).samples, seed=config.seed,
        size=config.cohort, fleet_size=config.devices,
    )  # fmt: skip
    return Job(**vars(learner), config=config, algorithm=algorithm, engine=engine, sampler=chooses, progress=progress)


def _check_memory(config: Config, learner: Learner, inner: Inner, engine: Engine) -> None:
    """Raises ConfigError if the engine's limit of memory is too small for the first round or for evaluation."""
    task, plan = learner.task, learner.network.plan
    if inner.returns is Returns.meta_gradient:
        raise ConfigError("--memory cannot bound what MAML takes. Leave it out, or say --algorithm fomaml.")
    kept = plan.kept_floats(inner.to_bytes())
    shots = max(config.shots)
    check_limit(task, config.devices, inner.samples, plan, kept, engine, tasks=config.tasks, shots=shots)
