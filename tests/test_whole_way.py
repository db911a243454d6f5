"""From an initialisation to an int8 model on a board, as bench/whole_way.py does it."""

import asyncio
import sys
from pathlib import Path

import pytest

pytest.importorskip("unicorn", reason="needs unicorn: pip install 'tinyfl[firmware]'")
pytestmark = pytest.mark.usefixtures("tensorflow")


def test_a_board_adapts_is_quantised_and_classifies_as_the_host_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tinyfl.runs.adaptation import Initialisation
    from tinyfl.simulation import simulate
    from tinyfl.tasks import load_task

    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "bench"))
    monkeypatch.delitem(sys.modules, "whole_way", raising=False)
    from whole_way import whole_way

    options = {"network": "conv-8-8", "devices": 200, "cohort": 16, "samples": 32, "rate": 0.05, "shots": (5,)}
    simulate(task="digits", rounds=120, tasks=10, adapt_lr=0.05, out=tmp_path / "run", **options)
    start = Initialisation.load(tmp_path / "run")
    before, adapted, host, board = asyncio.run(whole_way(start, load_task("digits", None, 0), "microbit-v2", 0, 5, 1))
    assert board == host
    assert adapted > before + 0.2
    assert abs(host - adapted) < 0.1
