"""Files that take long to make and that many tests want: made once in a test session, by the worker that comes first."""

import fcntl
import hashlib
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tinyfl.building import build
from tinyfl.building.boards import Memory

FOLDER: Path | None = None
"""Where they are: tests/conftest.py sets it, a folder of the session for all workers."""

QUICKLY = ["--config-settings", "cmake.build-type=Debug"]
"""pip's options to build the engine in a fraction of the time; it computes the same bits, but slower."""

really_replace = build._replace


def once(make: Callable[[Path], object], *made_of: str) -> Path:
    """The file that ``make`` writes, given its path; ``made_of`` tells all that decides its content."""
    assert FOLDER is not None
    made = FOLDER / hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:32]
    FOLDER.mkdir(exist_ok=True)
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            make(made.with_suffix(".part"))
            made.with_suffix(".part").rename(made)
    return made


def contents(files: Iterable[Path]) -> list[str]:
    """The files by name and content, wherever they are."""
    return [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files]


def seen(source: Path, folders: Sequence[Path]) -> list[Path]:
    """The source and those headers in its own folder and in ``folders`` that it includes, and these in turn."""
    files = {source.name: source}
    for path in (unread := [source]):
        for name in re.findall(r'^\s*#\s*include\s+["<](.+?)[">]', path.read_text(), re.MULTILINE):
            there = next((folder / name for folder in (path.parent, *folders) if (folder / name).exists()), None)
            if there and name not in files:
                files[name] = there
                unread.append(there)
    return list(files.values())


def compile_once(output: Path, command: Sequence[str], what: str, memory: Memory | None = None) -> None:
    """tinyfl.building's call of a compiler or linker; an object is copied if one of the same input has been compiled, for
    another board too, if the source knows nothing of what tells them apart."""
    if "-c" not in command:
        really_replace(output, command, what, memory)
        return
    *flags, source = command
    files = seen(Path(source), [Path(flag[2:]) for flag in flags if flag.startswith("-I")])
    text = "".join(path.read_text() for path in files)
    told = [flag for flag in flags if flag[:2] not in ("-I", "-D") or (flag[:2] == "-D" and flag[2:].split("=")[0] in text)]
    made = once(lambda path: really_replace(path, command, what), *told, *contents(files))
    partial = output.with_suffix(".copy")
    shutil.copyfile(made, partial)
    partial.replace(output)
