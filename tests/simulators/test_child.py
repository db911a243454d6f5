"""Processes that end with this one: also those that they start, and however this one ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import all_end, runs

from tinyfl.system.child import Child

FAMILY = "sleep 600 & echo $! > {0}/one; sleep 600 & echo $! > {0}/two; {1}"


def started(folder: Path) -> list[int]:
    """The numbers of both grandchildren, once they are there."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        found = [path.read_text().strip() for path in (folder / "one", folder / "two") if path.is_file()]
        if len(found) == 2 and all(found):
            return [int(number) for number in found]
        time.sleep(0.02)
    raise AssertionError("the family does not start")


@pytest.mark.parametrize("then", ["wait", "exit 3"], ids=["with its parent", "after its parent"])
def test_what_a_child_has_started_ends_with_it(tmp_path: Path, then: str) -> None:
    with Child(["sh", "-c", FAMILY.format(tmp_path, then)]) as child:
        family = started(tmp_path)
        if then != "wait":
            assert child.process.wait(300) == 3
        assert all(map(runs, family))
    assert all_end([child.process.pid, *family])


def test_a_parent_that_is_killed_takes_the_whole_family_along(tmp_path: Path) -> None:
    program = f"""
import time
from tinyfl.system.child import Child
child = Child(["sh", "-c", {FAMILY.format(tmp_path, "wait")!r}])
print(child.process.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        family = [int(parent.stdout.readline()), *started(tmp_path)]
        assert all(map(runs, family))
        os.kill(parent.pid, signal.SIGKILL)
    assert all_end(family)


def test_an_interrupt_while_a_child_is_started_leaves_none_behind() -> None:
    program = """
import os, signal, subprocess
from tinyfl.system.child import Child
popen = subprocess.Popen
def interrupted(command, **options):
    made = popen(command, **options)
    print(made.pid, flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    return made
subprocess.Popen = interrupted
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    Child(["sleep", "600"])
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    child, watch, then = done.stdout.split()
    assert (then, done.stderr) == ("interrupted", "")
    assert all_end([int(child), int(watch)])
