"""Flower apps for tests: the one that tinyfl hands in, and those of strangers."""

import hashlib
import io
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

OURS = tomllib.loads((Path(__file__).resolve().parents[2] / "tinyfl" / "flower" / "app" / "pyproject.toml").read_text())


def changed(where: str, value: Any) -> dict[str, Any]:
    """tinyfl's pyproject.toml with ``value`` at ``where``, such as "project.version"; None takes it away."""
    table = tomllib.loads(tomli_w.dumps(OURS))
    *path, last = where.split(".")
    inner = table
    for key in path:
        inner = inner.setdefault(key, {})
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return table


def bundle(table: Mapping[str, Any] | bytes = OURS, files: Mapping[str, str] | None = None) -> bytes:
    """The Flower app of a pyproject.toml and ``files``, as `flwr run` makes it."""
    pyproject = table if isinstance(table, bytes) else tomli_w.dumps(table).encode()
    return zipped({"pyproject.toml": pyproject, **{name: text.encode() for name, text in (files or {}).items()}}.items())


def zipped(entries: Any, content: str | None = None) -> bytes:
    """A bundle with these entries, pairs of a name or a ZipInfo and its bytes, and the list of contents that Flower demands."""
    entries = list(entries)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
        lines = []
        for name, data in entries:
            file.writestr(name, data)
            named = name.filename if isinstance(name, zipfile.ZipInfo) else name
            lines.append(f"{named},{hashlib.sha256(data).hexdigest()},{8 * len(data)}")
        file.writestr(".info/CONTENT", "\n".join(lines) if content is None else content)
    return made.getvalue()
