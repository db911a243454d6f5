"""FLAIR's photos by Flickr user (Song, Granqvist, Talwar 2022, arXiv:2207.08869), read as they are asked for (docs/flair.md).

Three layouts hold them: the JPEG files of the download beside labels_and_metadata.json; the HDF5 of prepare_dataset.py in
apple/ml-flair, whose labels are names; and that of apple/pfl-research, whose labels are numbers.
"""

import json
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tinyfl.core import F32, I64, U8
from tinyfl.errors import DataError, InstallError
from tinyfl.errors.words import plain

PARTITIONS = ("train", "val", "test")
KEYS = {"coarse": "labels", "fine": "fine_grained_labels"}
"""The sets of labels, with their names in the files."""

METADATA, FOLDER = "labels_and_metadata.json", "small_images"
DELIMITER = "|"
CHUNK, MAX_ENTRY = 1 << 20, 1 << 24
"""Characters of METADATA that are read at once, and that an entry may have."""

NAME = re.compile(r"[\w@-][\w@.-]{0,99}", re.ASCII)
"""A user or an image; no path out of the folder."""


class Photos(Protocol):
    """Photos by user. ``users`` are each partition's, in the order of their names; no user is in two of them. A user is given
    by the place in it."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def users(self) -> Mapping[str, Sequence[str]]: ...

    def names(self, partition: str, user: int) -> Sequence[str]:
        """The names of the user's photos."""

    def truth(self, partition: str, user: int) -> F32:
        """Which labels each photo has, as 1 or 0: (photos, labels).

        Raises DataError for an unknown label, as for all that is wrong with a file.
        """

    def pixels(self, partition: str, user: int, which: I64, side: int) -> U8:
        """Some of the user's photos, in ascending order, each scaled to ``side`` by ``side``: (photos, side, side, 3)."""


def open_photos(path: Path, label_set: str = "coarse") -> Photos:
    """The photos at ``path``, a folder or an HDF5 file, with the labels of ``label_set``, a key of KEYS.

    Raises DataError for anything else, InstallError without the library that reads it.
    """
    photos: Photos = JpegFolder(path, label_set) if path.is_dir() else Hdf5File(path, label_set)
    of_two = [set(photos.users[a]) & set(photos.users[b]) for a, b in (("train", "val"), ("train", "test"), ("val", "test"))]
    if twice := sorted(set().union(*of_two)):
        raise DataError(f"{path}: user {plain(twice[0], 40)} is in two partitions. Give each user one, so that nothing leaks.")
    for partition in PARTITIONS:
        if not photos.users[partition]:
            raise DataError(f"{path} has no users in partition {partition}. FLAIR has train, val and test.")
    return photos


class JpegFolder:
    """The folder of the download. Memory holds the names of users, and for each photo a name and the numbers of its labels."""

    def __init__(self, folder: Path, label_set: str) -> None:
        self._folder = folder / FOLDER
        metadata = folder / METADATA
        if not metadata.is_file():
            raise DataError(f"{folder} has no {METADATA}. Give the folder of FLAIR's download, or an HDF5 file made of it.")
        key = KEYS[label_set]
        people, partitions, labels = dict[tuple[str, str], int](), dict[str, list[tuple[str, int]]](), dict[str, int]()
        owner, ends, numbers, names = array("i"), array("q", [0]), array("i"), list[str]()
        for number, entry in enumerate(_entries(metadata)):
            try:
                user, name, partition = entry["user_id"], entry["image_id"], entry["partition"]
                of_flair = partition in PARTITIONS and NAME.fullmatch(user) and NAME.fullmatch(name)
                if not of_flair or not isinstance(entry[key], list):
                    raise ValueError
                numbers.extend(labels.setdefault(str(each), len(labels)) for each in entry[key])
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(f"{metadata}: entry {number:,} is not one of FLAIR's: {plain(str(entry), 120)}.") from error
            owner.append(people.setdefault((partition, user), len(people)))
            names.append(name)
            ends.append(len(numbers))
        for (partition, user), number in people.items():
            partitions.setdefault(partition, []).append((user, number))
        self.labels = tuple(sorted(labels))
        members = {partition: sorted(partitions.get(partition, [])) for partition in PARTITIONS}
        self.users = {partition: [user for user, _ in each] for partition, each in members.items()}
        self._numbers = {partition: np.array([number for _, number in each], np.int64) for partition, each in members.items()}
        self._order = np.argsort(np.array(owner, np.int32), kind="stable")
        self._first = np.searchsorted(np.array(owner, np.int32)[self._order], np.arange(len(people) + 1))
        self._names, self._ends = np.array(names, "S"), np.array(ends)
        place = {label: column for column, label in enumerate(self.labels)}
        self._columns = np.array([place[label] for label in labels], np.int32)[np.array(numbers, np.int64)]
        if len(np.unique(self._names)) < len(names):
            raise DataError(f"{metadata} has an image twice. Leave one of them out, so that nothing leaks.")

    def _rows(self, partition: str, user: int) -> I64:
        number = self._numbers[partition][user]
        rows: I64 = self._order[self._first[number] : self._first[number + 1]]
        return rows

    def names(self, partition: str, user: int) -> list[str]:
        return [name.decode() for name in self._names[self._rows(partition, user)]]

    def truth(self, partition: str, user: int) -> F32:
        rows = self._rows(partition, user)
        truth = np.zeros((len(rows), len(self.labels)), np.float32)
        for photo, row in enumerate(rows):
            truth[photo, self._columns[self._ends[row] : self._ends[row + 1]]] = 1
        return truth

    def pixels(self, partition: str, user: int, which: I64, side: int) -> U8:
        image = _pillow()
        scaled = np.empty((len(which), side, side, 3), np.uint8)
        for at, row in enumerate(self._rows(partition, user)[which]):
            path = self._folder / f"{self._names[row].decode()}.jpg"
            try:
                with image.open(path, formats=("JPEG",)) as photo:
                    scaled[at] = _scaled(photo.convert("RGB"), side)
            except (OSError, ValueError, image.DecompressionBombError) as error:
                raise DataError(f"{path} cannot be read: {plain(error)}. Download it again.") from error
        return scaled


def _entries(path: Path) -> Iterator[Any]:
    """The entries of the list in the JSON file at ``path``, one after another: the whole is 200 MB.

    Raises DataError if it is no such list.
    """
    decoder, between = json.JSONDecoder(), re.compile(r"[\s,]*")
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(CHUNK).lstrip()
            if not text.startswith("["):
                raise ValueError("it is no list")
            at = 1
            while True:
                at = between.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing, too
                if text[at : at + 1] == "]":
                    return
                try:
                    entry, at = decoder.raw_decode(text, at)
                except json.JSONDecodeError as error:
                    more = file.read(CHUNK)
                    if not more or len(text) - at > MAX_ENTRY:
                        raise ValueError(f"{error.msg} near character {file.tell() - len(text) + at:,}") from error
                    text, at = text[at:] + more, 0
                    continue
                yield entry
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as FLAIR's list of images: {plain(error)}. Download it again.") from error


class Hdf5File:
    """A file of prepare_dataset.py or of pfl-research, whose groups are users. Memory holds the names of users."""

    def __init__(self, path: Path, label_set: str) -> None:
        if not path.is_file():
            raise DataError(f"{path}: no such file. Give FLAIR's folder, or an HDF5 file made of it.")
        h5py = _h5py()
        self._path, self._key = path, KEYS[label_set]
        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            raise DataError(f"{path} is no HDF5 file: {plain(error)}. Give FLAIR's folder, or an HDF5 file of it.") from error
        with self._reading("metadata"):
            kind = self._key.removesuffix("s")
            mapping, counter = f"metadata/{kind}_mapping", f"metadata/{kind}_counter"
            self._by_number = mapping in self._file
            held = json.loads(self._file[mapping if self._by_number else counter][()])
            self.labels = tuple(sorted(held, key=held.__getitem__) if self._by_number else sorted(held))
            if self._by_number and sorted(held.values()) != list(range(len(held))):
                raise ValueError("its labels are not numbered from 0 on")
            self._place = {label: column for column, label in enumerate(self.labels)}
            self.users = {each: sorted(self._file[each]) if each in self._file else [] for each in PARTITIONS}
            first = next((self._file[each][users[0]] for each, users in self.users.items() if users), None)
        if first is not None and "image" in first:
            raise DataError(f"{path} groups no images by user. Make it again without --not_group_data_by_user.")

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """Raises DataError for what is not as in the layouts."""
        try:
            yield
        except (KeyError, OSError, ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:
            raise DataError(
                f"{self._path}: {plain(what, 80)} is not as FLAIR's scripts write it: {plain(error)}. Make the file again."
            ) from error

    def _group(self, partition: str, user: int) -> Any:
        return self._file[partition][self.users[partition][user]]

    def _called(self, partition: str, user: int) -> str:
        return f"{partition}/{self.users[partition][user]}"

    def names(self, partition: str, user: int) -> list[str]:
        with self._reading(self._called(partition, user)):
            return [name.decode() for name in self._group(partition, user)["image_ids"][:]]

    def truth(self, partition: str, user: int) -> F32:
        with self._reading(self._called(partition, user)):
            group = self._group(partition, user)
            truth = np.zeros((len(group["images"]), len(self.labels)), np.float32)
            if self._by_number:
                rows, columns = group[f"{self._key}_row"][:], group[f"{self._key}_col"][:]
                if len(rows) != len(columns):
                    raise ValueError(f"{len(rows):,} rows and {len(columns):,} columns of labels")
                truth[rows, columns] = 1
                return truth
            named = group[self._key][:]
            if len(named) != len(truth):
                raise ValueError(f"{len(truth):,} images and labels of {len(named):,}")
            for photo, labels in enumerate(named):
                truth[photo, [self._place[label] for label in labels.decode().split(DELIMITER) if label]] = 1
            return truth

    def pixels(self, partition: str, user: int, which: I64, side: int) -> U8:
        with self._reading(self._called(partition, user)):
            images = self._group(partition, user)["images"]
            if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
                raise ValueError(f"images are {images.dtype} {images.shape}, not uint8 (images, rows, columns, 3)")
            chosen: U8 = images[:][which] if 2 * len(which) > len(images) else images[which]
        if chosen.shape[1:3] == (side, side):
            return chosen
        image = _pillow()
        return np.stack([_scaled(image.fromarray(each), side) for each in chosen])


def shrink(source: Path | str, out: Path | str, side: int, tick: Callable[[int, int], None] | None = None) -> None:
    """Writes the photos of ``source``, scaled to ``side`` by ``side``, to the HDF5 file ``out``, in pfl-research's layout: the
    whole set at 32 by 32 has 1.3 GB. ``tick`` is called after each user, with the number done and that of all.

    Raises DataError if ``source`` is not FLAIR's, InstallError without the libraries.
    """
    h5py, part = _h5py(), Path(f"{out}.part")
    by_set = {key: open_photos(Path(source), label_set) for label_set, key in KEYS.items()}
    photos = by_set["labels"]
    total, done = sum(len(users) for users in photos.users.values()), 0
    try:
        with h5py.File(part, "w") as file:
            for key, each in by_set.items():
                numbers = {label: number for number, label in enumerate(each.labels)}
                file[f"metadata/{key.removesuffix('s')}_mapping"] = json.dumps(numbers)
            for partition, users in photos.users.items():
                for user, name in enumerate(users):
                    group, names = file.create_group(f"{partition}/{name}"), photos.names(partition, user)
                    group["image_ids"] = np.array(names, "S")
                    group["images"] = photos.pixels(partition, user, np.arange(len(names)), side)
                    for key, each in by_set.items():
                        rows, columns = np.nonzero(each.truth(partition, user))
                        group[f"{key}_row"], group[f"{key}_col"] = rows.astype(np.uint16), columns.astype(np.uint16)
                    done += 1
                    if tick:
                        tick(done, total)
        part.replace(out)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {plain(error)}. Give a place with room that you may write to.") from error
    finally:
        part.unlink(missing_ok=True)


def _scaled(photo: Any, side: int) -> NDArray[np.uint8]:
    """A Pillow image as (side, side, 3): each pixel is the mean of the area under it."""
    return np.asarray(photo.resize((side, side), _pillow().Resampling.BOX), np.uint8)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise InstallError("FLAIR's images need Pillow: pip install 'tinyfl[images]'.") from error
    return Image


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise InstallError("an HDF5 file needs h5py: pip install 'tinyfl[images]'.") from error
    return h5py
