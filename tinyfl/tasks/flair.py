"""FLAIR: which of 17 kinds of things, or of 1,628 fine ones, a photo shows (Song, Granqvist, Talwar 2022, arXiv:2207.08869).

A device is a Flickr user. FLAIR's partitions train, val and test, which share no user, are the training, validation and test
devices. Photos are read when a device learns from them: memory holds those of a round, or of an evaluation.
"""

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from tinyfl import core
from tinyfl.core import F32, I64, U8, U32, Stream, TableSource
from tinyfl.core.draws import distinct
from tinyfl.data.flair import open_photos
from tinyfl.errors import DataError
from tinyfl.networks.layers import Activation, Loss, Shape
from tinyfl.tasks import Episodes, Split
from tinyfl.tasks.standard import Standardisation

PARTITION: dict[Split, str] = {"validation": "val", "test": "test"}
MAX_QUERIES = 50
WHITE = 255


class Flair:
    """The task of the photos at ``data``, a folder or an HDF5 file (tinyfl.data.flair), each scaled to ``image_side`` by
    ``image_side``, with the labels of ``label_set``, coarse or fine."""

    name = "flair"
    activation = Activation.leaky_relu
    loss = Loss.sigmoid_cross_entropy

    def __init__(self, data: Path, seed: int, label_set: str = "coarse", image_side: int = 32) -> None:
        self._photos = open_photos(data, label_set)
        self._data, self._seed, self._label_set = data, seed, label_set
        self.shape: Shape = (image_side, image_side, 3)
        self.outputs = len(self._photos.labels)
        self.fleet_size: int | None = len(self._photos.users["train"])
        self._counts = {partition: np.zeros(len(users), np.int64) for partition, users in self._photos.users.items()}

    @cached_property
    def standardisation(self) -> Standardisation:
        """Pixels from 0 to 255 become 0 to 1; the classes are the labels' names."""
        inputs = int(np.prod(self.shape))
        notes = (
            f"x: photos of {self.shape[0]} x {self.shape[1]} pixels, red, green and blue, / {WHITE}",
            f"y: {self.outputs:,} {self._label_set} labels, each a yes or a no",
        )
        plain = Standardisation.none(inputs, self.outputs)
        return replace(plain, scale=plain.scale * WHITE, classes=np.array(self._photos.labels), notes=notes)

    def stream(self, devices: U32, round: int, samples: int) -> TableSource:
        """Each user's photos in a new order every round, repeated if they are fewer than ``samples``."""
        counts = self._count("train", devices)
        words = core.random(
            self._seed, Stream.sample, devices, np.full(len(devices), round, np.uint32), words=int(counts.max())
        )
        at = np.arange(samples) % counts[:, None]
        return self._source("train", devices, np.take_along_axis(distinct(words, counts, words.shape[1]), at, axis=1))

    def episodes(self, split: Split, count: int, shots: int) -> Episodes:
        """One draw of each of the first ``count`` users with more photos than ``shots``, with the query set from the others."""
        partition = PARTITION[split]
        users = self._with_more(partition, shots, count)
        counts = self._count(partition, users)
        words = core.random(self._seed, Stream.support, users, words=int(counts.max()))
        queries = min(MAX_QUERIES, int(counts.max()) - shots)
        # A user with fewer spare photos than queries repeats some of them.
        at = np.concatenate(
            [np.tile(np.arange(shots), (len(users), 1)), shots + np.arange(queries) % (counts - shots)[:, None]], axis=1
        )
        whole = self._source(partition, users, np.take_along_axis(distinct(words, counts, words.shape[1]), at, axis=1))
        support, query = (np.ascontiguousarray(rows) for rows in np.split(whole.rows, [shots], axis=1))
        device = np.arange(len(users), dtype=np.int32)
        return Episodes(
            TableSource(whole.table, support, targets=whole.targets, gain=whole.gain),
            TableSource(whole.table, query, targets=whole.targets, gain=whole.gain),
            device,
        )

    def _count(self, partition: str, users: U32) -> I64:
        """How many photos each of these users has."""
        counts = self._counts[partition]
        for user in users[counts[users] == 0].tolist():
            counts[user] = len(self._photos.names(partition, user))
            if not counts[user]:
                name = self._photos.users[partition][user]
                raise DataError(f"{self._data}: user {name} of {partition} has no photos. Make the file again.")
        return counts[users]

    def _with_more(self, partition: str, shots: int, count: int) -> U32:
        """The first ``count`` users with more photos than ``shots``.

        Raises DataError if there are fewer than two.
        """
        found = list[int]()
        for user in range(len(self._counts[partition])):
            if self._count(partition, np.array([user], np.uint32))[0] > shots:
                found.append(user)
                if len(found) == count:
                    break
        if len(found) < 2:
            most = int(np.sort(self._counts[partition])[-2:].min()) - 1
            cure = f"Use --shots {most} or fewer." if most > 0 else "Give it more users, or users with more photos."
            raise DataError(f"{self._data}: fewer than two users of {partition} have more photos than {shots} shots. {cure}")
        return np.array(found, np.uint32)

    def _source(self, partition: str, users: U32, picks: I64) -> TableSource:
        """The photos ``picks`` (users, samples) of the ``users``: a table of each of them once."""
        tables, targets = list[U8](), list[F32]()
        rows, first = np.empty(picks.shape, np.int32), 0
        for at, user in enumerate(users.tolist()):
            which, back = np.unique(picks[at], return_inverse=True)
            tables.append(self._photos.pixels(partition, user, which, self.shape[0]))
            targets.append(self._photos.truth(partition, user)[which])
            rows[at] = first + back
            first += len(which)
        table = np.concatenate(tables).reshape(first, -1)
        gain = np.full(len(users), 1 / WHITE, np.float32)
        return TableSource(table, rows, targets=np.concatenate(targets), gain=gain)
