"""A user's sources as a library of this machine: what simulated devices and recordings run, from the same C as a board."""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from tinyfl import __version__
from tinyfl.building import boards
from tinyfl.building.build import demand_sources, failed
from tinyfl.building.table import demand_end
from tinyfl.building.toolchains import COMMON, compiler
from tinyfl.errors import BuildError
from tinyfl.system import cache, locks
from tinyfl.system.child import run

WHOLE = ["-Wl,-z,defs"] if sys.platform == "linux" else []
"""Functions that are nowhere are errors of the build, as on a board."""


def library(sources: Sequence[Path]) -> Path:
    """The library of ``sources``, in the user's cache: compiled again only if they, or tinyfl's own C, have changed.

    Raises ConfigError for a source that is not a C file, InstallError without a compiler, BuildError with its first errors.
    """
    demand_sources(sources)
    firmware = boards.data("firmware")
    folders = [firmware / name for name in ("core", "agent", "math")]
    ours = [firmware / "core" / "random.c", firmware / "core" / "sine.c", firmware / "ports" / "host" / "host.c"]
    ours += [firmware / "agent" / f"{name}.c" for name in ("functions", "sensing", "sources", "sine_source")]
    command, compiler_version = compiler("host", "gcc")
    folders += dict.fromkeys(path.resolve().parent for path in sources)
    headers = [path for folder in folders for path in sorted(folder.glob("*.h"))]
    digest = hashlib.sha256(f"{__version__} {compiler_version} {COMMON}".encode())
    for path in (*ours, *headers, *sources):
        digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    folder = cache.folder(__version__, "sources")
    made = folder / f"{digest.hexdigest()[:32]}.so"
    with locks.exclusive(_touched(folder / "lock"), f"another build is under way in {folder}"):
        if not made.exists():
            partial = made.with_suffix(".part")
            flags = [*COMMON, "-O2", "-shared", "-fPIC", *WHOLE, *(f"-I{each}" for each in folders)]
            done = run(
                [*command, *flags, *map(str, ours), *(str(path.resolve()) for path in sources), "-o", str(partial)], folder
            )
            if done.returncode:
                raise BuildError(failed(f"{', '.join(path.name for path in sources)} for this machine", done.stderr))
            demand_end(partial)
            partial.replace(made)
    return made


def _touched(path: Path) -> Path:
    path.touch()
    return path
