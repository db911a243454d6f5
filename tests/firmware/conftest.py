import shutil
from typing import Any

import harness
import peer
import pytest
from peer import Board


@pytest.fixture(scope="session")
def cc() -> str:
    found = shutil.which("cc") or shutil.which("gcc")
    if not found:
        pytest.skip("no C compiler (cc or gcc) on the path")
    return found


@pytest.fixture(scope="session")
def core(cc: str) -> Any:
    """The core for ctypes; undefined behaviour ends the process."""
    sources = [*harness.LEARNER, harness.HERE / "harness.c"]
    return harness.load(harness.compile_once(cc, sources, "-O2", "-fPIC", "-shared", *harness.UNDEFINED))


@pytest.fixture(scope="module")
def built(cc: str) -> Board:
    """The agent as a process; undefined behaviour ends it."""
    return peer.build(cc, "-fsanitize=undefined", "-fno-sanitize-recover=all")
