"""Replays of asynchronous runs: rounds.jsonl has each round's arrivals in their order, which with the config decide theta."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyfl.config import Config
from tinyfl.errors import ConfigError, RunError
from tinyfl.errors.words import shell
from tinyfl.fleet import ends_of
from tinyfl.registry import KINDS
from tinyfl.runs.directory import CONFIG, REPLAYED, ROUNDS, RunDirectory
from tinyfl.runs.hashes import FILES
from tinyfl.runs.records import ArrivalsRecord, RoundRecord

CURE = "Start the replay again with another --out."


def in_real_time(config: Config) -> list[str]:
    """A note on an asynchronous run with boards: its config does not decide theta."""
    if not config.buffer or all(part.native for part in config.fleet):
        return []
    return [
        "arrivals: as boards arrive, so one seed has many thetas; tinyfl run --replay and this run's directory repeats its own"
    ]


@dataclass(frozen=True)
class Arrivals:
    """A log of arrivals: for each round from 0 the pairs of device and version in the order of their arrival; and for each
    arrival the reason for leaving it out, empty if it counts, and its round's virtual time, None on real clocks."""

    rounds: tuple[tuple[tuple[int, int], ...], ...]
    reasons: tuple[str, ...]
    times: tuple[float | None, ...]


def to_replay(run: Path, options: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The options of a run that replays the one in ``run`` on simulated devices, and the log of its arrivals. ``options`` may
    say where its files are by now, and bring its own code.

    Raises ConfigError for other options and a synchronous run, RunError for a run that has not finished.
    """
    directory = RunDirectory(run)
    saved = directory.config()
    given = {name: value for name, value in options.items() if value is not None}
    if others := given.keys() - {*FILES, *KINDS}:
        raise ConfigError(f"a replay has the settings of its run. Leave --{min(others).replace('_', '-')} out.")
    if not saved.buffer:
        again = shell("tinyfl", "run", directory.name / CONFIG)
        raise ConfigError(f"{run} was synchronous: it has no arrivals, and its config repeats it: {again}")
    directory.result()
    log = b"".join(line + b"\n" for line, record in directory.records(ROUNDS, RoundRecord) if record.counts)
    return {**saved.as_options(), **given, "fleet": (), "minimum": 0}, log


def replayed(directory: RunDirectory, config: Config) -> Arrivals | None:
    """The log that the run in ``directory`` replays; None if it replays none.

    Raises RunError if it is damaged.
    """
    path = directory.path / REPLAYED
    if not path.is_file():
        return None
    records = [record for _, record in directory.records(REPLAYED, ArrivalsRecord)]
    rounds = tuple(tuple(record.arrivals) for record in records)
    pairs = [(device, version, round) for round, arrivals in enumerate(rounds) for device, version in arrivals]
    fits = (
        [record.round for record in records] == list(range(1, len(records) + 1))
        and all(len(arrivals) == config.buffer for arrivals in rounds)
        and all(device < config.devices and version <= round for device, version, round in pairs)
        and len({pair[:2] for pair in pairs}) == len(pairs)
    )
    if not fits:
        raise RunError(f"{path} is damaged: it is no log of rounds with {config.buffer} arrivals each. {CURE}")
    return Arrivals(
        rounds,
        tuple(_reason(record, device) for record in records for device, _ in record.arrivals),
        tuple(record.time for record in records for _ in record.arrivals),
    )


def _reason(record: ArrivalsRecord, device: int) -> str:
    """The reason for leaving out a device of a round; empty if its update counts."""
    absent = ((reason, ends_of(spans)) for reason, spans in record.absent.items())
    return next((reason for reason, ends in absent if any(first <= device <= last for first, last in ends)), "")
