"""A user's own code for tests: the files of docs/your-own.md, a module that leaves a mark when it is imported, and packages."""

import re
from pathlib import Path

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "your-own.md").read_text()
CANARY = """from pathlib import Path

Path(__file__).with_name("imported").touch()
from cosine import CosineReptile as X
from geometric import GeometricMedian as Z
from sensors import Sensors as Y
"""
GROUPS = {"algorithm": "X", "task": "Y", "aggregator": "Z"}


def write_own(folder: Path) -> None:
    """The page's files, each of which is at most 40 lines long, and `canary.py`."""
    for file, text in re.findall(r'^```\w+ title="(\S+)"\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL):
        (folder / file).write_text(text)
    (folder / "canary.py").write_text(CANARY)


def installed(folder: Path, package: str, points: dict[str, dict[str, str]], version: str = "1.0") -> None:
    """An installed package in ``folder``: its entry points by kind and name."""
    info = folder / f"{package}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    lines = [
        f"[tinyfl.{kind}s]\n" + "".join(f"{name} = {where}\n" for name, where in of.items()) for kind, of in points.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
