"""Run directories: config.toml, metrics.jsonl, rounds.jsonl, events.jsonl, checkpoint/, initialisation.npz, result.json,
report.html.

One run at a time holds the directory's lock, which the operating system releases even after kill -9. A checkpoint is one file,
replaced atomically, so an interruption leaves the old one or the new one.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tinyfl.algorithms import State
from tinyfl.config import Config, resolve
from tinyfl.core import F32, U32
from tinyfl.errors import ConfigError, DataError, RunError
from tinyfl.errors.words import shell
from tinyfl.fleet import Event
from tinyfl.networks import INITIALISATION
from tinyfl.runs.hashes import theta_sha256
from tinyfl.runs.log import Log
from tinyfl.runs.metrics import Tally, tallied
from tinyfl.runs.records import CheckpointRecord, Metric, Result, Round, RoundRecord, checked, values
from tinyfl.runs.validation import Validation
from tinyfl.system.files import array_names, npz, read_arrays, write_whole, writing

CONFIG, METRICS, ROUNDS, EVENTS, CHECKPOINT, RESULT, LOCK = (
    "config.toml", "metrics.jsonl", "rounds.jsonl", "events.jsonl", "checkpoint/state.npz", "result.json", "lock",
)  # fmt: skip
DATA = "data.npz"
"""The data of a run that had them from a program."""


CHECKPOINT_FIELDS = (
    "theta", "round", "config_sha256", "data_sha256", "network_sha256", "left_out", "seconds", "losses",
)  # fmt: skip
"""Arrays of a checkpoint's file; besides MORE, and those of the algorithm's memory, whose names begin with MEMORY."""

MORE = ("run", "kept_rounds", "next_sha256", "sites_sha256", "validation", "best", "remembered")
MEMORY = "memory."

REPLAYED = "replayed.jsonl"
"""The rounds whose arrivals a run replays."""

DEVICES = "devices.csv"
"""The results of single devices, if sites have sent them."""

BEFORE_ROUNDS = {CONFIG, LOCK, DATA, REPLAYED}
"""What a run has written before its first round."""

KEPT = "checkpoint"
"""The folder of what simulated devices keep from round to round."""


@dataclass(frozen=True)
class Checkpoint:
    """A run between two rounds: the state, the hashes of config, data and network file, and the counts so far. ``losses`` are
    those of the rounds since the last record in metrics.jsonl. ``run`` is the run's number, and ``kept_rounds`` uint32
    (devices,) the rounds, counted from 1, of what the devices keep; None if they keep nothing. ``next_sha256`` is the hash of
    the config that the run changes to here, empty without a change; ``sites_sha256`` that of the data that sites brought along,
    empty if none did. ``validation`` are the evaluations so far. ``remembered`` names what the aggregator remembered from
    earlier rounds and no checkpoint has."""

    state: State
    config_sha256: str
    data_sha256: str
    network_sha256: str
    left_out: Mapping[str, int]
    seconds: float
    losses: tuple[float, ...]
    run: int = 0
    kept_rounds: U32 | None = None
    next_sha256: str = ""
    validation: Validation = field(default_factory=Validation)
    sites_sha256: str = ""
    remembered: str = ""

    @property
    def data(self) -> tuple[str, str]:
        """The hashes of all data that it learns from."""
        return self.data_sha256, self.sites_sha256


Line = TypeVar("Line", bound=Round)


class RunDirectory:
    """A run's files at ``path``, which is absolute: a program may change its working directory. A failed write raises a
    RunError with the command that resumes the run."""

    def __init__(self, path: Path) -> None:
        self._given, self.path = path, path.absolute()
        self._log_error: RunError | None = None

    @property
    def name(self) -> Path:
        """The path for commands and results: as the user gave it, while that leads there."""
        try:
            return self._given if self._given.absolute() == self.path else self.path
        except FileNotFoundError:  # the working directory is gone
            return self.path

    @property
    def resume_command(self) -> str:
        """The command that resumes this run."""
        return shell("tinyfl", "run", "--resume", self.name)

    @property
    def _cure(self) -> str:
        return f"Make sure that it has room and that you may write there, then go on with: {self.resume_command}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the directory's lock for this process.

        Raises RunError if another run holds it, or its file system has no locks; no new directory is then left behind.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            new = not any(self.path.iterdir())
            lock = (self.path / LOCK).open("a+")
        with lock as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise RunError(
                    f"{self.path} is in use by a running tinyfl (process {file.read().strip() or 'unknown'}). "
                    "Wait for it, stop it, or give another --out."
                ) from error
            except OSError as error:
                if new:
                    self._undo()
                raise RunError(
                    f"{self.path} cannot be locked, so that two runs could write there at once: its file system has no locks "
                    f"({error.strerror}), as some network shares. Give an --out on a local disk, and copy the run afterwards; "
                    "or mount the share with locks."
                ) from error
            with writing(self.path / LOCK):
                file.truncate(0)
                file.write(f"{os.getpid()}\n")
                file.flush()
            yield

    def demand_new(self) -> None:
        """Raises RunError if the directory holds a run that has begun: the config of one that was refused is none."""
        if (self.path / CONFIG).exists() and not {each.name for each in self.path.iterdir()} <= BEFORE_ROUNDS:
            raise RunError(f"{self.path} already holds a run. Go on with it: {self.resume_command}; or give another --out.")

    def keep_data(self, content: bytes) -> Path:
        """Writes the data of a new run, which no file of the user's holds, and returns their path.

        Raises RunError if the directory already holds a run.
        """
        with self.locked():
            self.demand_new()
            write_whole(self.path / DATA, content)
        return self.path / DATA

    def drop_data(self) -> None:
        """Removes the data of a run that is refused, and a directory that holds nothing else."""
        (self.path / DATA).unlink(missing_ok=True)
        if not (self.path / CONFIG).exists():
            self._undo()

    def _undo(self) -> None:
        """Removes a directory that holds a lock file only."""
        with suppress(OSError):
            (self.path / LOCK).unlink()
            self.path.rmdir()

    def start(self, config: Config, log: bytes = b"") -> None:
        """Writes the config of a new run, and the ``log`` that it replays, if any.

        Raises RunError if the directory already holds one.
        """
        self.demand_new()
        if log:
            write_whole(self.path / REPLAYED, log)
        write_whole(self.path / CONFIG, config.to_toml().encode())

    def change(self, before: Config, after: Config) -> None:
        """Replaces the config of a run; the result of another one goes. The checkpoint first gets the new hash beside the old
        one, so that a run killed at any moment goes on with either."""
        now, then = before.sha256(), after.sha256()
        if now != then:
            checkpoint = self.checkpoint()
            if checkpoint is not None:
                self.demand_config(checkpoint, now)
                self.save_checkpoint(replace(checkpoint, config_sha256=now, next_sha256=then))
            with writing(self.path / RESULT, self._cure):
                (self.path / RESULT).unlink(missing_ok=True)
        self.save(CONFIG, after.to_toml().encode())

    def demand_config(self, checkpoint: Checkpoint, config_sha256: str) -> None:
        """Raises RunError if the config of this hash is not that of the checkpoint."""
        if config_sha256 not in (checkpoint.config_sha256, checkpoint.next_sha256):
            raise RunError(
                f"{self.path / CONFIG} was changed since the run started, so it cannot be resumed. Restore it (more rounds: "
                f"{self.resume_command} --rounds N), or start a new run with it: tinyfl simulate CONFIG --out ANOTHER."
            )

    def config(self) -> Config:
        """Reads the run's config.

        Raises RunError if there is none, or it is malformed.
        """
        if not (self.path / CONFIG).is_file():
            start = shell("tinyfl", "run", "--out", self.path)
            raise RunError(f"{self.path} holds no run: it has no {CONFIG}. Start one with {start}.")
        try:
            config = resolve({}, self.path / CONFIG)
        except ConfigError as error:
            raise RunError(f"{self.path / CONFIG} is damaged: {error} Restore the run's own.") from error
        moved = Path(config.data).name == DATA and not Path(config.data).exists() and (self.path / DATA).is_file()
        return replace(config, data=str((self.path / DATA).resolve())) if moved else config

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Replaces the checkpoint, once the metrics up to it are on disk."""
        memory = {f"{MEMORY}{name}": array for name, array in checkpoint.state.memory.items()}
        kept = {} if checkpoint.kept_rounds is None else {"kept_rounds": checkpoint.kept_rounds}
        validation = checkpoint.validation
        more: dict[str, Any] = {} if validation.theta is None else {"best": validation.theta}
        more |= {"validation": json.dumps([row.model_dump() for row in validation.rows])} if validation.rows else {}
        more |= {"next_sha256": checkpoint.next_sha256} if checkpoint.next_sha256 else {}
        more |= {"sites_sha256": checkpoint.sites_sha256} if checkpoint.sites_sha256 else {}
        more |= {"remembered": checkpoint.remembered} if checkpoint.remembered else {}
        self.save(
            CHECKPOINT,
            npz(
                **memory,
                **kept,
                **more,
                run=checkpoint.run,
                theta=checkpoint.state.theta,
                round=checkpoint.state.round,
                config_sha256=checkpoint.config_sha256,
                data_sha256=checkpoint.data_sha256,
                network_sha256=checkpoint.network_sha256,
                left_out=json.dumps(dict(checkpoint.left_out)),
                seconds=checkpoint.seconds,
                losses=checkpoint.losses,
            ),
        )
        if self._log_error:
            raise self._log_error

    def checkpoint(self) -> Checkpoint | None:
        """Reads the last checkpoint; None if there is none yet.

        Raises RunError if it cannot be read.
        """
        path, cure = self.path / CHECKPOINT, "Start the run again with another --out."
        if not path.exists():
            return None
        try:
            arrays = read_arrays(path, CHECKPOINT_FIELDS, MORE)
            memory = read_arrays(path, [name for name in array_names(path) if name.startswith(MEMORY)])
        except DataError as error:
            raise RunError(f"{path} is damaged. {cure}") from error
        theta, losses, kept = arrays.pop("theta"), arrays.pop("losses"), arrays.pop("kept_rounds", None)
        best = arrays.pop("best", None)
        record = checked(CheckpointRecord, values(arrays), path, cure)
        if theta.ndim != 1 or theta.dtype != np.float32 or not np.isfinite(theta).all():
            raise RunError(
                f"{path} is damaged: theta is not one row of finite float32 numbers ({theta.dtype} {theta.shape}). {cure}"
            )
        if best is not None and (best.shape != theta.shape or best.dtype != np.float32 or not np.isfinite(best).all()):
            raise RunError(f"{path} is damaged: best is not like theta ({best.dtype} {best.shape}). {cure}")
        if losses.ndim != 1 or losses.dtype != np.float64:
            raise RunError(f"{path} is damaged: losses is not one row of numbers ({losses.dtype} {losses.shape}). {cure}")
        if kept is not None and (kept.ndim != 1 or kept.dtype != np.uint32):
            raise RunError(f"{path} is damaged: kept_rounds is not one row of numbers ({kept.dtype} {kept.shape}). {cure}")
        return Checkpoint(
            State(record.round, theta, {name.removeprefix(MEMORY): array for name, array in memory.items()}),
            record.config_sha256,
            record.data_sha256,
            record.network_sha256,
            record.left_out,
            record.seconds,
            tuple(losses.tolist()),
            record.run,
            kept,
            record.next_sha256,
            Validation(tuple(record.validation), best),
            record.sites_sha256,
            record.remembered,
        )

    def metrics(self) -> list[dict[str, Any]]:
        """Reads the records of metrics.jsonl, without a truncated last line."""
        return [record.model_dump() for _, record in self.records(METRICS, Metric)]

    def trim(self, rounds: int) -> None:
        """Drops the records after round ``rounds``, which a resumed run writes again."""
        for name, kind in ((METRICS, Metric), (ROUNDS, Round)):
            kept = [line for line, record in self.records(name, kind) if record.round <= rounds]
            self.save(name, b"".join(line + b"\n" for line in kept))

    def restate_metrics(self, done: int, total: int) -> Tally | None:
        """Writes metrics.jsonl again after ``done`` rounds, as that of a run of ``total``, and returns the tally. None, without
        a change, if rounds.jsonl does not have what that takes."""
        found = tallied([record for _, record in self.records(ROUNDS, RoundRecord)], done, total)
        if found is None:
            return None
        tally, records = found
        self.save(METRICS, "".join(f"{json.dumps(record)}\n" for record in records).encode())
        return tally

    def records(self, name: str, kind: type[Line]) -> list[tuple[bytes, Line]]:
        """The lines of a file and their records, without a truncated last line."""
        path, records = self.path / name, list[tuple[bytes, Line]]()
        for line in path.read_bytes().split(b"\n")[:-1] if path.is_file() else []:
            records.append((line, checked(kind, line, path, "Put it back, or start the run again with another --out.")))
        return records

    def log(self, name: str) -> Log:
        """Opens a file for appending lines."""
        return Log(self.path / name, self._cure)

    def log_event(self, event: Event) -> None:
        """Appends a line to events.jsonl, atomically across threads. A failed write is raised at the next checkpoint: a board
        is not to blame for a full disk."""
        try:
            with self.log(EVENTS) as log:
                log.add({"time": round(time.time(), 3), **asdict(event)})
        except RunError as error:
            self._log_error = error

    def result(self) -> dict[str, Any]:
        """Reads the finished run's JSON.

        Raises RunError if the run has not finished.
        """
        path = self.path / RESULT
        if not path.is_file():
            self.config()
            raise RunError(f"{self.path} has not finished. Go on with it: {self.resume_command}")
        cure = f"Write it again: {self.resume_command}"
        result = checked(Result, path.read_bytes(), path, cure)
        config = self.config()
        if result.config_sha256 != config.sha256() and not config.older:
            raise RunError(
                f"{path} and the {CONFIG} beside it are from different runs, or {CONFIG} was changed, or is from another "
                f"version of tinyfl. Restore the files that belong together. {cure}"
            )
        return result.model_dump(exclude_unset=True)

    def holds(self, file: Path) -> bool:
        """Whether ``file`` is the initialisation of a run in this directory."""
        return file.name == INITIALISATION and (self.path / CONFIG).is_file()

    def demand_own(self, config_sha256: str, theta: F32) -> None:
        """Raises RunError if an initialisation's config hash and theta are not those of this directory's finished run."""
        result = self.result()
        if (config_sha256, theta_sha256(theta)) != (result["config_sha256"], result["theta_sha256"]):
            raise RunError(
                f"{self.path / INITIALISATION} and the {RESULT} beside it are from different runs: theta "
                f"{theta_sha256(theta)[:16]} here, {result['theta_sha256'][:16]} there. Restore the files that belong "
                f"together, or write both again: {self.resume_command}"
            )

    def save_initialisation(self, **arrays: Any) -> None:
        """Writes initialisation.npz."""
        self.save(INITIALISATION, npz(**arrays))

    def save_result(self, result: dict[str, Any]) -> None:
        """Writes result.json."""
        self.save(RESULT, (json.dumps(result, indent=2) + "\n").encode())

    def save(self, name: str, data: bytes) -> None:
        """Writes a file of this name atomically."""
        write_whole(self.path / name, data, self._cure)


def free_directory(config: Config, folder: Path = Path("runs")) -> Path:
    """TASK-ALGORITHM-SEED in ``folder``, with the first free suffix -2, -3, ... if it exists."""
    base = folder / f"{config.task}-{config.algorithm}-{config.seed}"
    path, number = base, 1
    while path.exists():
        number += 1
        path = base.with_name(f"{base.name}-{number}")
    return path


def new_directory(config: Config) -> Path:
    """Makes the ``free_directory``, so that no other run of that moment takes it."""
    while True:
        path = free_directory(config)
        with writing(path), suppress(FileExistsError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir()
            return path
