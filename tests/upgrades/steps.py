"""The files of older versions, as make.py packed them."""

import json
import tarfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MADE_IN = "/tmp/tinyfl-upgrades"
FILES = "files"
STEPS = sorted(file.name.removesuffix(".tar.xz") for file in HERE.glob("*.tar.xz") if not file.name.startswith(FILES))
STOPPED = "-stopped"


def names(step: str) -> list[str]:
    """All files of a step."""
    with tarfile.open(HERE / f"{step}.tar.xz") as archive:
        return archive.getnames()


def runs(step: str) -> list[str]:
    """The names of the runs of a step."""
    ends = "/config.toml"
    return [name.split("/")[1] for name in names(step) if name.endswith(ends) and name.count("/") == 2 and STOPPED not in name]


def unpacked(step: str, folder: Path) -> Path:
    """``folder`` with the files of a step, whose runs find their data there."""
    with tarfile.open(HERE / f"{step}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    for config in folder.rglob("config.toml"):
        config.write_text(config.read_text().replace(MADE_IN, str(folder)))
    return folder


def result(run: Path) -> dict[str, Any]:
    """What the older version wrote of a finished run."""
    return dict(json.loads((run / "result.json").read_text()))
