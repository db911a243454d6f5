"""The peers of bench/peers.py that need no environment of their own do the same job."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).parents[1] / "bench"


def theta(program: str, folder: Path, variant: str) -> np.ndarray:
    """Theta after the peer's first round, of the two that it is asked for."""
    command = [sys.executable, BENCH / "peers" / f"{program}.py", folder, variant]
    done = subprocess.run(command, input="1\n\n", capture_output=True, text=True, timeout=100)
    assert len(done.stdout.split()) == 2, done.stderr
    result: np.ndarray = np.load(folder / f"{program}-{variant}.npy")
    return result


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler, cc")
@pytest.mark.parametrize("job", ["J1", "J2"])
def test_a_plain_c_loop_a_cohort_call_and_a_simulation_end_a_round_with_the_same_theta(
    job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    from peers import images

    folder, data = tmp_path / "job", images(tmp_path / "images.npz")
    writer = [sys.executable, BENCH / "peers" / "with_tinyfl.py", folder, "samples", job, "7", data]
    subprocess.run(writer, check=True, timeout=100)
    called = theta("with_tinyfl", folder, "call")
    assert np.abs(called - np.load(folder / "theta.npy")).max() > 1e-3
    np.testing.assert_array_equal(theta("with_tinyfl", folder, "simulate"), called)
    np.testing.assert_allclose(theta("with_c", folder, "scalar"), called, rtol=0, atol=2e-6)
