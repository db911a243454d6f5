"""Which word was said? A second of sound as log-mel features (Speech Commands; Warden 2018, arXiv:1804.03209).

Two protocols. A device is a speaker, who says ten words: speakers that are held out adapt on a few of their own clips. Or, with
``--episodes classes``, a device sees five words under its own numbering, and five of the ten words are held out as well: it
adapts on clips of other held-out speakers, and is measured on those of one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyfl import core
from tinyfl.core import I64, Stream, TableSource
from tinyfl.core.draws import distinct
from tinyfl.data import Reading, Table
from tinyfl.data.archives import contents
from tinyfl.data.devices import owners
from tinyfl.data.logmel import centred, features, second_of
from tinyfl.errors import DataError
from tinyfl.system.files import read_arrays
from tinyfl.tasks import Episodes, Split
from tinyfl.tasks.classes import Parts
from tinyfl.tasks.episodic import ClassPool, Episodic
from tinyfl.tasks.published import Published, without_options
from tinyfl.tasks.standard import Standardisation

WORDS = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes")
"""The ten commands. An even seed holds out the first five in the episodes of classes, an odd one the last five."""

CLIPS = 30
"""Clips of the ten words that a speaker needs to be held out."""

FOLDS = 5
"""Seeds 0 to 4 test each such speaker once, so do seeds 5 to 9, in other groups, and so on."""

OTHER = 2
"""Clips of a further word that a device needs to be trained on it."""

CLIP = re.compile(r"(?:(?P<word>[a-z]+)_)?(?P<speaker>[0-9a-f]{8})_nohash_(?P<take>\d+)\.wav")
"""The name of a clip; in the folder _unknown_ it may begin with its word."""

SILENCE, UNKNOWN = "_silence_", "_unknown_"


class Keywords(Published):
    """The task of a table whose devices are speakers."""

    name = "keywords"


def keywords(
    data: Path,
    seed: int,
    standard: Standardisation | None = None,
    episodes: str = "",
    ways: int = 5,
    training_ways: int = 0,
    drop_small: bool = False,
    balance: bool = False,
    shots: int = 0,
) -> "Keywords | OthersWords":
    """The task of the .npz file ``data``, with the arrays of ``arrays``. With ``drop_small``, speakers with no more than
    ``shots`` clips are not evaluated; with ``balance``, a speaker's stream has the words equally often.

    Raises DataError for another file.
    """
    x, words, speakers = _clips(data)
    core_words = np.isin(words, WORDS)
    test, validation = _folds(data, speakers[core_words], seed)
    reading = Reading(
        drop_small=drop_small, balance=balance, shots=shots, episodes=episodes, ways=ways, training_ways=training_ways
    )
    if episodes:
        rows = core_words | ~np.isin(speakers, [*test, *validation])
        table = Table(str(data), x[rows], words[rows], speakers[rows], test, validation)
        return _of_words(table, seed, reading, standard)
    table = Table(str(data), x[core_words], words[core_words], speakers[core_words], test, validation)
    return Keywords(table, seed, standard, reading)


def _clips(data: Path) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The features, centred in time, the word and the speaker of each clip of a word.

    Raises DataError for a file that has not ``arrays``.
    """
    if data.is_file() and data.suffix != ".npz":
        raise DataError(f"{data} is no .npz file. Make one of sound: tinyfl data convert keywords {data} keywords.npz.")
    held = read_arrays(data, ("logmel", "word", "words", "speaker", "speakers"))
    x, found = held["logmel"], []
    if x.dtype != np.uint8 or x.ndim != 3 or not x.size:
        raise DataError(f"{data}: array logmel is {x.dtype} {x.shape}, not uint8 (clips, windows, bands) (docs/tasks.md).")
    for index, names in (("word", "words"), ("speaker", "speakers")):
        at, known = held[index], held[names]
        if at.shape != x.shape[:1] or at.dtype.kind not in "iu" or known.ndim != 1 or known.dtype.kind != "U":
            raise DataError(f"{data}: array {index} is {at.dtype} {at.shape}; give each clip an index into {names}, of names.")
        if not at.size or not 0 <= at.min() <= at.max() < known.size:
            raise DataError(f"{data}: array {index} has no clip, or an index beyond the {known.size} {names}.")
        found.append(known[at])
    words, speakers = found
    spoken = (speakers != "") & (words != SILENCE) & (words != UNKNOWN)
    return centred(x[spoken]), words[spoken], speakers[spoken]


def _folds(data: Path, speakers: NDArray[Any], seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The speakers for testing and those for validation, from the speaker of each clip of the ten words."""
    names, count = np.unique(speakers, return_counts=True)
    eligible = names[count >= CLIPS]
    if len(eligible) < FOLDS:
        raise DataError(f"{data}: {len(eligible)} speakers have {CLIPS} clips of the ten words; at least {FOLDS} are needed.")
    draw = core.random(seed // FOLDS, Stream.task, np.zeros(1, np.uint32), words=len(eligible))
    order = eligible[distinct(draw, np.array([len(eligible)]), len(eligible))[0]]
    folds = np.array_split(order, FOLDS)
    return np.sort(folds[seed % FOLDS]), np.sort(folds[(seed + 1) % FOLDS])


def _of_words(table: Table, seed: int, reading: Reading, standard: Standardisation | None) -> "OthersWords":
    """The task of the second protocol."""
    half = len(WORDS) // 2
    held_out = WORDS[:half] if seed % 2 == 0 else WORDS[half:]
    names, owner = owners(table)
    index = dict(zip(names.tolist(), range(len(names)), strict=True))
    assert table.split is not None
    assert table.validation is not None
    test, validation = (np.array([index[name] for name in each.tolist()]) for each in (table.split, table.validation))
    train = np.setdiff1d(np.arange(len(names)), [*test, *validation])
    known = np.setdiff1d(table.y, held_out)
    of_training, count = np.unique(table.y[np.isin(owner, train)], return_counts=True)
    kinds = {
        "train": np.intersect1d(known, of_training[count >= OTHER]),
        "validation": np.setdiff1d(WORDS, held_out),
        "test": np.array(held_out),
    }
    devices = {"train": train, "validation": validation, "test": test}
    parts = Parts.of(table, table.y, owner, devices, kinds, reading.ways, reading.shots + 1 if reading.drop_small else 2)
    speaker = {part: owner[rows] for part, rows in parts.rows.items()}
    fields = parts.fields("keywords", seed, reading, standard=standard)
    fields["standardisation"] = without_options(fields["standardisation"])
    return OthersWords(**fields, speaker=speaker, names=names)


@dataclass(frozen=True, kw_only=True)
class OthersWords(Episodic):
    """Episodes of words whose query set is one speaker's, and whose support set is other speakers'. ``speaker`` has, for each
    part, that of each row of its pool, as an index into ``names``."""

    speaker: Mapping[str, I64]
    names: NDArray[Any]

    def _speakers(self, split: Split) -> tuple[ClassPool, I64, I64]:
        """A split's pool, the speaker of each of its rows, and those speakers who say all its words."""
        pool = self.test if split == "test" else self.validation
        speaker = self.speaker[split]
        word = np.repeat(np.arange(len(pool.count)), pool.count)
        said = np.unique(np.stack([speaker, word]), axis=1)[0]
        who, words = np.unique(said, return_counts=True)
        everyone = who[words == len(pool.count)]
        if len(everyone) < 2:
            raise DataError(
                f"task {self.name}: fewer than 2 {split} speakers say all {len(pool.count)} words. Give more clips."
            )
        return pool, speaker, everyone

    def device_names(self, split: Split) -> list[str]:
        """The names of a split's speakers."""
        return [str(name) for name in self.names[self._speakers(split)[2]]]

    def episodes(self, split: Split, count: int, shots: int) -> Episodes:
        """Several draws for each speaker, with ``shots`` clips of each word by others, and up to all clips of the speaker."""
        pool, speaker, everyone = self._speakers(split)
        everyone = everyone[:count]
        draws = max(1, count // len(everyone))
        of_word = [np.arange(first, first + many) for first, many in zip(pool.first, pool.count, strict=True)]
        most = max(int((speaker[rows] == who).sum()) for rows in of_word for who in everyone)
        parts = [
            self._of_speaker(pool, of_word, speaker == who, shots, most, np.arange(n * draws, (n + 1) * draws, dtype=np.uint32))
            for n, who in enumerate(everyone.tolist())
        ]

        def source(rows: I64) -> TableSource:
            """A source from rows (episodes, clips of each word, ways)."""
            flat = rows.reshape(len(rows), -1).astype(np.int32)
            labels = np.ascontiguousarray(np.broadcast_to(np.arange(self.ways, dtype=np.int32), rows.shape).reshape(flat.shape))
            return TableSource(pool.table, flat, labels=labels)

        support, query = (np.concatenate(each) for each in zip(*parts, strict=True))
        return Episodes(source(support), source(query), np.repeat(np.arange(len(everyone), dtype=np.int32), draws))

    def _of_speaker(
        self, pool: ClassPool, of_word: list[I64], own: NDArray[np.bool_], shots: int, most: int, episode: NDArray[np.uint32]
    ) -> tuple[I64, I64]:
        """Support rows (episodes, shots, ways) and query rows (episodes, most, ways) of the speaker whose rows are ``own``."""
        words = core.distinct(self.seed, Stream.task, episode, skip=2, available=len(of_word), picks=self.ways).astype(np.int64)
        support = np.empty((len(episode), len(of_word), shots), np.int64)
        query = np.empty((len(of_word), most), np.int64)
        for word, rows in enumerate(of_word):
            others, mine = rows[~own[rows]], rows[own[rows]]
            if len(others) < shots:
                raise DataError(
                    f"task {self.name} has a word of which other speakers have {len(others)} clips. Use --shots {len(others)} "
                    "or fewer."
                )
            skip = word * len(pool.table)
            drawn = core.distinct(self.seed, Stream.support, episode, skip=skip, available=len(others), picks=shots)
            support[:, word] = others[drawn]
            query[word] = mine[np.arange(most) % len(mine)]
        chosen = np.take_along_axis(support, words[:, :, None], axis=1)
        return chosen.transpose(0, 2, 1), query[words].transpose(0, 2, 1)


def arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The clips of Speech Commands in an archive as it is downloaded, or in its folder: ``logmel`` uint8 (clips, 49, 40), as
    tinyfl.data.logmel says; ``word`` (clips,), an index into ``words``; ``speaker`` (clips,), an index into ``speakers``, of
    which "" has no name; and ``take`` (clips,), which of the speaker's clips of the word it is.

    Raises DataError for anything else.
    """
    found, frames = list[tuple[str, str, int]](), []
    for name, data in contents(path, ".wav"):
        folder, clip = PurePosixPath(name).parent.name, CLIP.fullmatch(PurePosixPath(name).name)
        if folder == "_background_noise_" or (clip is None and folder != SILENCE):
            continue
        word = (clip and clip["word"]) or folder
        found.append((word, clip["speaker"] if clip else "", int(clip["take"]) if clip else 0))
        frames.append(features(second_of(f"{path}: {name}", data)))
    if not found:
        raise DataError(f"{path} has no clips such as yes/0a2b400e_nohash_0.wav. Give the archive as it is downloaded.")
    words, speakers = (sorted({each[i] for each in found}) for i in (0, 1))
    return {
        "logmel": np.stack(frames),
        "word": np.array([words.index(word) for word, _, _ in found], np.int16),
        "words": np.array(words),
        "speaker": np.array([speakers.index(speaker) for _, speaker, _ in found], np.int16),
        "speakers": np.array(speakers),
        "take": np.array([take for _, _, take in found], np.int32),
    }
