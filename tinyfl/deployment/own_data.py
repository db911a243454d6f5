"""A gateway's own data: its devices' samples, in a file that stays here, and what it answers about them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, RecordDict

from tinyfl.config import Config
from tinyfl.data.reading import read_table
from tinyfl.errors import ConfigError, DataError, RunError
from tinyfl.errors.words import plain
from tinyfl.flower.messages import SAME_VERSION, read_network, read_theta
from tinyfl.flower.sites import SAID, SHARE, read_record, record
from tinyfl.flower.sites_task import Row, answered
from tinyfl.runs.hashes import theta_sha256
from tinyfl.runs.learner import refuse_misfit
from tinyfl.runs.tables import as_csv
from tinyfl.system.files import write_whole
from tinyfl.tasks.npz import Npz
from tinyfl.tasks.sites import Share, SiteData

LOOK_THERE = "its data cannot be used; the log of its gateway says what is wrong, and what helps."
"""What another machine is told of an error in the data, whose words may hold a value of a sample."""


class OwnData:
    """The data in the file ``path`` of the site ``name``. ``tell`` receives lines of text. Tables of single devices are written
    to ``folder``, and sent only if the site ``shares`` them."""

    def __init__(self, name: str, path: str, folder: Path, shares: bool, tell: Callable[[str], None]) -> None:
        self._name, self._path, self._folder, self._shares, self._tell = name, Path(path), folder, shares, tell
        self._read: tuple[Any, SiteData] | None = None
        self._task: tuple[Any, Npz] | None = None
        self._last: tuple[Any, RecordDict] | None = None

    def answer(self, asked: Mapping[str, Any], content: RecordDict, config: Config) -> RecordDict:
        """The answer to a question. One that comes again is answered from memory.

        Raises DataError for data that cannot be used, ConfigError for an unreadable question.
        """
        arrays = content.array_records.get("arrays")
        key = asked, read_record(content, SHARE), _of_data(config), read_theta(arrays).tobytes() if arrays else b""
        if self._last is None or self._last[0] != key or asked["what"] == "roll":
            self._last = key, RecordDict({SAID: record(self._answer(asked, content, arrays, config))})
        return self._last[1]

    def _answer(
        self, asked: Mapping[str, Any], content: RecordDict, arrays: ArrayRecord | None, config: Config
    ) -> Mapping[str, Any]:
        if asked["what"] == "roll":
            roll = self._data(config).roll(str(asked["targets"]))
            self._tell(f"roll call: {len(roll.devices):,} devices, {roll.counts.sum():,} samples in {self._path.name}")
            return {**roll.to_json(), "shares": self._shares}
        share = read_share(content)
        if share is None:
            raise _unreadable("no share")
        if asked["what"] == "first":
            return self._data(config).first(share).to_json()
        if asked["what"] == "second":
            return self._data(config).second(share, np.array(asked["mean"]), np.array(asked["target_mean"])).to_json()
        return self._measured(asked, share, content, arrays, config)

    def _measured(
        self, asked: Mapping[str, Any], share: Share, content: RecordDict, arrays: ArrayRecord | None, config: Config
    ) -> Mapping[str, Any]:
        """The results on this site's held-out devices, as sums over them."""
        said, task = read_network(content), self.task(share, config)
        if said is None:
            raise _unreadable("no network")
        network, _ = said
        refuse_misfit(network, task, network.name)
        theta = read_theta(arrays) if arrays else None
        found = [answered(task, network, theta, case) for case in asked["cases"]]
        rows = [row for _, each in found for row in each]
        if theta is not None and rows:
            self._write(theta_sha256(theta), rows)
        more = {"devices": rows} if self._shares and rows else {}
        return {"cases": [answer for answer, _ in found], **more}

    def _write(self, theta: str, rows: Sequence[Row]) -> None:
        """Writes the results of single devices, with the weights ``theta``, to a table on this machine."""
        path = self._folder / f"{self._name}-devices-{theta[:8]}.csv"
        try:
            write_whole(path, as_csv(rows).encode())
        except RunError as error:
            self._tell(f"{path} cannot be written ({plain(error, 100)}): the table of single devices is missing")
        else:
            self._tell(f"the result of each device held out here, with the weights {theta[:8]}: {path}")

    def task(self, share: Share, config: Config) -> Npz:
        """This site's part of the task that all sites have agreed on."""
        data = self._data(config)
        key = share.to_json(), _of_data(config), data.digest
        if self._task is None or self._task[0] != key:
            self._task = key, data.task(share, config.seed)
        return self._task[1]

    def _data(self, config: Config) -> SiteData:
        """The data, as the run reads them; read again if that or the file has changed."""
        try:
            found = self._path.stat()
        except OSError as error:
            raise DataError(f"{self._path}: {error.strerror}. Give this gateway another file with data or --data.") from error
        now = found.st_mtime_ns, found.st_size, found.st_ino, _of_data(config)
        if self._read is None or self._read[0] != now:
            table = read_table(self._path, config.reading)
            self._read = now, SiteData(self._name, table, config.reading, bool(config.standardise))
        return self._read[1]


def _of_data(config: Config) -> tuple[Any, ...]:
    """What a site's data are read and used by."""
    return config.seed, config.reading, config.standardise


def read_share(content: RecordDict) -> Share | None:
    """The share in a message; None without one.

    Raises ConfigError for an unreadable one.
    """
    said = read_record(content, SHARE)
    try:
        return Share.from_json(said) if said else None
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(error) from error


def _unreadable(why: object) -> ConfigError:
    return ConfigError(f"the message cannot be read ({plain(why, 100)}). {SAME_VERSION}")
