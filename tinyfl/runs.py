"""Run directories: config.toml, metrics.jsonl, rounds.jsonl, events.jsonl, checkpoint/, initialisation.npz, result.json,
report.html.

One run at a time holds the directory's lock, which the operating system drops even after kill -9. A checkpoint is one file
that is replaced whole, so a cut at any moment leaves the old one or the new one.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinyfl.algorithms import State
from tinyfl.config import Config, resolve
from tinyfl.errors import DataError, RunError
from tinyfl.files import npz, read_arrays, write_whole
from tinyfl.fleet import Event

CONFIG, METRICS, ROUNDS, EVENTS, CHECKPOINT, INITIALISATION, RESULT, LOCK = (
    "config.toml", "metrics.jsonl", "rounds.jsonl", "events.jsonl", "checkpoint/state.npz", "initialisation.npz",
    "result.json", "lock",
)  # fmt: skip


HELD = (
    "theta", "round", "config_sha256", "data_sha256", "network_sha256", "left_out", "seconds", "losses",
)  # fmt: skip
"""What a checkpoint's file has."""


@dataclass(frozen=True)
class Checkpoint:
    """A run between two rounds: the state, the hashes of config, data and a network that is a file, and what is counted so
    far. ``losses`` are those of the rounds since the last record in metrics.jsonl."""

    state: State
    config_sha256: str
    data_sha256: str
    network_sha256: str
    left_out: Mapping[str, int]
    seconds: float
    losses: tuple[float, ...]


class RunDirectory:
    """A run's files at ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the directory for this process.

        Raises RunError if another run does.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / LOCK).open("a+")
        except OSError as error:
            raise RunError(f"{self.path} cannot be written ({error}). Give an --out that you may write to.") from error
        with lock as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise RunError(
                    f"{self.path} is in use by a running tinyfl (process {file.read().strip() or 'unknown'}). "
                    "Wait for it, stop it, or give another --out."
                ) from error
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield

    def start(self, config: Config) -> None:
        """Writes the config of a new run.

        Raises RunError if the directory already holds one.
        """
        if (self.path / CONFIG).exists():
            raise RunError(
                f"{self.path} already holds a run. Go on with it: tinyfl run --resume {self.path}; or give another --out."
            )
        write_whole(self.path / CONFIG, config.to_toml().encode())

    def config(self) -> Config:
        """The run's config.

        Raises RunError if there is none, ConfigError if it is malformed.
        """
        if not (self.path / CONFIG).is_file():
            raise RunError(f"{self.path} holds no run: it has no {CONFIG}. Start one with tinyfl run --out {self.path}.")
        return resolve({}, self.path / CONFIG)

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Replaces the checkpoint, once the metrics up to it are on disk."""
        write_whole(
            self.path / CHECKPOINT,
            npz(
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

    def checkpoint(self) -> Checkpoint | None:
        """The last checkpoint; None if there is none yet.

        Raises RunError if it cannot be read.
        """
        path = self.path / CHECKPOINT
        if not path.exists():
            return None
        try:
            held = read_arrays(path, HELD)
        except DataError as error:
            raise RunError(f"{path} is damaged. Start the run anew with another --out.") from error
        return Checkpoint(
            State(int(held["round"]), held["theta"]),
            str(held["config_sha256"]),
            str(held["data_sha256"]),
            str(held["network_sha256"]),
            json.loads(str(held["left_out"])),
            float(held["seconds"]),
            tuple(held["losses"].tolist()),
        )

    def metrics(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl; a last line that was cut off is left out."""
        return self._records(METRICS)

    def rounds(self) -> list[dict[str, Any]]:
        """The records of rounds.jsonl, likewise."""
        return self._records(ROUNDS)

    def trim(self, rounds: int) -> None:
        """Drops the records past ``rounds``, which a resumed run writes again."""
        for name in (METRICS, ROUNDS):
            kept = [record for record in self._records(name) if record["round"] <= rounds]
            write_whole(self.path / name, "".join(json.dumps(record) + "\n" for record in kept).encode())

    def _records(self, name: str) -> list[dict[str, Any]]:
        path = self.path / name
        records = []
        for line in path.read_text(errors="replace").splitlines() if path.is_file() else []:
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                break
        if not all(isinstance(record, dict) and "round" in record for record in records):
            raise RunError(f"{path} is damaged. Put it back, or start the run anew with another --out.")
        return records

    def log_event(self, event: Event) -> None:
        """Adds a line to events.jsonl, whole whichever thread writes it."""
        line = json.dumps({"time": round(time.time(), 3), **asdict(event)}) + "\n"
        with (self.path / EVENTS).open("ab", buffering=0) as file:
            file.write(line.encode())

    def result(self) -> dict[str, Any]:
        """The finished run's JSON.

        Raises RunError if the run has not finished.
        """
        path = self.path / RESULT
        if not path.is_file():
            self.config()
            raise RunError(f"{self.path} has not finished. Go on with it: tinyfl run --resume {self.path}")
        try:
            data: dict[str, Any] = json.loads(path.read_text())
            whole = {"evaluation", "baseline", "floor"} <= set(data)
        except (ValueError, TypeError):
            whole = False
        if not whole:
            raise RunError(f"{path} is damaged. Write it anew: tinyfl run --resume {self.path}")
        return data

    def save_initialisation(self, **arrays: Any) -> None:
        """Writes initialisation.npz."""
        write_whole(self.path / INITIALISATION, npz(**arrays))

    def save_result(self, result: dict[str, Any]) -> None:
        """Writes result.json."""
        write_whole(self.path / RESULT, (json.dumps(result, indent=2) + "\n").encode())
