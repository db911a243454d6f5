import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

FIRMWARE = Path(__file__).parents[1] / "firmware"
sys.path.insert(0, str(FIRMWARE))  # reference.py and peer.py serve here too


@pytest.fixture(scope="session")
def agent() -> Any:
    """The agent's own C, compiled for this machine with a buffer of 512 bytes: one board."""
    import peer

    cc = shutil.which("cc") or shutil.which("gcc")
    if not cc:
        pytest.skip("no C compiler (cc or gcc) on the path")
    return peer.build(cc, "-DTINYFL_BUFFER=512")


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An emulated Cortex-M4F with the agent on it."""
    for module in ("unicorn", "elftools", "ziglang"):
        if find_spec(module) is None:
            pytest.skip(f"needs {module}: pip install 'tinyfl[firmware]'")
    from tinyfl.building import boards
    from tinyfl.building.build import build
    from tinyfl.simulators.unicorn import Machine

    board = boards.load("mps2-an386")
    return Machine(build(board, tmp_path_factory.mktemp("firmware")).elf, board, 1)


@pytest.fixture(params=["double", "agent"])
def new_board(request: pytest.FixtureRequest) -> Callable[[], Any]:
    """Makes a board as it leaves the factory, with ``exchange`` and ``reset``: Python's, or the agent's own C."""
    if request.param == "double":
        from double import Double

        return Double
    agent = request.getfixturevalue("agent")

    def start() -> Any:
        agent.start()
        agent.reset = lambda: agent.start(blank=False)
        return agent

    return start
