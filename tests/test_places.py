"""The places where people run tinyfl: shares without locks or fsync, few open files, no temporary folder, a read-only root."""

import errno
import json
import os
import resource
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import tinyfl
from tinyfl import doctor
from tinyfl.deployment import keys
from tinyfl.deployment.keys import make_keys
from tinyfl.errors import ConfigError, RunError
from tinyfl.fleets import emulation
from tinyfl.runs.directory import RunDirectory
from tinyfl.system import cache, child, clock, files, limits, proxies
from tinyfl.system.child import Child
from tinyfl.system.files import private_folder, write_whole

SMALL = {"task": "sine", "network": "mlp-8", "devices": 4, "cohort": 4, "rounds": 3, "tasks": 2, "adapt_lr": 0.01}
OPTIONS = [
    word for key, value in SMALL.items() for word in (f"--{key.replace('_', '-')}", str(value))
]  # the same, for the command line

SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int fails(const char *what)
{
    const char *given = getenv(what);
    if (!given)
        return 0;
    errno = atoi(given);
    return 1;
}

int flock(int file, int operation)
{
    int (*really)(int, int) = dlsym(RTLD_NEXT, "flock");
    return fails("FLOCK") ? -1 : really(file, operation);
}

int fsync(int file)
{
    struct stat found;
    int (*really)(int) = dlsym(RTLD_NEXT, "fsync");
    int folder = fstat(file, &found) == 0 && S_ISDIR(found.st_mode);
    return fails(folder ? "FSYNC_FOLDER" : "FSYNC_FILE") ? -1 : really(file);
}
"""
"""System calls that fail with the error number in an environment variable, as on file systems that lack them."""


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SHIM, to be preloaded."""
    source = tmp_path_factory.mktemp("shim") / "shim.c"
    source.write_text(SHIM)
    try:
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", source.with_suffix(".so"), source, "-ldl"], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs gcc and a libc with dlsym: {error}")
    return source.with_suffix(".so")


def command(*words: object, files: int = 0, **environment: object) -> "subprocess.CompletedProcess[str]":
    """Runs the command line; with at most ``files`` open ones."""

    def limit() -> None:
        if files:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    return subprocess.run(
        [sys.executable, "-m", "tinyfl.cli", *map(str, words)], capture_output=True, text=True, preexec_fn=limit,
        env={**os.environ, **{key: str(value) for key, value in environment.items()}}, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def theta(path: Path) -> str:
    return str(RunDirectory(path).result()["theta_sha256"])


@pytest.fixture(scope="session")
def usual(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The theta of the same run elsewhere."""
    return str(tinyfl.simulate(out=tmp_path_factory.mktemp("usual") / "run", **SMALL).result["theta_sha256"])


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("FSYNC_FOLDER", errno.EINVAL),  # SMB, VirtualBox and WSL shares
        ("FSYNC_FOLDER", errno.EPERM),
        ("FSYNC_FILE", errno.EINVAL),  # FUSE
        ("FSYNC_FILE", errno.EOPNOTSUPP),
    ],
)
@pytest.mark.slow
@pytest.mark.usefixtures("figureless")
def test_a_run_is_well_where_fsync_is_not_supported(shim: Path, tmp_path: Path, usual: str, where: str, error: int) -> None:
    done = command("simulate", *OPTIONS, "--out", tmp_path / "run", LD_PRELOAD=shim, **{where: error})
    assert done.returncode == 0, done.stderr
    assert theta(tmp_path / "run") == usual


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_flush_that_fails_on_a_file_system_with_flushes_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def fails(_: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(RunError, match="cannot be written"):
        write_whole(tmp_path / "file", b"")
    with pytest.raises(OSError, match=os.strerror(error)):
        files.sync_folder(tmp_path)


def test_keys_are_made_on_a_share_without_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(_: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", unsupported)
    assert "lab-a.key" in make_keys(tmp_path / "keys", (), ("lab-a",)).made


@pytest.mark.parametrize("error", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_keys_are_made_where_no_file_can_be_linked_and_none_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def unsupported(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "link", unsupported)
    made = make_keys(tmp_path, (), ("lab-a",))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(made.made)
    before = (tmp_path / "ca.key").read_bytes()
    with pytest.raises(OSError, match=os.strerror(error)):
        keys._write(tmp_path / "ca.key", b"another")
    assert (tmp_path / "ca.key").read_bytes() == before


def test_a_file_is_written_in_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(path: object, *_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "open", unreadable)
    write_whole(tmp_path / "file", b"all")
    monkeypatch.undo()
    assert (tmp_path / "file").read_bytes() == b"all"


@pytest.mark.slow
@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])  # NFS without locks, FUSE, Lustre
def test_a_file_system_without_locks_is_said_before_the_first_round_and_leaves_nothing(
    shim: Path, tmp_path: Path, error: int
) -> None:
    out = tmp_path / "run"
    done = command("simulate", *OPTIONS, "--out", out, LD_PRELOAD=shim, FLOCK=error)
    assert done.returncode == RunError.exit_code
    assert f"{out} cannot be locked" in done.stderr and "Give an --out on a local disk" in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_what_is_in_a_directory_that_cannot_be_locked_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    (tmp_path / "mine").write_text("all")
    monkeypatch.setattr("fcntl.flock", unsupported)
    with pytest.raises(RunError, match="cannot be locked"), RunDirectory(tmp_path).locked():
        pass
    assert (tmp_path / "mine").read_text() == "all"


def test_a_temporary_folder_without_locks_serves_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("fcntl.flock", unsupported)
    with private_folder("tinyfl-test-") as folder, private_folder("tinyfl-test-") as another:
        assert folder.is_dir() and another.is_dir()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("board", "engine", "at_most"), [("posix", "process", 40), ("mps2-an386", "qemu", 40), ("mps2-an386", "unicorn", 20)]
)
def test_boards_beyond_the_limit_of_open_files_are_refused_before_anything_is_built(
    tmp_path: Path, board: str, engine: str, at_most: int
) -> None:
    (tmp_path / "fleet.toml").write_text(f'[[fleet]]\nboard = "{board}"\nengine = "{engine}"\ncount = 32\n')
    words = [*OPTIONS, "--devices", 32, "--cohort", 32, "--out", tmp_path / "run"]
    done = command("run", tmp_path / "fleet.toml", *words, files=at_most)
    assert done.returncode == ConfigError.exit_code, done.stderr
    assert (
        f"32 boards of {board} need" in done.stderr and f"a process may have {at_most} here. {limits.FILES_CURE}" in done.stderr
    )


@pytest.mark.slow
@pytest.mark.parametrize("at_most", [7, 10])
def test_a_limit_that_is_met_in_a_run_is_named_with_its_cure(tmp_path: Path, at_most: int) -> None:
    done = command("simulate", *OPTIONS, "--out", tmp_path / "run", files=at_most)
    assert done.returncode in (ConfigError.exit_code, RunError.exit_code), done.stderr
    assert f"a process may have {at_most} open files here" in done.stderr and "Traceback" not in done.stderr
    assert "room" not in done.stderr, "the disk is not to blame"


def test_where_no_thread_can_be_started_the_limit_is_named(tmp_path: Path) -> None:
    source = tmp_path / "threads.c"
    source.write_text("int pthread_create(void *t, void *a, void *f, void *x) { return t && a && f && x ? 11 : 11; }")
    try:
        subprocess.run(["gcc", "-w", "-fno-builtin", "-shared", "-fPIC", "-o", source.with_suffix(".so"), source], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs gcc: {error}")
    done = command(
        "simulate", *OPTIONS, "--out", tmp_path / "run", LD_PRELOAD=source.with_suffix(".so"), OPENBLAS_NUM_THREADS=1
    )
    assert done.returncode == ConfigError.exit_code, done.stderr
    assert "no process or thread can be started" in done.stderr and "Traceback" not in done.stderr


def test_a_cache_whose_programs_may_not_run_is_said_with_the_variable(monkeypatch: pytest.MonkeyPatch, emulators: None) -> None:
    def noexec(*given: Any, **_: Any) -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), given[0][0])

    board, each = emulation.load("posix"), emulation._Each(1, b"")
    elf = emulation.firmware(board, "zig").elf
    monkeypatch.setattr(child.subprocess, "Popen", noexec)
    with pytest.raises(ConfigError, match=f"{elf} may not be executed: .* Set XDG_CACHE_HOME"), ExitStack() as running:
        emulation._process(running, emulation._Kind(board, "process", elf), each, "tcp")


def no_more(after: int, error: int, monkeypatch: pytest.MonkeyPatch) -> list["subprocess.Popen[bytes]"]:
    """From now on only ``after`` processes start; returns them."""
    really, started = subprocess.Popen, list[Any]()

    def popen(*given: Any, **options: Any) -> Any:
        if len(started) == after:
            raise OSError(error, os.strerror(error))
        started.append(really(*given, **options))
        return started[-1]

    monkeypatch.setattr(child.subprocess, "Popen", popen)
    return started


@pytest.mark.parametrize(
    ("error", "cure"), [(errno.EMFILE, "ulimit -n"), (errno.ENFILE, "fs.file-max"), (errno.EAGAIN, "ulimit -u")]
)
def test_a_process_whose_watchdog_does_not_start_does_not_outlive_it(
    monkeypatch: pytest.MonkeyPatch, error: int, cure: str
) -> None:
    started = no_more(1, error, monkeypatch)
    with pytest.raises(ConfigError, match=cure):
        Child(["sleep", "600"])
    assert [process.returncode for process in started] == [-9]


def pictures(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.glob("*.png")}


MATPLOTLIBRC = """text.usetex: True
savefig.facecolor: black
xtick.labelcolor: white
lines.marker: x
path.sketch: 1, 100, 2
savefig.bbox: tight
axes.autolimit_mode: round_numbers
axes.labelsize: 30
"""


@pytest.mark.slow
@pytest.mark.usefixtures("rendered")
def test_a_report_looks_the_same_whatever_the_users_matplotlibrc_says(tmp_path: Path) -> None:
    tinyfl.simulate(out=tmp_path / "run", **SMALL)
    before = pictures(tmp_path / "run")
    assert len(before) == 4
    (tmp_path / "matplotlibrc").write_text(MATPLOTLIBRC)
    done = command("report", tmp_path / "run", MATPLOTLIBRC=tmp_path / "matplotlibrc")
    assert (done.returncode, done.stderr) == (0, "")
    assert pictures(tmp_path / "run") == before


@pytest.mark.slow
@pytest.mark.parametrize("broken", [{"MPLBACKEND": "nonsense"}, {"PYTHONPATH": "{}"}], ids=["backend", "import"])
def test_figures_that_cannot_be_drawn_cost_the_figures_and_come_later(
    tmp_path: Path, usual: str, broken: dict[str, str]
) -> None:
    (tmp_path / "matplotlib.py").write_text("raise OSError('no cache')")
    broken = {key: value.format(tmp_path) for key, value in broken.items()}
    done = command("simulate", *OPTIONS, "--out", tmp_path / "run", **broken)
    assert done.returncode == 0, done.stderr
    assert f"tinyfl report {tmp_path / 'run'}" in done.stderr and done.stderr.count("figures left out") == 1
    assert theta(tmp_path / "run") == usual
    page = (tmp_path / "run/report.html").read_text()
    assert page.count("Left out: matplotlib cannot draw it here") == 4 and "<img" not in page
    assert command("report", tmp_path / "run").stderr == ""
    assert len(pictures(tmp_path / "run")) == 4
    comparison = command("report", tmp_path / "run", tmp_path / "run", "--out", tmp_path / "both.html", **broken)
    assert comparison.returncode == 0 and "figures left out" in comparison.stderr
    assert "cannot draw it here" in (tmp_path / "both.html").read_text()


READ_ONLY = """
mount --make-rprivate / && mount -t tmpfs -o size=64m none "$VOL" && mount --bind / / && mount -o remount,bind,ro / || exit 99
unset TMPDIR XDG_CACHE_HOME MPLCONFIGDIR; cd /; "$@"
"""
"""A container with a read-only root, and a volume that may be written at $VOL."""


def contained(volume: Path, *words: object) -> "subprocess.CompletedProcess[str]":
    """Runs the command line there, from a folder that may not be written."""
    if os.geteuid() != 0:
        pytest.skip("needs a mount namespace, as root may make")
    volume.mkdir(exist_ok=True)
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", READ_ONLY, "sh", sys.executable, "-m", "tinyfl.cli", *map(str, words)],
        capture_output=True, text=True, env={**os.environ, "VOL": str(volume)}, timeout=120,
    )  # fmt: skip
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip(f"needs a mount namespace: {done.stderr}")
    return done


@pytest.mark.slow
def test_in_a_read_only_container_a_run_says_what_it_lacks_before_the_first_round_and_ends_well(tmp_path: Path) -> None:
    done = contained(tmp_path / "vol", "simulate", *OPTIONS, "--out", tmp_path / "vol/run")
    assert done.returncode == 0, done.stderr
    first = done.stderr.splitlines()[0]
    assert first.startswith("the report will have no figures: ") and first.endswith(cache.CURE)


@pytest.mark.slow
def test_in_a_read_only_container_what_needs_a_folder_says_which_and_doctor_says_the_same(tmp_path: Path) -> None:
    fleet = tmp_path / "fleet.toml"
    fleet.write_text("[[fleet]]\nnative = 2\n")
    words = ["gateway", "--superlink", "127.0.0.1:9", "--insecure", "--fleet", fleet]
    gateway = contained(tmp_path / "vol", *words)
    assert gateway.returncode == ConfigError.exit_code
    assert files.TEMPORARY_CURE in gateway.stderr and "Traceback" not in gateway.stderr
    board = contained(tmp_path / "vol", "run", *OPTIONS, "--board", "posix", "--out", tmp_path / "vol/run")
    assert board.returncode == ConfigError.exit_code
    assert cache.CURE in board.stderr and "Traceback" not in board.stderr
    checked = contained(tmp_path / "vol", "doctor", "--json")
    checks = {check["name"]: check for check in json.loads(checked.stdout)["checks"]}
    assert (checks["cache"]["state"], checks["cache"]["cure"]) == ("broken", cache.CURE)
    assert checks["temporary files"]["state"] == "broken"
    assert checks["temporary files"]["cure"] in gateway.stderr


def doctors(name: str) -> doctor.Check:
    return next(check for check in doctor._python() if check.name == name)


@pytest.mark.parametrize(("says", "state"), [("yes", "ok"), ("no", "broken"), ("", "ok")])
def test_doctor_says_of_a_clock_that_nobody_sets_what_a_gateway_would_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, state: str
) -> None:
    (tmp_path / "timedatectl").write_text(f"#!/bin/sh\necho {says}\n")
    (tmp_path / "timedatectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = doctors("clock")
    assert (found.state, found.cure) == (state, clock.CURE if state == "broken" else "")


def test_doctor_says_of_proxies_what_a_gateway_would_say_and_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*proxies.NAMES, "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert doctors("proxies").found == "none"
    monkeypatch.setenv("https_proxy", "http://me:secret@proxy:3128")
    found = doctors("proxies")
    assert (found.state, found.found) == ("ok", "https_proxy http://proxy:3128; NO_PROXY: this machine only")
    monkeypatch.setenv("NO_PROXY", "::1/128")
    with pytest.raises(ConfigError) as caught:
        proxies.demand_usable()
    assert (doctors("proxies").state, doctors("proxies").cure) == ("broken", str(caught.value))


@pytest.mark.slow
def test_doctor_says_of_few_open_files_what_a_run_would_say() -> None:
    checks = {check["name"]: check for check in json.loads(command("doctor", "--json", files=64).stdout)["checks"]}
    assert (checks["open files"]["state"], checks["open files"]["cure"]) == ("broken", limits.FILES_CURE)
    assert doctors("open files").state == "ok" or limits.most_files() < limits.FEW_FILES
