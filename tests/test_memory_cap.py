"""A limit of memory changes no result, is kept in a process of its own, and is refused where it is too small."""

import subprocess
import sys

import pytest

from tinyfl import simulate
from tinyfl.algorithms import Inner
from tinyfl.core import Engine
from tinyfl.errors import ConfigError
from tinyfl.networks import network
from tinyfl.simulators.native import NativeFleet
from tinyfl.system.sizes import read_size, shown_size
from tinyfl.tasks import load_task, numbers

CHILD = """
import resource, sys
from pathlib import Path
from tinyfl import simulate
cohort, memory, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
fleet = {"task": "digits", "network": "mlp-4", "devices": 30_000, "cohort": cohort}
run = simulate(**fleet, rounds=1, samples=200, tasks=50, memory=memory, out=out)
status = Path("/proc/self/status")  # Linux carries ru_maxrss over from the process that started this one
if status.exists():
    peak = int(status.read_text().split("VmHWM:")[1].split()[0]) >> 10
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 20
print(peak, run.result["theta_sha256"])
"""
MARGIN = 24
"""MiB: what else grows with the cohort (its numbers, as drawn), and what the allocator keeps."""


def peak(cohort: int, memory: str, out: str) -> tuple[int, str]:
    """MiB at the peak of a run, and its theta."""
    command = [sys.executable, "-c", CHILD, str(cohort), memory, out]
    size, theta = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return int(size), theta


@pytest.mark.slow
def test_a_run_keeps_its_limit_and_ends_with_the_same_theta(tmp_path) -> None:
    least, _ = peak(10, "", str(tmp_path / "small"))
    free, theta = peak(25_000, "", str(tmp_path / "free"))
    capped, same = peak(25_000, "30M", str(tmp_path / "capped"))
    assert capped < least + 30 + MARGIN < free
    assert same == theta


@pytest.mark.parametrize(("name", "tight"), [("sine", 1 << 13), ("digits", 3 << 16)])
def test_parts_of_any_size_give_the_same_sum(name: str, tight: int) -> None:
    task = load_task(name, None, 0)
    net = network("mlp-8", task.shape, task.outputs, task.loss, task.activation)
    theta, inner = net.initial_weights(0), Inner(samples=8, rate=0.05)
    whole = NativeFleet(task, net, 1000).run(numbers(0, 300), 1, theta, inner)
    at_once = set()
    for memory in (tight, 4 * tight, 1 << 30):
        fleet = NativeFleet(task, net, 1000, Engine(1, 4, memory))
        part = fleet.run(numbers(0, 300), 1, theta, inner)
        at_once.add(fleet._at_once(inner))
        assert (part.sum == whole.sum).all()
        assert part.devices == whole.devices
    assert min(at_once) < 300 < max(at_once)


@pytest.mark.slow
def test_a_limit_that_is_too_small_names_the_least_that_works(tmp_path) -> None:
    options = {"task": "digits", "rounds": 2, "tasks": 20}
    with pytest.raises(ConfigError, match="at least") as error:
        simulate(**options, memory="1K", out=tmp_path / "no")
    least = str(error.value).split("--memory ")[-1].split(",")[0].rstrip(".")
    simulate(**options, memory=least, out=tmp_path / "yes")
    below = f"{int(least[:-1]) - 1}M"
    with pytest.raises(ConfigError):
        simulate(**options, memory=below, out=tmp_path / "below")


def test_sizes() -> None:
    assert [read_size(text) for text in ("5", "3k", "200M", "2G")] == [5, 3 << 10, 200 << 20, 2 << 30]
    assert [shown_size(size) for size in (1, 1 << 20, (1 << 20) + 1)] == ["1M", "1M", "2M"]
    for text in ("", "0", "0G", "-1M", "1.5G", "2T", "M", "2 G", "2GB", "٣M"):
        with pytest.raises(ConfigError, match="200M"):
            read_size(text)
