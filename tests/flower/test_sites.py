"""Sites with data of their own: the theta of one process with all rows, and nothing of a sample on the wire."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from site_gateways import Federation, parts, whole

from tinyfl.flower import remote
from tinyfl.simulation import simulate

RUN: dict[str, Any] = {"task": "npz", "network": "mlp-8", "rounds": 12, "cohort": 3, "tasks": 40, "shots": (5,), "seed": 3}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"POLL": 0.0, "LOOK": 0.01, "RETRY": 0.0, "GRACE": 2.0}.items():
        monkeypatch.setattr(remote, f"{name}_SECONDS", seconds)
    monkeypatch.setattr("tinyfl.flower.sites.LOOK_SECONDS", 0.01)
    monkeypatch.setattr("tinyfl.report.page.write_report", lambda *_: None)


@pytest.mark.parametrize("sites", [2, 5])
@pytest.mark.parametrize("values", [False, True])
def test_sites_with_files_of_their_own_end_with_the_theta_of_one_file(tmp_path: Path, sites: int, values: bool) -> None:
    arrays = whole(values=values)
    np.savez(tmp_path / "all.npz", **arrays)
    here = simulate(data=str(tmp_path / "all.npz"), out=tmp_path / "here", **RUN)
    federation = Federation(parts(arrays, tmp_path, sites, turned=True))
    there = federation.run(tmp_path / "there", **RUN)
    assert there.theta.tobytes() == here.theta.tobytes()
