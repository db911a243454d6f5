"""Photos in FLAIR's three layouts, made up: tens of users, a few of them with most of the photos, and favourite things."""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

SIDE = 64
FINE = {
    "animal": ("cat", "dog"),
    "food": ("bread", "fruit"),
    "outdoor": ("sea", "sky"),
    "plant": ("tree",),
    "structure": ("building", "chair"),
}
COARSE = tuple(FINE)
USERS = {"train": 24, "val": 6, "test": 8}

Entry = dict[str, Any]


def entries(seed: int = 0) -> list[Entry]:
    """The list of images: of each partition's users the first has most photos, and every fourth one alone."""
    rng, found = np.random.default_rng(seed), list[Entry]()
    for partition, users in USERS.items():
        for number in range(users):
            user, likes = f"{rng.integers(10**7, 10**8)}@N{number:02}", rng.dirichlet(np.full(len(COARSE), 0.5))
            for _ in range(1 if number % 4 == 3 else max(4, round(30 / (1 + number) ** 0.8))):
                coarse = sorted(set(rng.choice(COARSE, rng.integers(0, 4), p=likes).tolist()))
                fine = sorted(str(rng.choice(FINE[each])) for each in coarse)
                image = str(10**10 + len(found) * 7919)
                found.append(
                    {"user_id": user, "image_id": image, "fine_grained_labels": fine, "labels": coarse, "partition": partition}
                )
    return found


def photo(entry: Entry, rng: np.random.Generator) -> Image.Image:
    """Noise, with a square of one colour at one place for each of its labels."""
    pixels = rng.integers(80, 120, (SIDE, SIDE, 3))
    for label in entry["labels"]:
        column = COARSE.index(label)
        top, left = divmod(column, 3)
        pixels[24 * top : 24 * top + 16, 20 * left : 20 * left + 16] = 255 * np.array(
            [column & 1, column >> 1 & 1, column >> 2]
        )
    return Image.fromarray(pixels.astype(np.uint8))


def jpeg_folder(folder: Path, listed: list[Entry]) -> Path:
    """The layout of the download."""
    rng = np.random.default_rng(1)
    (folder / "small_images").mkdir(parents=True)
    for entry in listed:
        photo(entry, rng).save(folder / "small_images" / f"{entry['image_id']}.jpg", quality=90)
    (folder / "labels_and_metadata.json").write_text(json.dumps(listed, indent=1))
    return folder


def decoded(folder: Path, entry: Entry) -> np.ndarray:
    return np.asarray(Image.open(folder / "small_images" / f"{entry['image_id']}.jpg"))


def by_user(listed: list[Entry]) -> dict[tuple[str, str], list[Entry]]:
    users = defaultdict(list)
    for entry in listed:
        users[entry["partition"], entry["user_id"]].append(entry)
    return users


def ml_flair(path: Path, folder: Path, listed: list[Entry]) -> Path:
    """The HDF5 of ml-flair's prepare_dataset.py: labels by name."""
    with h5py.File(path, "w") as file:
        for (partition, user), images in by_user(listed).items():
            group = file.create_group(f"{partition}/{user}")
            for key in ("labels", "fine_grained_labels"):
                group[key] = np.array(["|".join(each[key]) for each in images], "S")
            group["image_ids"] = np.array([each["image_id"] for each in images], "S")
            group["images"] = np.stack([decoded(folder, each) for each in images])
        for key in ("label", "fine_grained_label"):
            file[f"metadata/{key}_counter"] = json.dumps(Counter(label for each in listed for label in each[f"{key}s"]))
    return path


def pfl_research(path: Path, folder: Path, listed: list[Entry]) -> Path:
    """The HDF5 of pfl-research: labels by row and column."""
    with h5py.File(path, "w") as file:
        for key, kind in (("label", np.uint8), ("fine_grained_label", np.uint16)):
            names = sorted({label for each in listed for label in each[f"{key}s"]})
            file[f"metadata/{key}_mapping"] = json.dumps({name: number for number, name in enumerate(names)})
            for (partition, user), images in by_user(listed).items():
                pairs = [(row, names.index(label)) for row, each in enumerate(images) for label in each[f"{key}s"]]
                file[f"{partition}/{user}/{key}s_row"] = np.array([row for row, _ in pairs], np.uint16)
                file[f"{partition}/{user}/{key}s_col"] = np.array([column for _, column in pairs], kind)
        for (partition, user), images in by_user(listed).items():
            file[f"{partition}/{user}/image_ids"] = np.array([each["image_id"] for each in images], "S")
            file[f"{partition}/{user}/images"] = np.stack([decoded(folder, each) for each in images])
    return path
