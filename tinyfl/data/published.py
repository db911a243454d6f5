"""The published data sets of tinyfl's tasks: where they come from, their licence, and their checksums, where one is published.
tinyfl downloads none of them.
"""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinyfl.errors import DataError
from tinyfl.errors.words import plain

DIGESTS = {32: "md5", 64: "sha256"}
"""The kind of a checksum, by its length."""


@dataclass(frozen=True)
class Published:
    """A file to download, for ``task``, from ``url``. ``bytes`` is its size, 0 if unknown; ``digest`` its checksum in
    hexadecimal, which ``digest_of`` publishes, empty if none is known."""

    file: str
    task: str
    about: str
    url: str
    licence: str
    bytes: int = 0
    digest: str = ""
    digest_of: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


CC_BY = "CC BY 4.0"
SPEECH = "https://storage.googleapis.com/download.tensorflow.org/data"
UCI = "https://archive.ics.uci.edu/static/public"
OMNIGLOT = "https://github.com/brendenlake/omniglot/raw/master/python"

PUBLISHED = (
    Published(
        "speech_commands_test_set_v0.02.tar.gz", "keywords", "Speech Commands, its test set: 4,890 clips",
        f"{SPEECH}/speech_commands_test_set_v0.02.tar.gz", CC_BY, 112_563_277,
        "cc2a00c1147c2254e9be3fa0f779d8c17421dc349b86366567a8edfa9acd51df", "several public projects",
    ),
    Published(
        "speech_commands_v0.02.tar.gz", "keywords", "Speech Commands, all: 105,829 clips of 35 words",
        f"{SPEECH}/speech_commands_v0.02.tar.gz", CC_BY, 2_428_923_189,
        "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58", "torchaudio",
    ),
    Published(
        "WISDM_ar_latest.tar.gz", "activity", "WISDM, activity prediction v1.1: 36 users",
        "https://www.cis.fordham.edu/wisdm/includes/datasets/latest/WISDM_ar_latest.tar.gz",
        "none given; its readme.txt goes along, and asks to cite Kwapisz, Weiss and Moore 2010",
    ),
    Published(
        "room+occupancy+estimation.zip", "presence", "Room Occupancy Estimation: four nodes in a room, 7 days",
        f"{UCI}/864/room+occupancy+estimation.zip", CC_BY,
    ),
    Published(
        "occupancy+detection.zip", "presence", "Occupancy Detection: an office, 17 days",
        f"{UCI}/357/occupancy+detection.zip", CC_BY,
    ),
    Published(
        "images_background.zip", "omniglot", "Omniglot, 30 alphabets to train on", f"{OMNIGLOT}/images_background.zip", "MIT",
        digest="68d2efa1b9178cc56df9314c21c6e718", digest_of="torchvision",
    ),
    Published(
        "images_evaluation.zip", "omniglot", "Omniglot, 20 alphabets to test on", f"{OMNIGLOT}/images_evaluation.zip", "MIT",
        digest="6b91aef0f799c5bb55b94e3f2daec811", digest_of="torchvision",
    ),
    Published(
        "labels_and_metadata.json", "flair", "FLAIR: 429,078 photos of 51,414 Flickr users, about 6 GB, by a script of its own",
        "https://github.com/apple/ml-flair", "CC BY-NC 4.0 for the labels; each photo has its own",
    ),
)  # fmt: skip


def verify(path: Path) -> dict[str, Any]:
    """What is known of the file at ``path``, by its name: "verified" if it has the published checksum, "unchecked" if none is
    published, or nobody knows a file of its name.

    Raises DataError if it cannot be read, or has another checksum or size.
    """
    try:
        size = path.stat().st_size
        found = next((each for each in PUBLISHED if each.file == path.name), None)
        if found is None or not found.digest:
            why = "no checksum of it is published" if found else "no published set has a file of this name"
            return {"file": str(path), "status": "unchecked", "why": why, "bytes": size}
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, DIGESTS[len(found.digest)]).hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({plain(error)}). Give the path of a file as it was downloaded.") from error
    kind = DIGESTS[len(found.digest)]
    if digest != found.digest:
        expected = f"; it should have {found.bytes:,} bytes" if found.bytes else ""
        raise DataError(
            f"{path} has {size:,} bytes and the {kind} {digest}, not {found.digest}, as {found.digest_of} has it{expected}. "
            f"Download it again: {found.url}"
        )
    return {"file": str(path), "status": "verified", "why": f"{kind}, as {found.digest_of} has it", "bytes": size}
